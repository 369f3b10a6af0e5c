"""The Pareto front of two objectives."""

from irsplit.base.errors import PlanError
from irsplit.planner.cost import CostTable
from irsplit.planner.result import Plan
from irsplit.planner.solve import plan


def pareto_front(
    table: CostTable, first: str, second: str, *, monotone: bool = True, most: int = 64
) -> tuple[Plan, ...]:
    """The plans that no other plan beats in both of two metrics.

    The method is the epsilon constraint (Haimes et al. 1971): find the least `first` among
    placements whose `second` is strictly below that of the last plan, then the least `second` among
    placements with this `first`.

    Args:
        table: The cost table.
        first: The metric that rises along the front.
        second: The metric that falls along the front.
        monotone: Whether plans run the device first and the server after it.
        most: The largest number of plans.

    Returns:
        The plans in the order of `first`. The front is complete if the gap of every plan is 0 and
        there are fewer than `most`.
    """
    front: list[Plan] = []
    limits: dict[str, int] = {}
    while len(front) < most:
        try:
            least = plan(table, first, limits=limits, monotone=monotone)
        except PlanError:
            break  # nothing lies below the last plan

        tied = plan(table, second, limits={first: least.value}, monotone=monotone)
        front.append(tied)
        if tied.value == 0:
            break
        limits = {second: tied.value - 1}
    return tuple(front)
