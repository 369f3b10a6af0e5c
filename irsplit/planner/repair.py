"""Better allowed placements near known ones: the gap narrowed from the side of the solutions.

Multipliers find placements on the convex hull of all; the best allowed one often lies beside it.
Here an allowed placement is compared with a rival, often a better but forbidden one. All work is on
the stages about which they disagree:

* `improve` walks from one placement to the other along an order of these stages and tries every
  step. Where the sides may alternate it also tries every pair of a step from the front and a step
  from the back.
* `exchange` takes disagreements that do not touch each other as moves whose gains and needs add up.
  The best selection among the moves of all rivals is a knapsack with at most one move per cluster
  of stages (the multiple-choice knapsack, solved by dynamic programming over rounded needs).

What is found is evaluated exactly before it counts, so rounding cannot make a result wrong.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from irsplit.planner.cost import Columns
from irsplit.planner.goal import Goal
from irsplit.planner.placement import Solution, Sweep, crossing, evaluate, stuck_steps, sweep
from irsplit.planner.terms import Ints, Mask

Floats = NDArray[np.float64]

_SHELVES = 1 << 14  # into which a knapsack's capacity is divided
_TRIES = 8  # with a little less capacity each, since needs are rounded to shelves
_MOVES = 2_000  # that a knapsack chooses from
_NEVER = np.iinfo(np.int64).max


def improve(
    columns: Columns, goal: Goal, best: Solution, rivals: Sequence[Solution], *, monotone: bool
) -> Solution:
    """Find the best allowed placement between an allowed solution and its rivals.

    Args:
        columns: The cost table.
        goal: The objective and the limits.
        best: An allowed solution.
        rivals: Other solutions, which need not be allowed.
        monotone: Whether the device comes first and the server after it.

    Returns:
        A better solution, or `best` itself.
    """
    for rival in rivals:
        ours, theirs = best.on_device, rival.on_device
        # Each walk moves stages from the server to the device: from what both have there, towards
        # either of the two; and from either of the two, towards what one of them has there.
        walks = (
            (ours & theirs, ours & ~theirs),
            (ours & theirs, theirs & ~ours),
            (ours, theirs & ~ours),
            (theirs, ours & ~theirs),
        )
        for base, moving in walks:
            if moving.any():
                steps = _steps(columns, goal, base, moving, rival, monotone)
                best = _best(columns, goal, best, rival, steps)
    return best


def exchange(
    columns: Columns,
    goal: Goal,
    best: Solution,
    rivals: Sequence[Solution],
    bound: int,
    prices: Sequence[float],
) -> Solution:
    """Find the best selection of moves towards several rivals at once.

    This works for objectives of one metric and with limits; otherwise `best` is returned.
    A move that loses more than lies between `best` and `bound`, when what is limited is paid for,
    cannot be part of a better solution and is left out.

    Args:
        columns: The cost table.
        goal: The objective and the limits.
        best: An allowed solution.
        rivals: Other solutions, which need not be allowed.
        bound: The proved bound.
        prices: What a unit of each limited metric is worth, in the objective's unit.

    Returns:
        A better solution, or `best` itself.
    """
    if len(goal.metrics) > 1 or not goal.limits:
        return best
    moves: list[_Move] = []
    for rival in rivals:
        moves += _moves(columns, goal, best, rival)
    if not moves:
        return best

    lost = np.array([move.cost + float(np.dot(prices, move.used)) for move in moves])
    kept = np.flatnonzero(lost <= goal.value(best) - bound)
    kept = kept[np.argsort(lost[kept], kind="stable")[:_MOVES]]

    costs, needs = np.array([move.cost for move in moves]), np.array([move.need for move in moves])
    clusters = _clusters(columns, moves)
    capacity = sum(1 - best.metric(name) / max(1, limit) for name, limit in goal.limits.items())
    selections = _knapsack(costs[kept], needs[kept], clusters[kept], capacity)

    def placements() -> Iterator[Mask]:
        for selection in selections:
            on_device = best.on_device.copy()
            for index in kept[selection].tolist():
                on_device[moves[index].stages] ^= True
            yield on_device

    return _best(columns, goal, best, best, placements())


def _best(
    columns: Columns, goal: Goal, best: Solution, options: Solution, placements: Iterable[Mask]
) -> Solution:
    """The best allowed placement, each tensor sent in the option that `options` chose."""
    for on_device in placements:
        up, down = crossing(columns, on_device)
        if (options.up_choice[up] < 0).any() or (options.down_choice[down] < 0).any():
            continue
        solution = evaluate(columns, on_device, options.up_choice, options.down_choice)
        if solution.meets(goal.limits) and goal.value(solution) < goal.value(best):
            best = solution
    return best


def shifted(columns: Columns, solution: Solution, layers: int) -> list[Solution]:
    """Move the edge of a placement by 1 to `layers` layers of stages, to either side.

    Returns:
        Placements to use as rivals only: their terms are still those of the solution.
    """
    producer, reader = columns.edges()
    result: list[Solution] = []

    # More stages on the device: each one whose producers are all there.
    on_device = solution.on_device
    for _ in range(layers):
        ready = ~columns.pinned_server
        ready[reader[~on_device[producer]]] = False
        on_device = on_device | ready
        result.append(replace(solution, on_device=on_device))

    # More stages on the server: each one whose readers are all there.
    on_device = solution.on_device
    for _ in range(layers):
        ready = ~columns.pinned_device
        ready[producer[on_device[reader]]] = False
        on_device = on_device & ~ready
        result.append(replace(solution, on_device=on_device))
    return result


def _steps(
    columns: Columns, goal: Goal, base: Mask, moving: Mask, options: Solution, monotone: bool
) -> Iterator[Mask]:
    """The best placements between `base` and `base` with all moving stages on the device.

    The stages of one component move after those of another, each in topological order; steps are
    therefore monotone if both ends of the walk are.
    """
    order = np.concatenate(_components(columns, moving))
    front = sweep(columns, base, order, options.up_choice, options.down_choice)
    yield from _best_step(goal, front)
    if not monotone and len(goal.limits) == 1:
        back = sweep(columns, base, order[::-1], options.up_choice, options.down_choice)
        yield from _best_pair(goal, front, back)


def _value(goal: Goal, swept: Sweep) -> Ints:
    """The objective's value at every step of a sweep."""
    return np.max([swept.metric(name) for name in goal.metrics], axis=0)


