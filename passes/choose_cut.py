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
    "a segment between two cuts counts as the difference of what was measured up to each (or from each on): alone it "
    "may take longer, for its engine fuses less"
)
_DIMENSIONS = {"ns": "time", "nJ": "energy", "bytes": "size"}


@dataclass(frozen=True)
class ChooseCut:
    """Choose among the legal cuts; `device` and `server` are profiles by name or file, or measured profiles (.json).

    `limit` is METRIC=VALUE with a unit, any number of times. `rule` is `exact` or the policy of a paper. With
    `pattern=any` the model may be cut several times and come back to the device; `pattern=several` gives up to four
    cuts, each of them the best for some link, among which the client chooses at run time. `codec` is what will code
    the boundary, a name or auto, in `bits` bits when it will be quantized; without it, raw or whatever was measured.
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
        choice = self.choose(model, context)
        choice.check_split()
        context.chosen_cuts = tuple(cut.id for cut in choice.cuts)
        context.chosen_places = choice.placements
        context.details["choice"] = choice.to_json()
        context.ratios = choice.ratios
        for note in choice.notes:
            context.remark(self, note, warning=note.startswith("no split"))
        return False

    @without_collector()
    def choose(self, model: Model, context: Context) -> CutChoice:
        """Price every legal cut and choose. Raises PlanError for a bad profile or limit, or when nothing fits."""
        goal = self._goal()
        if self.rule not in rules.POLICIES:
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
            choice = choice_of(
                self.rule, goal, ranked, decision, self._unknown(goal, model, priced[0].table)
            )
        notes = [
            describe_times(priced[0].stages, side)
            for side in self._machines
            if isinstance(side, BundleProfile)
        ]
        notes += [_BETWEEN] if self._adds_differences(choice) else []
        notes += [] if ratios is None else [_said_of(ratios)]
        return replace(choice, ratios=ratios, notes=(*choice.notes, *notes))

    def _adds_differences(self, choice: CutChoice) -> bool:
        """Whether the plan counts a segment by what was measured of others; jointdnn has blocks of its own."""
        between = self.pattern != "several" and self.rule != "jointdnn" and len(choice.cuts) > 1
        return between and any(isinstance(side, ModelProfile) for side in self._machines)

    def _unknown(self, goal: Goal, model: Model, table: CostTable) -> list[str]:
        """What the plan does not know."""
        notes: list[str] = []
        if "energy" in (goal.objective, *goal.limits) and not table.link.up_uw:
            notes.append(
                f"link {table.link.name} has no radio power: the energy is that of computing alone"
            )
        if shapeless := [value.name for value in model.entry.outputs if _is_shapeless(value)]:
            notes.append(
                f"how large {', '.join(shapeless)} are is not known: their way back counts as nothing"
            )
        if (left := unsized_note(model.entry)) and not isinstance(self._machines[0], ModelProfile):
            notes.append(left)
        return notes

    def _priced(
        self, model: Model, context: Context, ratios: Ratios | None = None
    ) -> list[PricedStages]:
        found = chains(context.cuts(model, self.max_tensors))
        known = context.macs, ratios, context.summed
        return [PricedStages(parts, self.table(model.entry.name, parts, *known)) for parts in found]

    def _goal(self) -> Goal:
        return Goal(OBJECTIVES.get(self.objective, self.objective), parse_limits(self.limit))

    def ratios(self, model: Model, context: Context) -> Ratios | None:
        """What the codec makes of the tensors of the cuts that are best by published ratios, on calibration inputs.

        None without those, or without a codec.
        """
        if context.observe is None or not self.codec:
            return None
        priced = self._priced(model, context)
        inputs = priced[0].stages.plan.inputs
        options = rank_placements(priced, self._goal())
        values = candidates((option.cut for option in options if option.cut is not None), inputs)
        samples = context.observe(model, values, sample_count(values))
        published = {
            name: ways for chain in priced for name, ways in self.codings(chain.stages).items()
        }
        return measured_ratios(values, inputs, published, samples, self.bits, channel_layout(model))

    def table(
        self,
        name: str,
        parts: Stages,
        macs: Macs | None,
        ratios: Ratios | None = None,
        summed: Summed | None = None,
    ) -> CostTable:
        """The model's cost table for these profiles, with `ratios` where they were measured."""
        here, there = self._machines
        return cost_table(
            name,
            parts,
            *times_on(parts, here, there, macs, summed),
            link(self.link),
            device=here if isinstance(here, Device) else None,
            options=self._codings(parts, here, there, ratios),
            previews=here.previews if isinstance(here, Measured) else None,
            peaks=halves_of(parts, here, before=True) if isinstance(here, ModelProfile) else (),
            message=message_between(here, there),
        ).with_load(self.load)

    def codings(self, parts: Stages, ratios: Ratios | None = None) -> prices.OptionsByTensor:
        """The ways to send every boundary tensor and input; without `codec` those that were measured.

        Raises PlanError for a codec that nobody knows.
        """
        return self._codings(parts, *self._machines, ratios)

    def _codings(
        self, parts: Stages, here: DeviceSource, there: DeviceSource, ratios: Ratios | None
    ) -> prices.OptionsByTensor:
        known = (*codec_names(), "auto")
        if self.codec and self.codec not in known:
            raise PlanError(f"unknown codec {self.codec!r}; known codecs: {', '.join(known)}")
        measured = transfer_options_between(here, there)
        if not self.codec:
            return measured
        encoding, decoding = (codec_speeds(side, self.bits) for side in (here, there))
        found = prices.transfer_options(parts, self.codec, self.bits, encoding, decoding, measured)
        return found if ratios is None or ratios.bits != self.bits else ratios.applied(parts, found)

    @cached_property
    def _machines(self) -> tuple[DeviceSource, DeviceSource]:
        """Device and server; measured profiles are files, which are read once."""
        return load_device(self.device), load_device(self.server or default_server(self.device))

    def _decide(
        self, priced: Sequence[PricedStages], goal: Goal, ranked: Sequence[RankedPlacement]
    ) -> Decision:
        if self.rule != "exact":
            return rules.paper_policy(self.rule, priced[0], goal, self._machines, ranked)
        return (
            rules.any_pattern(priced, goal)
            if self.pattern == "any"
            else rules.exact(priced, goal, ranked)
        )


def parse_limits(words: Sequence[str]) -> dict[str, int]:
    """`memory=64MB`, `latency=20ms` in the units of the cost table. Raises PlanError."""
    limits: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        name = OBJECTIVES.get(name, name)
        if name not in METRICS:
            raise PlanError(
                f"unknown limit {word!r}; limits can be set on {', '.join(METRICS)}, as in memory=64MB"
            )
        try:
            limits[name] = parse(value, _DIMENSIONS[UNITS.get(name, "ns")])
        except ValueError as error:
            raise PlanError(f"limit {word!r}: {error}") from error
        if limits[name] < 0:
            raise PlanError(f"limit {word!r} is negative")
    return limits


def _is_shapeless(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.estimated_shape is None


def _said_of(ratios: Ratios) -> str:
    width = f", floats in {ratios.bits} bits" if ratios.bits else ""
    return f"sizes of {ratios.tensors} tensors are measured on {ratios.calls} calibration inputs{width}"
