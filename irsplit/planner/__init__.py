"""The exact planner: find the best placement of the stages of a cost table.

No module here does input or output, or knows the IR. The solvers of general graphs need scipy,
which takes longer to import than most plans take; they are imported when they are first used.
Ranking cuts needs none of them.
"""

from typing import TYPE_CHECKING

from irsplit.base.lazy import exports
from irsplit.planner.goal import OBJECTIVES, Goal, human
from irsplit.planner.ranking import Ranked, best_cut, rank_cuts
from irsplit.planner.result import Baseline, Costs, Plan, Switch

if TYPE_CHECKING:
    from irsplit.planner.pareto import pareto_front
    from irsplit.planner.solve import NotFoundError, plan

_SOLVERS = {
    "NotFoundError": "irsplit.planner.solve",
    "pareto_front": "irsplit.planner.pareto",
    "plan": "irsplit.planner.solve",
}

__all__ = [
    "OBJECTIVES",
    "Baseline",
    "Costs",
    "Goal",
    "NotFoundError",
    "Plan",
    "Ranked",
    "Switch",
    "best_cut",
    "human",
    "pareto_front",
    "plan",
    "rank_cuts",
]


__getattr__ = exports(__name__, _SOLVERS)
