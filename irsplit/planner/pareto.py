"""The Pareto front of two objectives: minimum cuts along the hull, then limits into its corners."""

from irsplit.base.errors import PlanError
from irsplit.planner.cost import CostTable
from irsplit.planner.result import Plan
from irsplit.planner.solve import plan


def pareto_front(
    table: CostTable, first: str, second: str, *, monotone: bool = True, most: int = 64
) -> tuple[Plan, ...]:
    """Plans that no other beats in both metrics, from the least `first` to the least `second`.

    The epsilon-constraint method: the least `first` among placements whose `second` is strictly below the last
    one's, and of those the least `second`. Complete when every plan's gap is 0 and fewer than `most` came out.
    """
    front: list[Plan] = []
    limits: dict[str, int] = {}
    while len(front) < most:
        try:
            found = plan(table, first, limits=limits, monotone=monotone)
        except PlanError:
            break
        tied = plan(table, second, limits={first: found.value}, monotone=monotone)
        front.append(tied)
        if tied.value == 0:
            break
        limits = {second: tied.value - 1}
    return tuple(front)
