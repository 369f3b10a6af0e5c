"""Other orders in which a graph can run: they show frontiers that the file's own order never has.

Every position of a topological order is a set of nodes that holds the predecessors of its members.
There are exponentially many such sets, and an order shows one of them a node. The best frontiers
are met by orders that keep little alive, and two greedy orders do, in opposite directions:
*forwards* runs the ready node that leaves least to send; *backwards*, from the outputs, gives the
server side the node that asks for least. Each of them goes by bytes and by the number of tensors,
and takes the newest of equal nodes, so that a branch is finished before the next one is begun. The
work is logarithmic in the size of the graph for every node.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

from irsplit.ir import TensorType, Value
from irsplit.passes.analysis.schedule import Schedule, predecessors

_TENSOR = 1 << 64
"""More than any number of bytes: added to a size, it makes fewer tensors count before bytes."""


def orders(plan: Schedule) -> list[Schedule]:
    """Return orders beside that of `plan`; the name of each one ends the ids of its cuts."""
    flow = _Flow(plan)
    by_bytes = flow.sizes
    by_count = [size + _TENSOR for size in by_bytes]
    # An input that crosses is forwarded, and does not count as a tensor.
    by_count[: len(plan.inputs)] = by_bytes[: len(plan.inputs)]
    named = {
        "f": _forwards(flow, by_bytes),
        "b": _backwards(flow, by_bytes),
        "nf": _forwards(flow, by_count),
        "nb": _backwards(flow, by_count),
    }
    return [plan.reordered(order, name) for name, order in named.items()]


class _Flow:
    """The schedule in numbers: nodes and values by index, graph inputs first among the values."""

    def __init__(self, plan: Schedule) -> None:
        number: dict[Value, int] = {value: index for index, value in enumerate(plan.inputs)}
        self.makes = _numbered_results(plan, number)
        """For each node, the values it produces that some node reads."""
        self.reads = [[number[value] for value in reads] for reads in plan.reads]
        """For each node, the values it reads."""
        self.sizes = [_size(value) for value in number]
        """For each value, its bytes."""

        self.readers: list[list[int]] = [[] for _ in number]
        """For each value, the nodes that read it."""
        for index, values in enumerate(self.reads):
            for value in values:
                self.readers[value].append(index)

        self.before = predecessors(plan)
        """For each node, the nodes it waits for."""
        self.after: list[list[int]] = [[] for _ in plan.nodes]
        """For each node, the nodes that wait for it."""
        for index, earlier in enumerate(self.before):
            for other in earlier:
                self.after[other].append(index)


def _numbered_results(plan: Schedule, number: dict[Value, int]) -> list[list[int]]:
    """Number the results that some node reads, after those in `number`; return them by node."""
    read: set[Value | None] = set()
    for values in plan.reads:
        read.update(values)

    numbers: list[list[int]] = []
    for node in plan.nodes:
        numbers.append([])
        for value in node.outputs:
            if value is not None and value in read:
                numbers[-1].append(len(number))
                number[value] = len(number)
    return numbers


def _forwards(flow: _Flow, weights: Sequence[int]) -> list[int]:
    """Order the nodes from the inputs.

    A node costs what it produces, and saves what it is the last to read.

    Args:
        flow: The schedule in numbers.
        weights: What each value costs while it is alive.
    """
    left = [len(readers) for readers in flow.readers]
    """For each value, how many of its readers have not run."""
    last = [_xor(readers) for readers in flow.readers]
    """For each value, those readers xor-ed: when one is left, it is that one."""
    cost = [sum(weights[value] for value in makes) for makes in flow.makes]
    for value, count in enumerate(left):
        if count == 1:
            cost[last[value]] -= weights[value]

    def run(node: int) -> Iterable[int]:
        """Take the node's reads away; the last reader that is left then saves the value."""
        for value in flow.reads[node]:
            left[value] -= 1
            last[value] ^= node
            if left[value] == 1:
                cost[last[value]] -= weights[value]
                yield last[value]

    return _greedy(flow.before, flow.after, cost, run)


def _backwards(flow: _Flow, weights: Sequence[int]) -> list[int]:
    """Order the nodes from the outputs, then turn the order round.

    A node costs what it reads and nobody after it does, and saves what it produces.

    Args:
        flow: The schedule in numbers.
        weights: What each value costs while it is alive.
    """
    needed = [False] * len(weights)
    cost: list[int] = []
    for reads, makes in zip(flow.reads, flow.makes, strict=True):
        cost.append(sum(weights[value] for value in reads))
        cost[-1] -= sum(weights[value] for value in makes)

    def run(node: int) -> Iterable[int]:
        """Note that the node's reads are needed; for all other readers they cost nothing more."""
        for value in flow.reads[node]:
            if needed[value]:
                continue

            needed[value] = True
            for reader in flow.readers[value]:
                cost[reader] -= weights[value]
            yield from flow.readers[value]

    return _greedy(flow.after, flow.before, cost, run)[::-1]


def _greedy(
    before: Sequence[Sequence[int]],
    after: Sequence[Sequence[int]],
    cost: Sequence[int],
    run: Callable[[int], Iterable[int]],
) -> list[int]:
    """Run the cheapest ready node until none is left.

    Among equals, the node that became ready last runs first. Costs never rise, so that the first
    entry of a node on the heap is its cheapest, and later ones are stale.

    Args:
        before: For each node, the nodes it waits for.
        after: For each node, the nodes that wait for it.
        cost: For each node, what it costs at present.
        run: Called with a node; lowers the costs of other nodes, and says of which.
    """
    waiting = [len(earlier) for earlier in before]
    since = [0] * len(waiting)
    """For each node, how many had run when it became ready."""
    heap: list[tuple[int, int, int]] = []
    for node, count in enumerate(waiting):
        if not count:
            heappush(heap, (cost[node], 0, node))

    order: dict[int, None] = {}
    while heap:
        node = heappop(heap)[2]
        if node in order:
            continue

        order[node] = None
        for cheaper in run(node):
            if not waiting[cheaper] and cheaper not in order:
                heappush(heap, (cost[cheaper], -since[cheaper], cheaper))

        for later in after[node]:
            waiting[later] -= 1
            if not waiting[later]:
                since[later] = len(order)
                heappush(heap, (cost[later], -since[later], later))
    return list(order)


def _xor(numbers: Iterable[int]) -> int:
    result = 0
    for number in numbers:
        result ^= number
    return result


def _size(value: Value) -> int:
    """Return the bytes of a value; a dimension that is not known counts as 1."""
    return (value.type.size_bytes(1) or 0) if isinstance(value.type, TensorType) else 0
