"""How a model is cut, coded and written: options that commands and functions share."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypedDict, Unpack

from irsplit.dialects.base import WriteOptions
from irsplit.passes.choose_cut import ChooseCut
from irsplit.passes.planning.devices import DEFAULT_DEVICE
from irsplit.passes.targets import boundary_bits

# Plugins and numbers make more words than these, so the types admit any text; the literals are
# what an editor offers.
Codec = Literal["raw", "zstandard", "static-rans", "auto"] | str
"""Lossless codec of the boundary: a built-in name, the name of a plugin's codec, or "auto"."""

Quantization = Literal["lossless", "int8", "int6", "int4"] | str
"""One of `irsplit.passes.targets.TARGETS`, with options behind it: "int8,range=mse,per-channel"."""

Objective = Literal["latency", "energy", "bytes", "device-memory", "throughput"] | str
"""What a plan minimises."""

Policy = Literal["exact", "neurosurgeon", "dads", "collabdnn", "jointdnn", "ushakov"] | str
"""How a plan chooses: the exact planner, or the policy of a paper."""

Pattern = Literal["single", "several", "any"]
"""How often a plan may cut: once, several times for a client to choose from, or to and fro."""


class CutKeywords(TypedDict, total=False):
    """What counts as a cut. `CompileOptions` says what each of them means."""

    max_tensors: int
    rematerialise: bool
    state: Sequence[str]
    dims: Sequence[str]


class PlanKeywords(CutKeywords, total=False):
    """How cuts are priced and compared. `CompileOptions` says what each of them means."""

    device: str
    server: str
    link: str
    objective: Objective
    limits: Sequence[str]
    policy: Policy
    pattern: Pattern
    load: int
    codec: Codec
    quantize: Quantization


class CompileKeywords(PlanKeywords, total=False):
    """The fields of `CompileOptions` as keywords."""

    cuts: Sequence[str]
    places: Sequence[str]
    boundary_ops: bool
    agreement_measure: str
    autonomous: bool
    adaptive: bool
    pipeline: str
    external_over: int | None
    share_weights: bool
    report: bool
    warnings_are_errors: bool
    remember: bool


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How `irsplit.compile` cuts a model and writes the bundle.

    The defaults are those of `irsplit compile`. A single word may stand for a sequence of words.
    Without `cuts`, a plan for `device`, `server` and `link` chooses the cut; without a `device`,
    it is the legal cut that sends the fewest bytes.

    Example:
        >>> CompileOptions(cuts="bottleneck/relu", codec="raw").cuts
        ('bottleneck/relu',)
    """

    cuts: Sequence[str] = ()
    """Legal cuts by id or tensor name, in any order."""
    max_tensors: int = 1
    """How many tensors may cross at a cut."""
    rematerialise: bool = True
    """Whether cheap side values are computed on both sides of a cut instead of being sent."""
    state: Sequence[str] = ()
    """Inputs and outputs that are state, "IN=OUT"; "auto" finds the pairs by their names."""
    dims: Sequence[str] = ()
    """Sizes of open dimensions of inputs, "NAME=N", with which estimates count and states begin."""
    places: Sequence[str] = ()
    """Where each segment runs: "device" or "server"; by default the first on the device."""

    device: str = ""
    """Device profile by name or file, or a measured profile; empty: no plan is made."""
    server: str = ""
    """The same for the server; empty: the default for the device."""
    link: str = "wifi"
    """Link profile by name or file, with changes: "lte,rtt=70ms"."""
    objective: Objective = "latency"
    """What the plan minimises."""
    limits: Sequence[str] = ()
    """What the plan must keep: "memory=64MB", "energy=2J"."""
    policy: Policy = "exact"
    """How the plan chooses."""
    pattern: Pattern = "single"
    """How often the plan may cut."""
    load: int = 100
    """Load of the server in percent; 100 is an idle one."""

    codec: Codec = "zstandard"
    """Lossless codec of the boundary; "static-rans" and "auto" learn from calibration samples."""
    quantize: Quantization = "lossless"
    """How floats cross; all but "lossless" need calibration samples."""
    boundary_ops: bool = False
    """Whether the segments quantize by operators of their own format."""
    agreement_measure: str = ""
    """How an agreement reads outputs: top1, iou, f1, an entry point or FILE.py:FUNCTION."""

    autonomous: bool = False
    """Whether the device side carries the server's segments too, and can go on without a link."""
    adaptive: bool = False
    """Whether the device side carries all segments but the last, so that the client can choose."""
    pipeline: str = ""
    """The passes as text, in place of all the options that stand for passes."""
    external_over: int | None = None
    """Bytes of a segment above which its weights go into a file beside it; None: if they must."""
    share_weights: bool = False
    """Whether segments refer to the data files of the model, linked into the bundle."""
    report: bool = True
    """Whether report.html and report.json are written beside the manifest."""
    warnings_are_errors: bool = False
    """Whether a warning of a pass stops the compilation."""
    remember: bool = True
    """Whether this machine notes where the model lies, so that `irsplit.verify` finds it again."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in _SEQUENCES:
                # A string is one word, not its letters.
                words = (value,) if isinstance(value, str) else tuple(map(str, value))
                object.__setattr__(self, field.name, words)

    def replaced(self, **changes: Unpack[CompileKeywords]) -> "CompileOptions":
        """These options with some changed."""
        return replace(self, **changes) if changes else self

    def chooser(self) -> ChooseCut | None:
        """The pass that plans with these options; None without a device."""
        return self.planner() if self.device else None

    def planner(self) -> ChooseCut:
        """The pass that plans with these options, for the default device where they name none."""
        return ChooseCut(
            device=self.device or DEFAULT_DEVICE,
            server=self.server,
            link=self.link,
            objective=self.objective,
            limit=tuple(self.limits),
            rule=self.policy,
            pattern=self.pattern,
            max_tensors=self.max_tensors,
            load=self.load,
            codec=self.codec,
            bits=boundary_bits(self.quantize),
        )

    def write_options(self) -> WriteOptions:
        """How the dialect writes the segments."""
        return WriteOptions(self.external_over, self.share_weights)


_SEQUENCES = ("cuts", "state", "dims", "places", "limits")
