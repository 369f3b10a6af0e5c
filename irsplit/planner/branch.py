"""Branch and bound over the Lagrange bound: what multipliers leave open is split in two until it is closed.

A region is a table with some groups pinned. Each is searched by itself; its bound holds for every placement in it, so
the least bound of the open regions holds for all. The work is a number of regions, never a time: two runs agree.
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
    """The best allowed solution and a proved bound, after at most `regions` searches. Raises Impossible."""
    root = search(columns, network, goal, tolerance)
    best = root.best
    ticket = count()
    heap: list[tuple[int, int, Search]] = [(root.bound, next(ticket), root)]
    for _ in range(regions // 2):
        if not heap or (best is not None and _closed(goal.value(best), heap[0][0], tolerance)):
            break
        bound, _, region = heap[0]
        group = _undecided(region)
        if group is None:
            break
        heapq.heappop(heap)
        for child in _halves(region.columns, group):
            region.best = best
            try:
                found = search(child, network, goal, tolerance, region)
            except Impossible:
                continue
            best = found.best
            heapq.heappush(heap, (max(bound, found.bound), next(ticket), found))
    if best is None:
        if not heap:
            raise Impossible
        return None, heap[0][0]
    value = goal.value(best)
    return best, min(value, heap[0][0]) if heap else value


def _closed(value: int, bound: int, tolerance: float) -> bool:
    return value - bound <= tolerance * value


def _halves(columns: Columns, group: int) -> tuple[Columns, Columns]:
    device, server = columns.pinned_device.copy(), columns.pinned_server.copy()
    device[group] = server[group] = True
    return replace(columns, pinned_device=device), replace(columns, pinned_server=server)


def _undecided(region: Search) -> int | None:
    """The middle of the groups on which the best placements of a region disagree."""
    free = ~(region.columns.pinned_device | region.columns.pinned_server)
    rivals = sorted(region.seen, key=region.goal.value)[:2] + region.seen[-2:]
    differing = np.flatnonzero(
        free & (np.ptp(np.array([r.on_device for r in rivals], dtype=np.int8), axis=0) > 0)
    )
    if not differing.size:
        differing = np.flatnonzero(free)
    return int(differing[differing.size // 2]) if differing.size else None
