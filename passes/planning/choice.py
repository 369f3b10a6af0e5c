"""What a plan says: every way to place a model, the best first, and the cuts that were chosen among them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from irsplit.base.errors import PlanError, short
from irsplit.passes.analysis.cuts import Cut
from irsplit.passes.planning.ratios import Ratios
from irsplit.passes.planning.stages import Stages
from irsplit.planner import Baseline, Goal, Ranked, best_cut, human, rank_cuts
from irsplit.planner.cost import CostTable, Placement
from irsplit.planner.result import baselines
from irsplit.runtime.serving.client.cut_selection import (
    DEVICE_ONLY,
    SERVER_ONLY,
    cut_costs,
    worth_having,
)

SEVERAL = 4
"""Cuts at most to choose from at run time: every segment more costs an engine call and what it could have fused."""


@dataclass(frozen=True, slots=True)
class PricedStages:
    """Cuts that nest, with what the stretches between them cost."""

    parts: Stages
    table: CostTable


@dataclass(frozen=True, slots=True)
class Option:
    """One way to place the model: the first stretches of a chain on the device, and what that costs."""

    chain: PricedStages
    row: Ranked

    @property
    def cut(self) -> Cut | None:
        """The cut that it is; None for everything in one place."""
        cuts = self.chain.parts.cuts
        return cuts[self.row.groups - 1] if 0 < self.row.groups <= len(cuts) else None

    @property
    def label(self) -> str:
        """The id of the cut, or what it is instead."""
        if self.cut is not None:
            return self.cut.id
        return DEVICE_ONLY if self.row.groups else SERVER_ONLY


@dataclass(frozen=True, slots=True)
class Decision:
    """Place of every stretch of a chain, its value, the proved bound, and what to say about it."""

    chain: PricedStages
    places: tuple[Placement, ...]
    value: int
    bound: int = 0
    notes: tuple[str, ...] = ()
    refusal: str = ""
    """Why the rule itself does not allow what it chose."""


@dataclass(frozen=True, slots=True)
class CutChoice:
    """What was chosen: cuts in order, a place per segment, and everything that it was compared with, the best first.

    Without cuts the whole model belongs to one place, and no split is allowed. `chain` is the one that the cuts are
    of. `bound` is 0 where a paper's policy proves nothing.
    """

    rule: str
    goal: Goal
    chain: PricedStages
    ranked: tuple[Option, ...]
    baselines: tuple[Baseline, ...]
    cuts: tuple[Cut, ...]
    places: tuple[str, ...]
    value: int
    bound: int
    notes: tuple[str, ...]
    refusal: str = ""
    """Why no split is allowed, where none is, and what there is instead."""
    ratios: Ratios | None = None
    """What the codecs do to this model's tensors; None where the published ratios stand."""

    def check_split(self) -> None:
        """Raise PlanError with the reason when no split is allowed."""
        if not self.cuts:
            raise PlanError(self.refusal)

    def to_json(self) -> dict[str, Any]:
        """The choice and its reasons, for manifests and reports."""
        return {
            "rule": self.rule,
            "objective": self.goal.objective,
            "unit": self.goal.unit,
            "limits": dict(self.goal.limits),
            "link": self.chain.table.link.name,
            "load": self.chain.table.server_load_percent,
            "measured_ratios": self.ratios.to_json() if self.ratios else None,
            "cuts": [cut.id for cut in self.cuts],
            "places": list(self.places),
            "value": self.value,
            "bound": self.bound,
            "baselines": {b.name: {"value": b.value, "allowed": b.allowed} for b in self.baselines},
            "ranked": [
                {
                    "cut": each.label,
                    "value": each.row.value,
                    "allowed": each.row.allowed,
                    "terms": each.row.costs.terms,
                    "sent": [asdict(switch) for switch in each.row.costs.switches],
                }
                for each in self.ranked
            ],
            "notes": [*self.notes, *([self.refusal] if self.refusal else [])],
        }


def options_of(priced: Sequence[PricedStages], goal: Goal) -> tuple[Option, ...]:
    """Every cut and the two ways without one, the best first; what several chains have is told once."""
    found: dict[str, Option] = {}
    for chain in priced:
        for row in rank_cuts(chain.table, goal):
            option = Option(chain, row)
            found.setdefault(option.label, option)
    return tuple(
        sorted(found.values(), key=lambda option: (not option.row.allowed, option.row.value))
    )


