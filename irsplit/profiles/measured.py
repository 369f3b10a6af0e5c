"""What `irsplit profile` measured of one model, or of the segments of a bundle, on one machine: data and its JSON form.

Times are medians in nanoseconds. A profile can be taken on another machine and brought here; `load_profile` scales it
for a device that is slower by a stated factor.
"""

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Self

from irsplit.base.errors import PlanError
from irsplit.base.reading import read_text, reading, record
from irsplit.profiles.model import NO_MESSAGE, CodecSpeed, Message

FORMAT = "irsplit-profile/2"
BUNDLE_FORMAT = "irsplit-bundle-profile/1"

_LEAST_FACTOR, _MOST_FACTOR = Decimal("1e-6"), Decimal("1e6")
"""Of a slowdown: beyond, times leave the range of the planner's integers."""


def _check_not_negative(found: "Load | MeasuredTransfer | Message") -> None:
    """Raise ValueError for a time or a size below zero."""
    for name, value in asdict(found).items():
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{name} is negative")


@dataclass(frozen=True, slots=True)
class Load:
    """What running one part costs: wall and CPU time, memory above the bare process, bytes of what it puts out."""

    wall_ns: int
    cpu_ns: int
    peak_bytes: int
    output_bytes: int
    spread_ns: int = 0
    """Distance between the quartiles of the wall times."""

    def __post_init__(self) -> None:
        _check_not_negative(self)