def _best_step(goal: Goal, swept: Sweep) -> Iterator[Mask]:
    """The best allowed step of a sweep, if any."""
    allowed = ~stuck_steps(swept)
    for name, limit in goal.limits.items():
        allowed &= swept.metric(name) <= limit
    if allowed.any():
        yield swept.placement(int(np.argmin(np.where(allowed, _value(goal, swept), _NEVER))))


def _best_pair(goal: Goal, front: Sweep, back: Sweep) -> Iterator[Mask]:
    """The best number of steps from the front together with the best one from the back, if any.

    Both go up to the middle of one order, so they share no stage, and what they gain and use adds
    up. With the back steps sorted by what they use of the limit, the best one that still fits is a
    running minimum, found for all front steps by one binary search each.
    """
    ((name, limit),) = goal.limits.items()
    half = front.order.size // 2 + 1
    front_metric, back_metric = front.metric(name), back.metric(name)
    front_used = front_metric[:half] - front_metric[0]
    back_used = back_metric[:half] - back_metric[0]
    left = limit - int(front_metric[0])

    front_value, back_value = _value(goal, front), _value(goal, back)
    gained = back_value[:half] - back_value[0]
    gained = np.where(stuck_steps(back)[:half], _NEVER // 2, gained)
    order = np.argsort(back_used, kind="stable")
    lowest = np.minimum.accumulate(gained[order])
    fitting = np.searchsorted(back_used[order], left - front_used, side="right") - 1

    total = front_value[:half] + lowest[np.maximum(fitting, 0)]
    total = np.where(fitting >= 0, total, _NEVER)
    total[stuck_steps(front)[:half]] = _NEVER
    first = int(np.argmin(total))
    if fitting[first] < 0:
        return
    candidates = order[: int(fitting[first]) + 1]
    last = int(candidates[np.argmin(gained[candidates])])
    yield front.placement(first) | back.placement(last)


@dataclass(frozen=True, slots=True)
class _Move:
    """Stages that change their side together.

    Attributes:
        stages: The stages.
        cost: What the move adds to the objective.
        used: What it adds to each limited metric.
        need: The sum of that, as shares of the limits.
    """

    stages: Ints
    cost: int
    used: Ints
    need: float


def _moves(columns: Columns, goal: Goal, best: Solution, rival: Solution) -> Iterator[_Move]:
    """The connected components of what a rival does otherwise, each as a move.

    A component is a move only if all its stages change to the same side.
    """
    ours, theirs = best.on_device, rival.on_device
    if not (ours ^ theirs).any():
        return
    components = _components(columns, ours ^ theirs)
    order = np.concatenate(components)
    swept = sweep(columns, ours & theirs, order, best.up_choice, best.down_choice)
    if stuck_steps(swept).any():
        return

    # The sweep puts one component after the other on the device: differences are their costs.
    ends = np.append(0, np.cumsum([component.size for component in components]))
    costs = np.diff(_value(goal, swept)[ends]).tolist()
    used = np.diff(np.array([swept.metric(name)[ends] for name in goal.limits])).T
    needs = used @ np.array([1 / max(1, limit) for limit in goal.limits.values()])
    for stages, cost, uses, need in zip(components, costs, used, needs.tolist(), strict=True):
        if ours[stages].all() or theirs[stages].all():
            sign = -1 if ours[stages[0]] else 1
            yield _Move(stages, sign * cost, sign * uses, sign * need)


def _clusters(columns: Columns, moves: Sequence[_Move]) -> Ints:
    """The cluster of each move: moves of different clusters touch no common stage or tensor."""
    union = np.zeros(columns.pinned_device.size, dtype=np.bool_)
    for move in moves:
        union[move.stages] = True
    cluster = np.empty(union.size, dtype=np.int64)
    for index, stages in enumerate(_components(columns, union)):
        cluster[stages] = index
    return cluster[np.array([move.stages[0] for move in moves])]


def _knapsack(costs: Floats, needs: Floats, clusters: Ints, capacity: float) -> Iterator[Ints]:
    """Select moves, at most one per cluster, of little cost and with needs that fit.

    The dynamic program is exact over needs rounded to shelves: `least[s]` is the least cost of the
    clusters so far that ends at shelf s. Since needs may be negative, the least need of each
    cluster is taken from the capacity beforehand, and every move then needs at least zero.

    Args:
        costs: What each move costs.
        needs: What each move needs of the capacity.
        clusters: The cluster of each move.
        capacity: The sum of needs that fits.

    Yields:
        Selections with about the capacity or less; rounded needs may add up to a little more.
    """
    names, cluster_of = np.unique(clusters, return_inverse=True)
    floor = np.zeros(names.size)
    np.minimum.at(floor, cluster_of, needs)
    capacity -= float(floor.sum())
    if capacity <= 0:
        return
    scale = _SHELVES / capacity
    # Needs that fit may have been rounded up by half a shelf each.
    shelves = _SHELVES + names.size // 2 + 1

    least = np.zeros(shelves + 1)
    choice = np.full((names.size, shelves + 1), -1, dtype=np.int32)
    for cluster in range(names.size):
        after = np.full(shelves + 1, np.inf)
        members = np.flatnonzero(cluster_of == cluster).tolist()
        for move in (-1, *members):  # -1 moves nothing of this cluster
            cost, need = (costs[move], needs[move]) if move >= 0 else (0.0, 0.0)
            width = round((need - floor[cluster]) * scale)
            if width <= shelves:
                candidate = least[: shelves + 1 - width] + cost
                better = candidate < after[width:]
                after[width:][better] = candidate[better]
                choice[cluster, width:][better] = move
        least = after

    lowest_shelf = max(0, 2 * _SHELVES - shelves)
    tries = np.unique(np.linspace(shelves, lowest_shelf, _TRIES).astype(int))
    for shelf in tries[::-1].tolist():
        if np.isfinite(least[shelf]):
            yield _selected(choice, needs, floor, scale, shelf)


def _selected(
    choice: NDArray[np.int32], needs: Floats, floor: Floats, scale: float, shelf: int
) -> Ints:
    """The moves that led to a shelf, found cluster by cluster from the last."""
    selection: list[int] = []
    for cluster in range(len(choice) - 1, -1, -1):
        move = int(choice[cluster, shelf])
        need = 0.0
        if move >= 0:
            selection.append(move)
            need = needs[move]
        shelf -= round((need - floor[cluster]) * scale)
    return np.array(selection, dtype=np.int64)


def _components(columns: Columns, chosen: Mask) -> list[Ints]:
    """The connected components of some stages.

    Two stages are joined by a tensor that one makes and the other reads, or that both read.
    """
    stages, tensors = chosen.size, columns.producer.size
    read = np.repeat(np.arange(tensors), np.diff(columns.consumer_ptr))
    stage = np.concatenate([columns.consumer, columns.producer])
    tensor = np.concatenate([read, np.arange(tensors)])

    # A bipartite graph of stages and tensors.
    inside = (stage >= 0) & chosen[stage]
    ones = np.ones(int(inside.sum()), np.int8)
    edges = stage[inside], stages + tensor[inside]
    graph = coo_array((ones, edges), shape=(stages + tensors, stages + tensors))
    labels = connected_components(graph, directed=False)[1][:stages]

    members = np.flatnonzero(chosen)
    members = members[np.argsort(labels[members], kind="stable")]
    return np.split(members, np.flatnonzero(np.diff(labels[members])) + 1)
