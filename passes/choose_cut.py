"""choose-cut: the cut that is best for a device, a server and a link."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from irsplit.base.errors import PlanError
from irsplit.ir import Model, TensorType, Value, without_collector
from irsplit.passes.analysis.dims import unsized_note
from irsplit.passes.base import Context, channel_layout
from irsplit.passes.planning import policies as rules
from irsplit.passes.planning import prices
from irsplit.passes.planning.choice import (
    CutChoice,
    Decision,
    PricedStages,
    RankedPlacement,
    choice_of,
    choice_of_several,
    rank_placements,
)
from irsplit.passes.planning.cost_tables import cost_table
from irsplit.passes.planning.devices import (
    DEFAULT_DEVICE,
    DeviceSource,
    codec_speeds,
    default_server,
    load_device,
    message_between,
    times_on,
    transfer_options_between,
)
from irsplit.passes.planning.ratios import Ratios, candidates, measured_ratios, sample_count
from irsplit.passes.planning.segment_times import describe_times
from irsplit.passes.planning.stages import Macs, Stages, Summed, chains, halves_of
from irsplit.planner import Goal
from irsplit.planner.cost import CostTable
from irsplit.planner.terms import METRICS, UNITS
from irsplit.profiles import Device, link
from irsplit.profiles.measured import BundleProfile, Measured, ModelProfile
from irsplit.profiles.units import parse
from irsplit.runtime.frame.descriptor import codec_names

OBJECTIVES = {
    "latency": "latency",
    "energy": "energy",
    "bytes": "bytes",
    "device-memory": "memory",
    "throughput": "throughput",
}
"""What the command line offers, as the planner calls it; all that the planner knows is taken."""
PATTERNS = ("single", "several", "any")
_BETWEEN = (
    "a segment between two cuts counts as the difference of what was measured up to each (or from "
    "each on): alone it may take longer, for its engine fuses less"
)
_DIMENSIONS = {"ns": "time", "nJ": "energy", "bytes": "size"}
"""The dimension of each of the planner's units."""


