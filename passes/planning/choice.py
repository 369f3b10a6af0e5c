"""What a plan says: the chosen cuts, and all placements that they were compared with."""

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
"""The largest number of cuts to choose from at run time. Every further segment costs one more call
of the engine, which then fuses less."""


@dataclass(frozen=True, slots=True)
class PricedStages:
    """A chain of stages and its cost table."""

    stages: Stages
    table: CostTable


@dataclass(frozen=True, slots=True)
class RankedPlacement:
    """One way to place the model: the first stages of a chain on the device, the others not.

    Attributes:
        chain: The chain.
        row: The number of stages on the device, and what that costs.
    """

    chain: PricedStages
    row: Ranked

    @property
    def cut(self) -> Cut | None:
        """The cut between device and server; None if one of them runs everything."""
        cuts = self.chain.stages.cuts
        count = self.row.device_stages
        return cuts[count - 1] if 0 < count <= len(cuts) else None

    @property
    def label(self) -> str:
        """The id of the cut, or the name of the placement without one."""
        if self.cut is not None:
            return self.cut.id
        return DEVICE_ONLY if self.row.device_stages else SERVER_ONLY

    def to_json(self) -> dict[str, Any]:
        """The candidate and its cost term by term."""
        costs = self.row.costs
        return {
            "cut": self.label,
            "value": self.row.value,
            "allowed": self.row.allowed,
            "terms": costs.terms,
            "sent": [asdict(switch) for switch in costs.switches],
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """What a policy decided for one chain.

    Attributes:
        chain: The chain.
        placements: The placement of every stage.
        value: What this costs, in the unit of the goal.
        bound: The proved lower bound of the cost; 0 if nothing is proved.
        notes: What to tell the user.
        refusal: Why the policy itself does not allow its decision; empty if it does.
    """

    chain: PricedStages
    placements: tuple[Placement, ...]
    value: int
    bound: int = 0
    notes: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class CutChoice:
    """The chosen cuts, and everything that they were compared with.

    Attributes:
        policy: The name of the policy that chose.
        goal: What was asked for.
        chain: The chain that the cuts are of.
        ranked: All single cuts and the placements without one, the best first.
        baselines: Placements that need no planner.
        cuts: The chosen cuts in order; empty if no split is allowed.
        placements: The placement of every segment, one more than there are cuts.
        value: What the choice costs, in the unit of the goal.
        bound: The proved lower bound of the cost; 0 for a paper's policy, which proves nothing.
        notes: What to tell the user.
        refusal: Why no split is allowed and what there is instead; empty if there are cuts.
        ratios: Measured sizes of the model's tensors; None if published ratios were used.
    """

    policy: str
    goal: Goal
    chain: PricedStages
    ranked: tuple[RankedPlacement, ...]
    baselines: tuple[Baseline, ...]
    cuts: tuple[Cut, ...]
    placements: tuple[str, ...]
    value: int
    bound: int
    notes: tuple[str, ...]
    refusal: str = ""
    ratios: Ratios | None = None

    def check_split(self) -> None:
        """Raise PlanError with the reason if no split is allowed."""
        if not self.cuts:
            raise PlanError(self.refusal)

    def to_json(self) -> dict[str, Any]:
        """The choice and its reasons, for manifests and reports (docs/reference/json.md)."""
        compared = {
            baseline.name: {"value": baseline.value, "allowed": baseline.allowed}
            for baseline in self.baselines
        }
        return {
            "rule": self.policy,
            "objective": self.goal.objective,
            "unit": self.goal.unit,
            "limits": dict(self.goal.limits),
            "link": self.chain.table.link.name,
            "load": self.chain.table.server_load_percent,
            "measured_ratios": self.ratios.to_json() if self.ratios else None,
            "cuts": [cut.id for cut in self.cuts],
            "places": list(self.placements),
            "value": self.value,
            "bound": self.bound,
            "baselines": compared,
            "ranked": [candidate.to_json() for candidate in self.ranked],
            "notes": [*self.notes, self.refusal] if self.refusal else [*self.notes],
        }


def rank_placements(priced: Sequence[PricedStages], goal: Goal) -> tuple[RankedPlacement, ...]:
    """Price every single cut of all chains, and the placements without a cut.

    Args:
        priced: The chains of one model.
        goal: The objective and the limits.

    Returns:
        The candidates, the best first; those that break a limit come last. A cut that several
        chains have appears once, as the first of them has it.
    """
    by_label: dict[str, RankedPlacement] = {}
    for chain in priced:
        for row in rank_cuts(chain.table, goal):
            candidate = RankedPlacement(chain, row)
            by_label.setdefault(candidate.label, candidate)
    return tuple(sorted(by_label.values(), key=_rank))


def _rank(candidate: RankedPlacement) -> tuple[bool, int]:
    return not candidate.row.allowed, candidate.row.value


def prefix(count: int, device_stages: int) -> tuple[Placement, ...]:
    """Place `count` stages: the first `device_stages` on the device, the rest on the server."""
    server_stages = count - device_stages
    return (Placement.DEVICE,) * device_stages + (Placement.SERVER,) * server_stages


def choice_of(
    policy: str,
    goal: Goal,
    ranked: tuple[RankedPlacement, ...],
    decision: Decision,
    warnings: Sequence[str],
) -> CutChoice:
    """Turn a decision into cuts: one wherever the placement changes from stage to stage.

    If it never changes, one side alone is best. The choice is then the best single cut that keeps
    the limits, with a note; without such a cut the choice has no cuts and a refusal.

    Args:
        policy: The name of the policy that decided.
        goal: The objective and the limits.
        ranked: All candidates, from `rank_placements`.
        decision: What the policy decided.
        warnings: Notes about what the plan does not know; they come first.
    """
    chain, placements, value, bound = (
        decision.chain,
        decision.placements,
        decision.value,
        decision.bound,
    )
    notes = (*warnings, *decision.notes)
    compared = baselines(chain.table, goal)

    def refused(reason: str) -> CutChoice:
        return CutChoice(policy, goal, chain, ranked, compared, (), (), value, bound, notes, reason)

    if decision.refusal:
        return refused(decision.refusal)

    # Without a change of placement there is nothing to split; fall back to the best single cut.
    changes = [i for i in range(1, len(placements)) if placements[i - 1] != placements[i]]
    if not changes:
        cost = human(goal.objective, value)
        unsplit = f"everything on the {placements[0]} is best: {goal.objective} {cost}"
        split = next((one for one in ranked if one.row.allowed and one.cut is not None), None)
        if split is None:
            return refused(f"no split is allowed: {_obstacle(goal)}; {unsplit}")
        notes = (*notes, f"no split pays: {unsplit}")
        chain, changes = split.chain, [split.row.device_stages]
        placements = prefix(len(chain.table.stages), split.row.device_stages)
        value, bound = split.row.value, split.row.value if bound else 0

    cuts = tuple(chain.stages.cuts[index - 1] for index in changes)
    segments = tuple(str(placements[index]) for index in (0, *changes))
    summary = _summary(goal, chain, cuts, value, compared, segments)
    return CutChoice(
        policy, goal, chain, ranked, compared, cuts, segments, value, bound, (*notes, summary)
    )


def _obstacle(goal: Goal) -> str:
    """Why no candidate with a cut is allowed."""
    if not goal.limits:
        return "no cut can be made"
    return f"no cut keeps {goal.limits_text()}; loosen a limit"


def choice_of_several(
    priced: Sequence[PricedStages], goal: Goal, ranked: tuple[RankedPlacement, ...]
) -> CutChoice:
    """Choose up to SEVERAL cuts from which a client picks at run time.

    Each of them is the best for some link. All are cuts of one chain, that of the best candidate,
    since the cuts of a bundle must nest.

    Args:
        priced: The chains of one model.
        goal: The objective and the limits.
        ranked: All candidates, from `rank_placements`.

    Raises:
        PlanError: Nothing keeps the limits, not even a placement without a cut.
    """
    # The best cut itself is not needed; the call raises the error that names the binding limit.
    best_cut([chain.table for chain in priced], [candidate.row for candidate in ranked], goal)
    chain = ranked[0].chain

    # The client estimates latency over its link from the terms of each cut (cut_selection): offer
    # those cuts that are the best at some rate and round-trip time.
    labels = {cut.id for cut in chain.stages.cuts} | {DEVICE_ONLY, SERVER_ONLY}
    allowed = {one.label: one for one in ranked if one.row.allowed and one.label in labels}
    rows = [{"cut": label, "terms": one.row.costs.terms} for label, one in allowed.items()]
    worth = worth_having(cut_costs({"choice": {"ranked": rows}}), SEVERAL)
    chosen = [allowed[cost.cut] for cost in worth]
    compared = baselines(chain.table, goal)

    if not chosen:
        reason = (
            f"no split is allowed: no cut keeps {goal.limits_text()}; loosen a limit; only one "
            "side alone keeps it"
        )
        value = ranked[0].row.value
        return CutChoice("exact", goal, chain, ranked, compared, (), (), value, 0, (), reason)

    chosen_labels = {candidate.label for candidate in chosen}
    cuts = tuple(cut for cut in chain.stages.cuts if cut.id in chosen_labels)
    placements = (str(Placement.DEVICE), *(str(Placement.SERVER) for _ in cuts))
    value = min(candidate.row.value for candidate in chosen)
    summary = _summary(goal, chain, cuts, value, compared)
    return CutChoice(
        "exact", goal, chain, ranked, compared, cuts, placements, value, value, (summary,)
    )


def _summary(
    goal: Goal,
    chain: PricedStages,
    cuts: Sequence[Cut],
    value: int,
    compared: Sequence[Baseline],
    segments: Sequence[str] = (),
) -> str:
    """One line about the choice and its baselines.

    `segments` are the placements of the segments that one call runs; they are told if there are
    more than two.
    """
    where = ", ".join(f"{cut.id} (after {short(cut.after_name)})" for cut in cuts)
    if len(segments) > 2:
        where += f", on {', '.join(segments)}"
    cost = human(goal.objective, value)
    texts = [f"cut {where}: {goal.objective} {cost} over {chain.table.link.name}"]
    for baseline in compared:
        texts.append(f"{baseline.name}: {human(goal.objective, baseline.value)}")
    return "; ".join(texts)