@dataclass(frozen=True, slots=True)
class MeasuredTransfer:
    """A tensor in one codec: its bytes in a frame and the times to code it, as measured.

    `bits` is the width to which it is quantized on its way, 0 when it is not.
    """

    codec: str
    size_bytes: int
    encode_ns: int
    decode_ns: int
    bits: int = 0

    def __post_init__(self) -> None:
        _check_not_negative(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured(ABC):
    """What every profile has: of which model, where it was measured and how; tensors in codecs, and a message.

    `model` and `digest` are the file's.
    """

    model: str
    digest: str
    machine: str
    engine: str
    threads: int
    runs: int
    tensors: dict[str, tuple[MeasuredTransfer, ...]] = field(
        default_factory=dict[str, tuple[MeasuredTransfer, ...]]
    )
    previews: dict[str, tuple[MeasuredTransfer, ...]] = field(
        default_factory=dict[str, tuple[MeasuredTransfer, ...]]
    )
    """Graph inputs as pictures, which may change them: only the baseline with a compressed input uses these."""
    message: Message = NO_MESSAGE

    @abstractmethod
    def with_loads(self, change: Callable[[Load], Load]) -> Self:
        """Every load changed."""

    def slower(self, factor: Decimal) -> Self:
        """The same machine slowed down: every time multiplied by the factor, but for the way to the server and back."""

        def load(one: Load) -> Load:
            times = (one.wall_ns, one.cpu_ns, one.spread_ns)
            wall, cpu, spread = (round(time * factor) for time in times)
            return replace(one, wall_ns=wall, cpu_ns=cpu, spread_ns=spread)

        def coding(one: MeasuredTransfer) -> MeasuredTransfer:
            return replace(
                one,
                encode_ns=round(one.encode_ns * factor),
                decode_ns=round(one.decode_ns * factor),
            )

        return replace(
            self.with_loads(load),
            machine=f"{self.machine}, {factor} times slower",
            tensors={name: tuple(map(coding, found)) for name, found in self.tensors.items()},
            previews={name: tuple(map(coding, found)) for name, found in self.previews.items()},
            message=replace(self.message, device_ns=round(self.message.device_ns * factor)),
        )

    def by_cpu(self) -> Self:
        """CPU times in place of wall times: what an undisturbed machine would take with one thread."""
        return self.with_loads(lambda one: replace(one, wall_ns=one.cpu_ns, spread_ns=0))

    def speeds(self, bits: int) -> dict[str, CodecSpeed]:
        """What the codecs did in this width, over all tensors together: for those that were not measured."""
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for ways in self.tensors.values():
            raw = next((way.size_bytes for way in ways if (way.codec, way.bits) == ("raw", 0)), 0)
            for way in ways:
                if raw and way.bits == bits:
                    found = (raw, way.encode_ns, way.decode_ns)
                    totals[way.codec] = [
                        before + now for before, now in zip(totals[way.codec], found, strict=True)
                    ]
        return {
            codec: CodecSpeed(*(max(1, size * 10**9 // max(1, time)) for time in times))
            for codec, (size, *times) in totals.items()
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile(Measured):
    """Loads of a model at its legal `cuts`, by id: those of the graph's own order, ascending, then those of others.

    `prefixes` and `suffixes` have one item a cut: everything before it, everything after it. `stretches` are the parts
    between neighbouring cuts of the first kind, each as a session of its own: one more than there are of those.
    """

    cuts: tuple[str, ...]
    whole: Load
    stretches: tuple[Load, ...] = ()
    prefixes: tuple[Load, ...] = ()
    suffixes: tuple[Load, ...] = ()

    def __post_init__(self) -> None:
        _check_not_negative(self.message)
        own = sum(id.isdecimal() for id in self.cuts)
        counts = {"stretches": own + 1, "prefixes": len(self.cuts), "suffixes": len(self.cuts)}
        for key, count in counts.items():
            found = len(getattr(self, key))
            if found not in (0, count):
                raise ValueError(f"{found} {key} for {len(self.cuts)} cuts")

    def with_loads(self, change: Callable[[Load], Load]) -> Self:
        return replace(
            self,
            whole=change(self.whole),
            stretches=tuple(map(change, self.stretches)),
            prefixes=tuple(map(change, self.prefixes)),
            suffixes=tuple(map(change, self.suffixes)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleProfile(Measured):
    """Loads of the segments of a bundle, in order; None for those that are not on this side.

    `boundaries` has the names of the model's tensors that cross behind each segment but the last.
    """

    bundle: str
    """The digest of its contents."""
    boundaries: tuple[tuple[str, ...], ...]
    segments: tuple[Load | None, ...]

    def __post_init__(self) -> None:
        _check_not_negative(self.message)
        if len(self.boundaries) != len(self.segments) - 1:
            raise ValueError(f"{len(self.boundaries)} boundaries for {len(self.segments)} segments")

    def with_loads(self, change: Callable[[Load], Load]) -> Self:
        return replace(
            self, segments=tuple(load if load is None else change(load) for load in self.segments)
        )


def to_json(profile: Measured) -> str:
    format = BUNDLE_FORMAT if isinstance(profile, BundleProfile) else FORMAT
    return json.dumps({"format": format, **asdict(profile)}, indent=1) + "\n"


def is_measured(text: str) -> bool:
    """Whether a --device or --server word names a measured profile rather than a device."""
    return text.partition(",")[0].endswith(".json")


def load_profile(text: str) -> ModelProfile | BundleProfile:
    """Read `profile.json`, with changes as in `profile.json,clock=cpu,slowdown=4`.

    Raises PlanError naming the file and what is wrong with it.
    """
    name, *changes = text.split(",")
    path = Path(name)
    with reading(path, "damaged profile", "make it again with 'irsplit profile'", PlanError):
        data = json.loads(read_text(path))
        kind = _KINDS.get(data.pop("format", None))
        if kind is None:
            known = " or ".join(_KINDS)
            raise PlanError(
                f"{path}: this is not {known}; make one with 'irsplit profile MODEL -o {path}'"
            )
        profile = record(kind, data)
        if isinstance(profile, BundleProfile) and not any(profile.segments):
            raise ValueError("no segment was measured")
    for change in changes:
        profile = (
            profile.by_cpu() if change == "clock=cpu" else profile.slower(_slowdown(change, text))
        )
    return profile


def _slowdown(change: str, text: str) -> Decimal:
    key, _, value = change.partition("=")
    try:
        factor = Decimal(value)
    except InvalidOperation:
        factor = Decimal(0)
    if key != "slowdown" or not factor.is_finite() or not _LEAST_FACTOR <= factor <= _MOST_FACTOR:
        raise PlanError(
            f"profile {text!r}: unknown change {change!r}; write slowdown=4 for a machine 4 times slower, or clock=cpu"
        )
    return factor


_KINDS: dict[str, type[ModelProfile] | type[BundleProfile]] = {
    FORMAT: ModelProfile,
    BUNDLE_FORMAT: BundleProfile,
}
