"""What `irsplit profile` measured of one model on one machine: data, and its JSON form.

Times are medians in nanoseconds. A profile can be taken on another machine and brought here; `load_profile` scales it
for a device that is slower by a stated factor.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from irsplit.errors import PlanError
from irsplit.profiles.model import NO_MESSAGE, Message

FORMAT = "irsplit-profile/2"


@dataclass(frozen=True, slots=True)
class Load:
    """What running one part costs: wall and CPU time, memory above the bare process, bytes of what it puts out."""

    wall_ns: int
    cpu_ns: int
    peak_bytes: int
    output_bytes: int
    spread_ns: int = 0
    """Distance between the quartiles of the wall times."""


@dataclass(frozen=True, slots=True)
class Coding:
    """A tensor in one codec: its bytes in a frame and the times to code it, as measured."""

    codec: str
    size_bytes: int
    encode_ns: int
    decode_ns: int


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """Loads of a model at its legal `cuts`, by id: those of the graph's own order, ascending, then those of others.

    `prefixes` and `suffixes` have one item a cut: everything before it, everything after it. `stretches` are the parts
    between neighbouring cuts of the first kind, each as a session of its own: one more than there are of those.
    """

    model: str
    digest: str
    machine: str
    engine: str
    threads: int
    runs: int
    cuts: tuple[str, ...]
    whole: Load
    stretches: tuple[Load, ...] = ()
    prefixes: tuple[Load, ...] = ()
    suffixes: tuple[Load, ...] = ()
    tensors: dict[str, tuple[Coding, ...]] = field(default_factory=dict[str, tuple[Coding, ...]])
    previews: dict[str, tuple[Coding, ...]] = field(default_factory=dict[str, tuple[Coding, ...]])
    """Graph inputs as pictures, which may change them: only the baseline with a compressed input uses these."""
    message: Message = NO_MESSAGE

    def slower(self, factor: Decimal) -> "ModelProfile":
        """The same machine slowed down: every time multiplied by the factor, but for the way to the server and back."""

        def load(one: Load) -> Load:
            times = (one.wall_ns, one.cpu_ns, one.spread_ns)
            wall, cpu, spread = (round(time * factor) for time in times)
            return replace(one, wall_ns=wall, cpu_ns=cpu, spread_ns=spread)

        def coding(one: Coding) -> Coding:
            return replace(one, encode_ns=round(one.encode_ns * factor), decode_ns=round(one.decode_ns * factor))

        return replace(
            self,
            machine=f"{self.machine}, {factor} times slower",
            whole=load(self.whole),
            stretches=tuple(map(load, self.stretches)),
            prefixes=tuple(map(load, self.prefixes)),
            suffixes=tuple(map(load, self.suffixes)),
            tensors={name: tuple(map(coding, found)) for name, found in self.tensors.items()},
            previews={name: tuple(map(coding, found)) for name, found in self.previews.items()},
            message=replace(self.message, device_ns=round(self.message.device_ns * factor)),
        )

    def by_cpu(self) -> "ModelProfile":
        """CPU times in place of wall times: what an undisturbed machine would take with one thread."""

        def load(one: Load) -> Load:
            return replace(one, wall_ns=one.cpu_ns, spread_ns=0)

        return replace(
            self,
            whole=load(self.whole),
            stretches=tuple(map(load, self.stretches)),
            prefixes=tuple(map(load, self.prefixes)),
            suffixes=tuple(map(load, self.suffixes)),
        )


def to_json(profile: ModelProfile) -> str:
    return json.dumps({"format": FORMAT, **asdict(profile)}, indent=1) + "\n"


def is_measured(text: str) -> bool:
    """Whether a --device or --server word names a measured profile rather than a device."""
    return text.partition(",")[0].endswith(".json")


def load_profile(text: str) -> ModelProfile:
    """Read `profile.json`, with changes as in `profile.json,clock=cpu,slowdown=4`.

    Raises PlanError naming the file and what is wrong with it.
    """
    name, *changes = text.split(",")
    path = Path(name)
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format", None) != FORMAT:
            raise PlanError(f"{path}: this is not {FORMAT}; make one with 'irsplit profile MODEL -o {path}'")
        profile = _profile(data)
    except OSError as error:
        raise PlanError(f"{path}: cannot read this profile: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"{path}: damaged profile ({error}); make it again with 'irsplit profile'") from error
    for change in changes:
        profile = profile.by_cpu() if change == "clock=cpu" else profile.slower(_slowdown(change, text))
    return profile


def _slowdown(change: str, text: str) -> Decimal:
    key, _, value = change.partition("=")
    try:
        factor = Decimal(value)
    except InvalidOperation:
        factor = Decimal(0)
    if key != "slowdown" or not factor.is_finite() or factor <= 0:
        raise PlanError(
            f"profile {text!r}: unknown change {change!r}; write slowdown=4 for a machine 4 times slower, or clock=cpu"
        )
    return factor


def _profile(data: dict[str, Any]) -> ModelProfile:
    loads = {key: tuple(Load(**load) for load in data.pop(key)) for key in ("stretches", "prefixes", "suffixes")}
    tensors, previews = (
        {name: tuple(Coding(**coding) for coding in found) for name, found in data.pop(key).items()}
        for key in ("tensors", "previews")
    )
    whole, cuts, message = Load(**data.pop("whole")), tuple(data.pop("cuts")), Message(**data.pop("message", {}))
    profile = ModelProfile(whole=whole, cuts=cuts, tensors=tensors, previews=previews, message=message, **loads, **data)
    own = sum(id.isdecimal() for id in cuts)
    for key, count in (("stretches", own + 1), ("prefixes", len(cuts)), ("suffixes", len(cuts))):
        if len(loads[key]) not in (0, count):
            raise ValueError(f"{len(loads[key])} {key} for {len(cuts)} cuts")
    if min((load.wall_ns for key in loads for load in loads[key]), default=0) < 0:
        raise ValueError("a negative time")
    if min(asdict(message).values()) < 0:
        raise ValueError("a message of negative cost")
    return profile