def prefix(count: int, groups: int) -> tuple[Placement, ...]:
    """So many groups on the device, the rest on the server."""
    return (Placement.DEVICE,) * groups + (Placement.SERVER,) * (count - groups)


def choice_of(
    rule: str, goal: Goal, ranked: tuple[Option, ...], decision: Decision, warnings: Sequence[str]
) -> CutChoice:
    """Cuts where the place changes; when it never does, the best allowed split, if there is one."""
    chain, places, value, bound = decision.chain, decision.places, decision.value, decision.bound
    notes = (*warnings, *decision.notes)
    changes = [index for index in range(1, len(places)) if places[index - 1] != places[index]]
    compared = baselines(chain.table, goal)
    if decision.refusal:
        return CutChoice(
            rule, goal, chain, ranked, compared, (), (), value, bound, notes, decision.refusal
        )
    if not changes:
        only = f"everything on the {places[0]} is best: {goal.objective} {human(goal.objective, value)}"
        split = next(
            (option for option in ranked if option.row.allowed and option.cut is not None), None
        )
        if split is None:
            why = (
                f"no cut keeps {goal.limits_text()}; loosen a limit"
                if goal.limits
                else "no cut can be made"
            )
            said = f"no split is allowed: {why}; {only}"
            return CutChoice(rule, goal, chain, ranked, compared, (), (), value, bound, notes, said)
        notes = (*notes, f"no split pays: {only}")
        chain, changes = split.chain, [split.row.groups]
        places = prefix(len(chain.table.groups), split.row.groups)
        value, bound = split.row.value, split.row.value if bound else 0
    cuts = tuple(chain.parts.cuts[index - 1] for index in changes)
    segments = tuple(str(places[index]) for index in (0, *changes))
    said = _said(goal, chain, cuts, value, compared, segments)
    return CutChoice(
        rule, goal, chain, ranked, compared, cuts, segments, value, bound, (*notes, said)
    )


def choice_of_several(
    priced: Sequence[PricedStages], goal: Goal, ranked: tuple[Option, ...]
) -> CutChoice:
    """Cuts for a client to choose from, each the best for some link: those of the chain that the best option is of."""
    best_cut([chain.table for chain in priced], [option.row for option in ranked], goal)
    chain = ranked[0].chain
    kept = {cut.id for cut in chain.parts.cuts} | {DEVICE_ONLY, SERVER_ONLY}
    allowed = {
        option.label: option for option in ranked if option.row.allowed and option.label in kept
    }
    rows = [{"cut": name, "terms": option.row.costs.terms} for name, option in allowed.items()]
    chosen = [
        allowed[cost.cut] for cost in worth_having(cut_costs({"choice": {"ranked": rows}}), SEVERAL)
    ]
    compared = baselines(chain.table, goal)
    if not chosen:
        why = f"no split is allowed: no cut keeps {goal.limits_text()}; loosen a limit; only one side alone keeps it"
        return CutChoice(
            "exact", goal, chain, ranked, compared, (), (), ranked[0].row.value, 0, (), why
        )
    cuts = tuple(cut for cut in chain.parts.cuts if cut.id in {option.label for option in chosen})
    places = (str(Placement.DEVICE), *(str(Placement.SERVER) for _ in cuts))
    value = min(option.row.value for option in chosen)
    said = _said(goal, chain, cuts, value, compared)
    return CutChoice("exact", goal, chain, ranked, compared, cuts, places, value, value, (said,))


def _said(
    goal: Goal,
    chain: PricedStages,
    cuts: Sequence[Cut],
    value: int,
    compared: Sequence[Baseline],
    places: Sequence[str] = (),
) -> str:
    """`places` of the segments are told where they are more than two, all of which one call runs."""
    where = ", ".join(f"{cut.id} (after {short(cut.after_name)})" for cut in cuts)
    where += f", on {', '.join(places)}" if len(places) > 2 else ""
    said = [
        f"cut {where}: {goal.objective} {human(goal.objective, value)} over {chain.table.link.name}"
    ]
    said += [f"{b.name}: {human(goal.objective, b.value)}" for b in compared]
    return "; ".join(said)