@dataclass(frozen=True)
class ChooseCut:
    """Choose among the legal cuts the one that is best for a device, a server and a link.

    * `device` and `server` are profiles by name or file, or measured profiles (.json); `link` is a
      profile by name or file. `load` is that of the server in percent; 100 is an idle one.
    * `objective` is what to minimise, and `limit` is METRIC=VALUE with a unit, any number of times.
    * `rule` is `exact` or the policy of a paper.
    * `pattern=any` lets the model be cut several times and come back to the device.
      `pattern=several` gives up to four cuts, each of them the best for some link, among which the
      client chooses at run time.
    * `codec` is what will code the boundary, a name or auto, in `bits` bits when it will be
      quantized. Without it, the boundary is raw, or as it was measured.
    """

    name: ClassVar[str] = "choose-cut"
    device: str = DEFAULT_DEVICE
    server: str = ""
    link: str = "wifi"
    objective: str = "latency"
    limit: tuple[str, ...] = ()
    rule: str = "exact"
    pattern: str = "single"
    max_tensors: int = 1
    load: int = 100
    codec: str = ""
    bits: int = 0

    def run(self, model: Model, context: Context) -> bool:
        """Leave the chosen cuts and placements in the context, for partition."""
        choice = self.choose(model, context)
        choice.check_split()

        context.chosen.cuts = tuple(cut.id for cut in choice.cuts)
        context.chosen.placements = choice.placements
        context.chosen.ratios = choice.ratios
        context.details["choice"] = choice.to_json()
        for note in choice.notes:
            context.remark(self, note, warning=note.startswith("no split"))
        return False

    @without_collector()
    def choose(self, model: Model, context: Context) -> CutChoice:
        """Price every legal cut and choose.

        Args:
            model: A model that is not partitioned.
            context: Its cuts, and samples on which codecs are measured.

        Raises:
            PlanError: A profile, an option or a limit is wrong, or nothing fits.

        Example:
            >>> from irsplit.ir import parse_model
            >>> from irsplit.passes import Context
            >>> model = parse_model('''graph @main(%x: f32[1,4096]) -> (%y) {
            ...   %a = test.op(%x) : f32[1,8]
            ...   %y = test.op(%a) : f32[1,4096]
            ... }''')
            >>> choice = ChooseCut(objective="bytes").choose(model, Context())
            >>> [cut.id for cut in choice.cuts]
            ['1']
        """
        goal = self._goal()
        self._check(goal)
        ratios = self.ratios(model, context)
        priced = self._priced(model, context, ratios)
        table = priced[0].table
        if "energy" in (goal.objective, *goal.limits) and not table.knows_energy:
            raise PlanError(
                f"device {self.device!r} has no active_power, so energy cannot be planned with it; "
                "take a device profile that has it, or add it to a .toml of your own"
            )

        ranked = rank_placements(priced, goal)
        if self.pattern == "several":
            choice = choice_of_several(priced, goal, ranked)
        else:
            decision = self._decide(priced, goal, ranked)
            unknown = self._unknown(goal, model, table)
            choice = choice_of(self.rule, goal, ranked, decision, unknown)
        notes = self._notes(priced[0].stages, choice, ratios)
        return replace(choice, ratios=ratios, notes=(*choice.notes, *notes))

    def _check(self, goal: Goal) -> None:
        """Raise PlanError for options that are unknown or do not go together."""
        if self.rule not in rules.PolicyNames():
            raise PlanError(f"unknown rule {self.rule!r}; known rules: {', '.join(rules.POLICIES)}")
        if self.pattern not in PATTERNS:
            raise PlanError(
                f"unknown pattern {self.pattern!r}; known patterns: {', '.join(PATTERNS)}"
            )
        if self.pattern == "several" and (self.rule, goal.objective) != ("exact", "latency"):
            raise PlanError(
                "pattern several is for rule exact and objective latency, by which clients choose"
            )
        if self.load <= 0:
            raise PlanError(f"server load {self.load} % must be positive; 100 is an idle server")

    def _notes(self, stages: Stages, choice: CutChoice, ratios: Ratios | None) -> list[str]:
        """Word what the prices are made of."""
        notes: list[str] = []
        for profile in self._profiles:
            if isinstance(profile, BundleProfile):
                notes.append(describe_times(stages, profile))
        if self._adds_differences(choice):
            notes.append(_BETWEEN)
        if ratios is not None:
            notes.append(_ratios_note(ratios))
        return notes

    def _adds_differences(self, choice: CutChoice) -> bool:
        """Return whether a segment is counted by what was measured of others."""
        # jointdnn has measured blocks of its own.
        if self.pattern == "several" or self.rule == "jointdnn" or len(choice.cuts) <= 1:
            return False
        return any(isinstance(profile, ModelProfile) for profile in self._profiles)

    def _unknown(self, goal: Goal, model: Model, table: CostTable) -> list[str]:
        """Word what the plan does not know."""
        notes: list[str] = []
        if "energy" in (goal.objective, *goal.limits) and not table.link.up_uw:
            notes.append(
                f"link {table.link.name} has no radio power: the energy is that of computing alone"
            )

        shapeless = [value.name for value in model.entry.outputs if _is_shapeless(value)]
        if shapeless:
            notes.append(
                f"how large {', '.join(shapeless)} are is not known: their way back counts as "
                "nothing"
            )

        # What was measured, was measured at some size.
        unsized = unsized_note(model.entry)
        if unsized and not isinstance(self._profiles[0], ModelProfile):
            notes.append(unsized)
        return notes

    def _priced(
        self, model: Model, context: Context, ratios: Ratios | None = None
    ) -> list[PricedStages]:
        """Price the stages of every order in which the model is cut."""
        macs = None if context.dialect is None else context.dialect.macs
        summed = None if context.dialect is None else context.dialect.summed
        name = model.entry.name
        priced: list[PricedStages] = []
        for stages in chains(context.cuts(model, self.max_tensors)):
            table = self.table(name, stages, macs, ratios, summed)
            priced.append(PricedStages(stages, table))
        return priced

    def _goal(self) -> Goal:
        return Goal(OBJECTIVES.get(self.objective, self.objective), parse_limits(self.limit))

    def ratios(self, model: Model, context: Context) -> Ratios | None:
        """Measure what the codec makes of a few tensors on samples.

        Args:
            model: A model that is not partitioned.
            context: Its cuts and samples. The tensors are those of the cuts that are best by
                published ratios.

        Returns:
            The measured ratios; None without samples, or without a codec.
        """
        if context.samples is None or not self.codec:
            return None

        priced = self._priced(model, context)
        inputs = priced[0].stages.plan.inputs
        options = rank_placements(priced, self._goal())
        values = candidates((option.cut for option in options if option.cut is not None), inputs)
        samples = context.samples.observed(model, values, sample_count(values))

        published: prices.OptionsByTensor = {}
        for chain in priced:
            published = {**published, **self.codings(chain.stages)}
        return measured_ratios(values, inputs, published, samples, self.bits, channel_layout(model))

    def table(
        self,
        name: str,
        parts: Stages,
        macs: Macs | None,
        ratios: Ratios | None = None,
        summed: Summed | None = None,
    ) -> CostTable:
        """Return the model's cost table for these profiles.

        Args:
            name: The name of the model.
            parts: The stages between its legal cuts.
            macs: Counts the multiply-accumulates of a node.
            ratios: What the codec makes of tensors, where that was measured.
            summed: Prices a node with bodies or callees by the nodes inside; see `Dialect.summed`.
        """
        device, server = self._profiles
        return cost_table(
            name,
            parts,
            *times_on(parts, device, server, macs, summed),
            link(self.link),
            device=device if isinstance(device, Device) else None,
            options=self.codings(parts, ratios),
            previews=device.previews if isinstance(device, Measured) else None,
            peaks=halves_of(parts, device, before=True) if isinstance(device, ModelProfile) else (),
            message=message_between(device, server),
        ).with_load(self.load)

    def codings(self, parts: Stages, ratios: Ratios | None = None) -> prices.OptionsByTensor:
        """Return the transfer options of every boundary tensor and input.

        Args:
            parts: The stages between the model's legal cuts.
            ratios: What the codec makes of tensors, where that was measured.

        Returns:
            The options that the codec has; without a codec those that were measured.

        Raises:
            PlanError: The codec is unknown.
        """
        known = (*codec_names(), "auto")
        if self.codec and self.codec not in known:
            raise PlanError(f"unknown codec {self.codec!r}; known codecs: {', '.join(known)}")

        device, server = self._profiles
        measured = transfer_options_between(device, server)
        if not self.codec:
            return measured

        encoding, decoding = codec_speeds(device, self.bits), codec_speeds(server, self.bits)
        options = prices.transfer_options(
            parts, self.codec, self.bits, encoding, decoding, measured
        )
        if ratios is None or ratios.bits != self.bits:
            return options
        return ratios.applied(parts, options)

    @cached_property
    def _profiles(self) -> tuple[DeviceSource, DeviceSource]:
        """The device and the server; measured profiles are files, which are read once."""
        return load_device(self.device), load_device(self.server or default_server(self.device))

    def _decide(
        self, priced: Sequence[PricedStages], goal: Goal, ranked: Sequence[RankedPlacement]
    ) -> Decision:
        """Decide by the rule; the pattern `several` is not decided here."""
        if self.rule != "exact":
            return rules.paper_policy(self.rule, priced[0], goal, self._profiles, ranked)
        if self.pattern == "any":
            return rules.any_pattern(priced, goal)
        return rules.exact(priced, goal, ranked)


