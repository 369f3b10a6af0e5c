"""What `irsplit profile` measured on one machine: data and its JSON form.

A measurement is of one model, or of the segments of one bundle. Times are medians in nanoseconds. A
profile can be taken on another machine and used here; `load_profile` scales it for a device that is
slower by a stated factor. Fields have the names of their JSON keys.
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

# A slowdown beyond these makes times leave the range of the planner's integers.
_LEAST_FACTOR, _MOST_FACTOR = Decimal("1e-6"), Decimal("1e6")


def _check_not_negative(figures: "Load | MeasuredTransfer | Message") -> None:
    """Raise ValueError for a time or a size below zero."""
    for name, value in asdict(figures).items():
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{name} is negative")


@dataclass(frozen=True, slots=True)
class Load:
    """What running one part of a model costs.

    Attributes:
        wall_ns: Wall time.
        cpu_ns: CPU time of all threads.
        peak_bytes: Peak memory above that of the bare process.
        output_bytes: Bytes of its outputs.
        spread_ns: The distance between the quartiles of the wall times.
    """

    wall_ns: int
    cpu_ns: int
    peak_bytes: int
    output_bytes: int
    spread_ns: int = 0

    def __post_init__(self) -> None:
        _check_not_negative(self)


@dataclass(frozen=True, slots=True)
class MeasuredTransfer:
    """One way to send a tensor, as measured.

    Attributes:
        codec: The name of the codec.
        size_bytes: Bytes of the tensor in a frame.
        encode_ns: Time to encode it.
        decode_ns: Time to decode it.
        bits: The width to which it is quantized on its way; 0 if it is not.
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
    """What the profiles of models and of bundles share.

    Attributes:
        model: The name of the model's file.
        digest: The digest of that file.
        machine: Where it was measured.
        engine: The engine that ran it.
        threads: The number of the engine's threads.
        runs: The number of runs that the medians are of.
        tensors: Measured transfer options by tensor name.
        previews: Options to send graph inputs as pictures, which may change them; only the baseline
            with a compressed input uses these.
        message: The fixed cost of a round trip.
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
    message: Message = NO_MESSAGE

    @abstractmethod
    def with_loads(self, change: Callable[[Load], Load]) -> Self:
        """The same profile with every load changed."""

    def slower(self, factor: Decimal) -> Self:
        """The profile of a machine that is slower by a factor.

        Every time is multiplied by it but that of the exchange with a server, which does not depend
        on this machine alone.
        """

        def slow_load(load: Load) -> Load:
            return replace(
                load,
                wall_ns=round(load.wall_ns * factor),
                cpu_ns=round(load.cpu_ns * factor),
                spread_ns=round(load.spread_ns * factor),
            )

        def slow_options(options: tuple[MeasuredTransfer, ...]) -> tuple[MeasuredTransfer, ...]:
            return tuple(
                replace(
                    option,
                    encode_ns=round(option.encode_ns * factor),
                    decode_ns=round(option.decode_ns * factor),
                )
                for option in options
            )

        return replace(
            self.with_loads(slow_load),
            machine=f"{self.machine}, {factor} times slower",
            tensors={name: slow_options(options) for name, options in self.tensors.items()},
            previews={name: slow_options(options) for name, options in self.previews.items()},
            message=replace(self.message, device_ns=round(self.message.device_ns * factor)),
        )

    def by_cpu(self) -> Self:
        """Replace wall times by CPU times: those of an undisturbed machine with one thread."""
        return self.with_loads(lambda load: replace(load, wall_ns=load.cpu_ns, spread_ns=0))

    def speeds(self, bits: int) -> dict[str, CodecSpeed]:
        """The speed of each codec over all measured tensors together.

        Args:
            bits: The width of the tensors that count; 0 for those that are not quantized.
        """
        # By codec: raw bytes, time to encode, time to decode.
        totals: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for options in self.tensors.values():
            raw_bytes = _raw_bytes(options)
            if not raw_bytes:
                continue

            for option in options:
                if option.bits == bits:
                    total = totals[option.codec]
                    total[0] += raw_bytes
                    total[1] += option.encode_ns
                    total[2] += option.decode_ns

        speeds: dict[str, CodecSpeed] = {}
        for codec, (raw_bytes, encode_ns, decode_ns) in totals.items():
            speeds[codec] = CodecSpeed(
                encode_bytes_s=max(1, raw_bytes * 10**9 // max(1, encode_ns)),
                decode_bytes_s=max(1, raw_bytes * 10**9 // max(1, decode_ns)),
            )
        return speeds


def _raw_bytes(options: tuple[MeasuredTransfer, ...]) -> int:
    """The size of a tensor as it is; 0 if that was not measured."""
    for option in options:
        if option.codec == "raw" and not option.bits:
            return option.size_bytes
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile(Measured):
    """The loads of a model at its legal cuts.

    Attributes:
        cuts: The ids of the cuts: those of the graph's own order, ascending, then those of other
            orders.
        whole: The whole model.
        stretches: The stages between neighbouring cuts of the graph's own order, each as a session
            of its own; one more than there are of these cuts, or none.
        prefixes: For each cut everything before it; or none.
        suffixes: For each cut everything after it; or none.
    """

    cuts: tuple[str, ...]
    whole: Load
    stretches: tuple[Load, ...] = ()
    prefixes: tuple[Load, ...] = ()
    suffixes: tuple[Load, ...] = ()

    def __post_init__(self) -> None:
        _check_not_negative(self.message)

        # Cuts of other orders have ids such as `3b`; stages lie between cuts of the own order only.
        own = sum(id.isdecimal() for id in self.cuts)
        counts = {"stretches": own + 1, "prefixes": len(self.cuts), "suffixes": len(self.cuts)}
        for key, count in counts.items():
            actual = len(getattr(self, key))
            if actual not in (0, count):
                raise ValueError(f"{actual} {key} for {len(self.cuts)} cuts")

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
    """The loads of the segments of a bundle.

    Attributes:
        bundle: The digest of the bundle's contents.
        boundaries: For each segment but the last, the names of the model's tensors that cross
            behind it.
        segments: The segments in order; None for one that is not on this side.
    """

    bundle: str
    boundaries: tuple[tuple[str, ...], ...]
    segments: tuple[Load | None, ...]

    def __post_init__(self) -> None:
        _check_not_negative(self.message)
        if len(self.boundaries) != len(self.segments) - 1:
            raise ValueError(f"{len(self.boundaries)} boundaries for {len(self.segments)} segments")

    def with_loads(self, change: Callable[[Load], Load]) -> Self:
        segments = [load if load is None else change(load) for load in self.segments]
        return replace(self, segments=tuple(segments))


def to_json(profile: Measured) -> str:
    """The profile as text that `load_profile` reads."""
    format = BUNDLE_FORMAT if isinstance(profile, BundleProfile) else FORMAT
    return json.dumps({"format": format, **asdict(profile)}, indent=1) + "\n"


def is_measured(text: str) -> bool:
    """Whether the text that names a device or a server means a measured profile, a `.json` file."""
    return text.partition(",")[0].endswith(".json")


def load_profile(text: str) -> ModelProfile | BundleProfile:
    """Read a measured profile.

    Args:
        text: The file, then changes after commas: `profile.json,clock=cpu,slowdown=4`.

    Raises:
        PlanError: The file is no profile, or a change is not possible.
    """
    name, *changes = text.split(",")
    path = Path(name)

    with reading(path, "damaged profile", "make it again with 'irsplit profile'", PlanError):
        data = json.loads(read_text(path))
        kind = _KINDS.get(data.pop("format", None))
        if kind is None:
            formats = " or ".join(_KINDS)
            raise PlanError(
                f"{path}: this is not {formats}; make one with 'irsplit profile MODEL -o {path}'"
            )

        profile = record(kind, data)
        if isinstance(profile, BundleProfile) and not any(profile.segments):
            raise ValueError("no segment was measured")

    for change in changes:
        is_clock = change == "clock=cpu"
        profile = profile.by_cpu() if is_clock else profile.slower(_slowdown(change, text))
    return profile


def _slowdown(change: str, text: str) -> Decimal:
    """The factor of a change such as `slowdown=4`."""
    key, _, value = change.partition("=")
    try:
        factor = Decimal(value)
    except InvalidOperation:
        factor = Decimal(0)  # which is out of range, like any other impossible factor

    if key != "slowdown" or not factor.is_finite() or not _LEAST_FACTOR <= factor <= _MOST_FACTOR:
        raise PlanError(
            f"profile {text!r}: unknown change {change!r}; write slowdown=4 for a device 4 times "
            "slower, or clock=cpu"
        )
    return factor


_KINDS: dict[str, type[ModelProfile] | type[BundleProfile]] = {
    FORMAT: ModelProfile,
    BUNDLE_FORMAT: BundleProfile,
}
