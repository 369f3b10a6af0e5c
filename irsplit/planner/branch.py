"""Branch and bound over the Lagrange bound.

A region is the table with some stages pinned. `lagrange.search` gives each region its best known
placement and a bound that holds for every placement in it, so the least bound of all open regions
holds for the whole table. The region with the least bound is split in two at a stage on which its
best placements disagree, until the best placement is as good as the bound. The work is limited by a
number of regions and never by a time: two runs agree.
"""

import heapq
from dataclasses import replace
from itertools import count

import numpy as np

from irsplit.planner.cost import Columns
from irsplit.planner.goal import Goal
from irsplit.planner.lagrange import Impossible, Search, search
from irsplit.planner.network import Network
from irsplit.planner.placement import Solution


def branch(
    columns: Columns, network: Network, goal: Goal, tolerance: float, regions: int
) -> tuple[Solution | None, int]:
    """Find the best allowed placement.

    Args:
        columns: The cost table.
        network: Its network.
        goal: The objective and the limits.
        tolerance: The relative gap at which the search ends.
        regions: The largest number of regions to search.

    Returns:
        The best solution, None if none was found, and the proved bound.

    Raises:
        Impossible: No placement is allowed.
    """
    root = search(columns, network, goal, tolerance)
    best = root.best
    ticket = count()  # of equal bounds the older region comes first
    heap: list[tuple[int, int, Search]] = [(root.bound, next(ticket), root)]
    for _ in range(regions // 2):
        if not heap or (best is not None and _closed(goal.value(best), heap[0][0], tolerance)):
            break

        bound, _, region = heap[0]
        stage = _undecided(region)
        if stage is None:
            break

        heapq.heappop(heap)
        for half in _halves(region.columns, stage):
            region.best = best  # what the other half has found may end this one early
            try:
                result = search(half, network, goal, tolerance, region)
            except Impossible:
                continue
            best = result.best
            heapq.heappush(heap, (max(bound, result.bound), next(ticket), result))

    if best is None:
        if not heap:
            raise Impossible
        return None, heap[0][0]
    value = goal.value(best)
    return best, min(value, heap[0][0]) if heap else value


def _closed(value: int, bound: int, tolerance: float) -> bool:
    """Whether the gap is within the tolerance."""
    return value - bound <= tolerance * value


def _halves(columns: Columns, stage: int) -> tuple[Columns, Columns]:
    """The table with a stage pinned to the device, and with it pinned to the server."""
    device, server = columns.pinned_device.copy(), columns.pinned_server.copy()
    device[stage] = server[stage] = True
    return replace(columns, pinned_device=device), replace(columns, pinned_server=server)


def _undecided(region: Search) -> int | None:
    """The middle one of the stages on which the best placements of a region disagree."""
    free = ~(region.columns.pinned_device | region.columns.pinned_server)
    rivals = sorted(region.seen, key=region.goal.value)[:2] + region.seen[-2:]
    placements = np.array([rival.on_device for rival in rivals], dtype=np.int8)
    candidates = np.flatnonzero(free & (np.ptp(placements, axis=0) > 0))
    if not candidates.size:
        candidates = np.flatnonzero(free)
    return int(candidates[candidates.size // 2]) if candidates.size else None
