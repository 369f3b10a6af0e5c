"""Other orders in which a graph can run: frontiers between branches that the file's own order never shows.

Every position of a topological order is a down-set, and of the exponentially many an order shows one a node. The best
frontiers are met by orders that keep little alive. Two greedy ones do, in opposite directions: *forwards* runs the
ready node that leaves least to send, *backwards*, from the outputs, gives the far side the node that asks for least.
Each comes by bytes and by number of tensors, newest first among equals, so that a branch is finished before the next.
Logarithmic in the size of the graph for every node.
"""

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush

from irsplit.ir import TensorType, Value
from irsplit.passes.analysis.schedule import Schedule, predecessors

_TENSOR = 1 << 64
"""More than any number of bytes: with it, fewer tensors come first and bytes second."""


def orders(plan: Schedule) -> list[Schedule]:
    """Orders beside that of `plan`; the name of each ends the ids of its cuts."""
    flow = _Flow(plan)
    size = flow.sizes
    count = [
        bytes + (_TENSOR if produced else 0)
        for bytes, produced in zip(size, flow.produced, strict=True)
    ]
    named = {
        "f": _forwards(flow, size),
        "b": _backwards(flow, size),
        "nf": _forwards(flow, count),
        "nb": _backwards(flow, count),
    }
    return [plan.reordered(order, name) for name, order in named.items()]


class _Flow:
    """The plan in numbers: nodes and values by index, fed inputs first among the values."""

    def __init__(self, plan: Schedule) -> None:
        number: dict[Value, int] = {value: index for index, value in enumerate(plan.inputs)}
        read = {value for reads in plan.reads for value in reads}
        self.makes: list[list[int]] = []
        """For each node, the values it produces that some node reads."""
        for node in plan.nodes:
            made = [value for value in node.outputs if value is not None and value in read]
            self.makes.append(list(range(len(number), len(number) + len(made))))
            for value in made:
                number[value] = len(number)
        self.reads = [[number[value] for value in reads] for reads in plan.reads]
        self.sizes = [_size(value) for value in number]
        self.produced = [index >= len(plan.inputs) for index in range(len(number))]
        self.readers: list[list[int]] = [[] for _ in number]
        for index, values in enumerate(self.reads):
            for value in values:
                self.readers[value].append(index)
        self.before = predecessors(plan)
        self.after: list[list[int]] = [[] for _ in plan.nodes]
        for index, earlier in enumerate(self.before):
            for other in earlier:
                self.after[other].append(index)


def _forwards(flow: _Flow, weights: Sequence[int]) -> list[int]:
    """From the inputs: a node costs what it produces, and saves what it is the last to read."""
    left = [len(readers) for readers in flow.readers]
    last = [_xor(readers) for readers in flow.readers]
    """For each value, its readers that have not run, xor-ed: when one is left, that one."""
    cost = [sum(weights[value] for value in makes) for makes in flow.makes]
    for value, count in enumerate(left):
        if count == 1:
            cost[last[value]] -= weights[value]

    def run(node: int) -> Iterable[int]:
        for value in flow.reads[node]:
            left[value] -= 1
            last[value] ^= node
            if left[value] == 1:
                cost[last[value]] -= weights[value]
                yield last[value]

    return _greedy(flow.before, flow.after, cost, run)


def _backwards(flow: _Flow, weights: Sequence[int]) -> list[int]:
    """From the outputs: a node costs what it reads and nobody after it does, and saves what it produces."""
    needed = [False] * len(weights)
    cost = [
        sum(weights[value] for value in reads) - sum(weights[value] for value in makes)
        for reads, makes in zip(flow.reads, flow.makes, strict=True)
    ]

    def run(node: int) -> Iterable[int]:
        for value in flow.reads[node]:
            if not needed[value]:
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
    """Run the cheapest ready node until none is left, the one that became ready last among equals.

    `run` lowers the costs of other nodes and says of which; costs never rise, so that the first entry of a node on the
    heap is its cheapest and later ones are stale.
    """
    waiting = [len(earlier) for earlier in before]
    since = [0] * len(waiting)
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
    """Bytes, a dimension that is not known counted as 1."""
    return (value.type.size_bytes(1) or 0) if isinstance(value.type, TensorType) else 0