def parse_limits(words: Sequence[str]) -> dict[str, int]:
    """Parse limits on metrics.

    Args:
        words: METRIC=VALUE with a unit each, such as "memory=64MB" or "latency=20ms".

    Returns:
        The limits by metric, in the units of the cost table.

    Raises:
        PlanError: A metric is unknown, or a value has no unit or is negative.

    Example:
        >>> parse_limits(["latency=20ms"])
        {'latency': 20000000}
    """
    limits: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        metric = OBJECTIVES.get(name, name)
        if metric not in METRICS:
            raise PlanError(
                f"unknown limit {word!r}; limits can be set on {', '.join(METRICS)}, as in "
                "memory=64MB"
            )

        try:
            limits[metric] = parse(value, _DIMENSIONS[UNITS.get(metric, "ns")])
        except ValueError as error:
            raise PlanError(f"limit {word!r}: {error}") from error
        if limits[metric] < 0:
            raise PlanError(f"limit {word!r} is negative")
    return limits


def _is_shapeless(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.estimated_shape is None


def _ratios_note(ratios: Ratios) -> str:
    width = f", floats in {ratios.bits} bits" if ratios.bits else ""
    return (
        f"sizes of {ratios.tensors} tensors are measured on {ratios.calls} calibration inputs"
        f"{width}"
    )
