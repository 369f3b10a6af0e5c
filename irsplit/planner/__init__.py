"""Choose where everything runs: exact plans over a cost table. No input or output, no knowledge of the IR."""

from irsplit.planner.goal import OBJECTIVES, Goal, human
from irsplit.planner.pareto import pareto_front
from irsplit.planner.ranking import Ranked, best_cut, rank_cuts
from irsplit.planner.result import Baseline, Costs, Plan, Switch
from irsplit.planner.solve import NotFoundError, plan

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
