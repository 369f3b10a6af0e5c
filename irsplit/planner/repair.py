"""Better allowed placements near known ones: what multipliers leave open, narrowed from the side of the solutions.

All work on the groups about which an allowed placement and a rival, often a better but forbidden one, disagree. Along
an order of those groups every step is tried, and, where the places may alternate, every pair of steps from both ends.
Disagreements that do not touch each other are moves whose gains and needs add up, so that the best selection among
those of all rivals is a knapsack. What is found is evaluated exactly before it counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from irsplit.planner.cost import Columns, Ints, Mask
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, Sweep, crossing, evaluate, stuck_steps, sweep

Floats = NDArray[np.float64]

_SHELVES = 1 << 14  # into which a knapsack's room is divided
_TRIES = 8  # with a little less room each, since needs are rounded to shelves
_MOVES = 2_000  # that a knapsack chooses from


def improve(
    columns: Columns, goal: Goal, best: Solution, rivals: Sequence[Solution], *, monotone: bool
) -> Solution:
    """The best of what lies between an allowed solution and its rivals, or the solution itself."""
    for rival in rivals:
        here, there = best.on_device, rival.on_device
        walks = (
            (here & there, here & ~there),
            (here & there, there & ~here),
            (here, there & ~here),
        )
        for base, wanted in (*walks, (there, here & ~there)):
            if wanted.any():
                best = _best(
                    columns, goal, best, rival, _steps(columns, goal, base, wanted, rival, monotone)
                )
    return best


def exchange(
    columns: Columns,
    goal: Goal,
    best: Solution,
    rivals: Sequence[Solution],
    bound: int,
    prices: Sequence[float],
) -> Solution:
    """The best selection of moves towards several rivals at once, for one metric; or the solution itself.

    A move that loses more than lies between `best` and `bound`, when what is limited has these prices (in the
    objective's unit, one a limit), is left out.
    """
    if len(goal.metrics) > 1 or not goal.limits:
        return best
    moves = [move for rival in rivals for move in _moves(columns, goal, best, rival)]
    if not moves:
        return best
    costs, needs = (np.array([getattr(move, name) for move in moves]) for name in ("cost", "need"))
    union = np.zeros(best.on_device.size, dtype=np.bool_)
    for move in moves:
        union[move.groups] = True
    cluster = np.empty(union.size, dtype=np.int64)
    for index, part in enumerate(_parts(columns, union)):
        cluster[part] = index
    clusters = cluster[np.array([move.groups[0] for move in moves])]
    room = sum(1 - best.metric(name) / max(1, limit) for name, limit in goal.limits.items())
    lost = np.array([move.cost + float(np.dot(prices, move.used)) for move in moves])
    kept = np.flatnonzero(lost <= goal.value(best) - bound)
    kept = kept[np.argsort(lost[kept], kind="stable")[:_MOVES]]
    selections = _knapsack(costs[kept], needs[kept], clusters[kept], room)

    def placements() -> Iterator[Mask]:
        for chosen in selections:
            on_device = best.on_device.copy()
            for move in kept[chosen].tolist():
                on_device[moves[move].groups] ^= True
            yield on_device

    return _best(columns, goal, best, best, placements())


def _best(
    columns: Columns, goal: Goal, best: Solution, ways: Solution, placements: Iterator[Mask]
) -> Solution:
    for on_device in placements:
        up, down = crossing(columns, on_device)
        if (ways.up_choice[up] < 0).any() or (ways.down_choice[down] < 0).any():
            continue
        found = evaluate(columns, on_device, ways.up_choice, ways.down_choice)
        if found.meets(goal.limits) and goal.value(found) < goal.value(best):
            best = found
    return best


def shifted(columns: Columns, solution: Solution, layers: int) -> list[Solution]:
    """The placement with its edge moved by 1 to `layers` layers of groups, towards the server and towards the device.

    Only as rivals: their terms are those of the solution.
    """
    maker = np.repeat(columns.producer, np.diff(columns.consumer_ptr))
    maker, reader = maker[maker >= 0], columns.consumer[maker >= 0]
    found: list[Solution] = []
    sides = (
        (maker, reader, True, columns.pinned_server),
        (reader, maker, False, columns.pinned_device),
    )
    for before, after, further, pinned in sides:
        on_device = solution.on_device
        for _ in range(layers):
            behind = ~pinned
            behind[after[on_device[before] != further]] = False  # waits for one that has not moved
            on_device = on_device | behind if further else on_device & ~behind
            found.append(replace(solution, on_device=on_device))
    return found


def _steps(
    columns: Columns, goal: Goal, base: Mask, wanted: Mask, ways: Solution, monotone: bool
) -> Iterator[Mask]:
    """Placements between `base` and `base` with all wanted groups on the device.

    Steps are prefixes in topological order inside a part: monotone if both ends of the walk are.
    """
    order = np.concatenate(_parts(columns, wanted))
    front = sweep(columns, base, order, ways.up_choice, ways.down_choice)
    yield from _best_step(goal, front)
    if not monotone and len(goal.limits) == 1:
        back = sweep(columns, base, order[::-1], ways.up_choice, ways.down_choice)
        yield from _best_pair(goal, front, back)


def _value(goal: Goal, swept: Sweep) -> Ints:
    return np.max([swept.metric(name) for name in goal.metrics], axis=0)


def _best_step(goal: Goal, swept: Sweep) -> Iterator[Mask]:
    allowed = ~stuck_steps(swept)
    for name, limit in goal.limits.items():
        allowed &= swept.metric(name) <= limit
    if allowed.any():
        yield swept.placement(
            int(np.argmin(np.where(allowed, _value(goal, swept), np.iinfo(np.int64).max)))
        )


def _best_pair(goal: Goal, front: Sweep, back: Sweep) -> Iterator[Mask]:
    """The best so many steps from the front together with so many from the back of one order, up to its middle."""
    ((name, limit),) = goal.limits.items()
    half = front.order.size // 2 + 1
    ahead, behind = front.metric(name), back.metric(name)
    room = limit - int(ahead[0])
    value, other = (_value(goal, swept) for swept in (front, back))
    used, spent = (metric[:half] - metric[0] for metric in (ahead, behind))
    gained = np.where(
        stuck_steps(back)[:half], np.iinfo(np.int64).max // 2, other[:half] - other[0]
    )
    order = np.argsort(spent, kind="stable")
    lowest = np.minimum.accumulate(gained[order])
    fitting = np.searchsorted(spent[order], room - used, side="right") - 1
    total = np.where(
        fitting >= 0, value[:half] + lowest[np.maximum(fitting, 0)], np.iinfo(np.int64).max
    )
    total[stuck_steps(front)[:half]] = np.iinfo(np.int64).max
    first = int(np.argmin(total))
    if fitting[first] < 0:
        return
    last = order[: int(fitting[first]) + 1]
    yield front.placement(first) | back.placement(int(last[np.argmin(gained[last])]))


@dataclass(frozen=True, slots=True)
class _Move:
    """Groups that change their place together; what that costs, uses of each limit, and needs of all as shares."""

    groups: Ints
    cost: int
    used: Ints
    need: float


def _moves(columns: Columns, goal: Goal, best: Solution, rival: Solution) -> Iterator[_Move]:
    """The connected parts of what a rival does otherwise, those that leave for one place only."""
    here, there = best.on_device, rival.on_device
    if not (here ^ there).any():
        return
    parts = _parts(columns, here ^ there)
    swept = sweep(columns, here & there, np.concatenate(parts), best.up_choice, best.down_choice)
    if stuck_steps(swept).any():
        return
    ends = np.append(0, np.cumsum([part.size for part in parts]))
    costs = np.diff(_value(goal, swept)[ends]).tolist()
    used = np.diff(np.array([swept.metric(name)[ends] for name in goal.limits])).T
    needs = used @ np.array([1 / max(1, limit) for limit in goal.limits.values()])
    for part, cost, uses, need in zip(parts, costs, used, needs.tolist(), strict=True):
        if here[part].all() or there[part].all():
            sign = -1 if here[part[0]] else 1
            yield _Move(part, sign * cost, sign * uses, sign * need)


def _knapsack(costs: Floats, needs: Floats, clusters: Ints, room: float) -> Iterator[Ints]:
    """Selections with at most one move a cluster, of little cost and with needs that add up to about `room` at most.

    Exact over needs rounded to shelves; since needs may be negative, the least of each cluster is paid beforehand.
    """
    found, inverse = np.unique(clusters, return_inverse=True)
    floor = np.zeros(found.size)
    np.minimum.at(floor, inverse, needs)
    room -= float(floor.sum())
    if room <= 0:
        return
    scale = _SHELVES / room
    shelves = _SHELVES + found.size // 2 + 1  # needs that fit may be rounded up, half a shelf each
    least = np.zeros(shelves + 1)
    choice = np.full((found.size, shelves + 1), -1, dtype=np.int32)
    for cluster in range(found.size):
        after = np.full(shelves + 1, np.inf)
        members = np.flatnonzero(inverse == cluster).tolist()
        for move, cost, need in (
            (-1, 0.0, 0.0),
            *((move, costs[move], needs[move]) for move in members),
        ):
            width = round((need - floor[cluster]) * scale)
            if width <= shelves:
                candidate = least[: shelves + 1 - width] + cost
                better = candidate < after[width:]
                after[width:][better] = candidate[better]
                choice[cluster, width:][better] = move
        least = after
    for left in np.unique(np.linspace(shelves, max(0, 2 * _SHELVES - shelves), _TRIES).astype(int))[
        ::-1
    ].tolist():
        if np.isfinite(least[left]):
            yield _selected(choice, needs, floor, scale, left)


def _selected(
    choice: NDArray[np.int32], needs: Floats, floor: Floats, scale: float, shelf: int
) -> Ints:
    """The moves that led to a shelf, cluster by cluster."""
    selection: list[int] = []
    for cluster in range(len(choice) - 1, -1, -1):
        move = int(choice[cluster, shelf])
        selection += [move] if move >= 0 else []
        shelf -= round(((needs[move] if move >= 0 else 0.0) - floor[cluster]) * scale)
    return np.array(selection, dtype=np.int64)


def _parts(columns: Columns, wanted: Mask) -> list[Ints]:
    """The connected parts of some groups, joined by a tensor that one makes and another reads, or that both read."""
    groups = wanted.size
    tensor = np.repeat(np.arange(columns.producer.size), np.diff(columns.consumer_ptr))
    touches = np.concatenate([columns.consumer, columns.producer])
    touched = np.concatenate([tensor, np.arange(columns.producer.size)])
    inside = (touches >= 0) & wanted[touches]
    count = groups + columns.producer.size
    graph = coo_array(
        (np.ones(int(inside.sum()), np.int8), (touches[inside], groups + touched[inside])),
        shape=(count, count),
    )
    labels = connected_components(graph, directed=False)[1][:groups]
    members = np.flatnonzero(wanted)
    members = members[np.argsort(labels[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(labels[members])) + 1)
