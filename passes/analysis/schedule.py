"""The runtime nodes of a graph in an order in which they can run: what cuts are positions of.

A runtime node depends on something that the caller feeds, or is random or stateful. The others are *free*: they
depend on constants alone and are cloned to every segment that reads them. Dead nodes are in no order at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irsplit.ir import Graph, Node, Value, required_inputs, uses_with_captures, without_collector


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The runtime nodes in execution order, and what each must wait for."""

    graph: Graph
    nodes: tuple[Node, ...]
    reads: tuple[tuple[Value, ...], ...]
    """For each node, the runtime values it reads, those its bodies capture included."""
    frees: tuple[tuple[Value, ...], ...]
    """For each node, the constants and results of free nodes that it reads, captures included."""
    inputs: tuple[Value, ...]
    """Graph inputs that the caller must feed (an input with a default counts as a constant)."""
    name: str = ""
    """What the ids of its cuts end with: nothing for the graph's own order."""

    def reordered(self, order: Iterable[int], name: str = "") -> "Schedule":
        """The nodes at the indices `order`, in that order."""
        indices = list(order)
        nodes = tuple([self.nodes[index] for index in indices])
        reads, frees = (tuple([of[index] for index in indices]) for of in (self.reads, self.frees))
        return Schedule(self.graph, nodes, reads, frees, self.inputs, name)


@without_collector()
def schedule(graph: Graph) -> Schedule:
    """The live runtime nodes in the graph's order, but for those that are on no path from an input to an output.

    What depends on no input (random numbers, states that are read first) comes just before its first reader, and what
    leads to no output (states that are written last) as soon as it can run: early readers and late writers would hide
    cuts that they have nothing to do with.
    """
    inputs = tuple(required_inputs(graph))
    runtime: set[Value | None] = set(inputs)
    nodes: list[Node] = []
    reads: list[tuple[Value, ...]] = []
    frees: list[tuple[Value, ...]] = []
    for node in graph.nodes:
        needed = uses_with_captures(node)
        read = tuple([value for value in needed if value in runtime])
        if read or node.random or node.states:
            nodes.append(node)
            reads.append(read)
            frees.append(
                tuple([value for value in needed if value not in runtime])
                if len(read) < len(needed)
                else ()
            )
            runtime.update(node.outputs)
    plan = Schedule(graph, tuple(nodes), tuple(reads), tuple(frees), inputs)
    live = _live(plan)
    if len(live) < len(nodes):
        plan = plan.reordered(live)
    return (
        plan.reordered(_relaxed(plan))
        if any(node.random or node.states for node in plan.nodes)
        else plan
    )


def predecessors(plan: Schedule) -> list[list[int]]:
    """For each node, the nodes it waits for: producers of what it reads, and who touched its states before it."""
    producer: dict[Value | None, int] = {}
    touched: dict[str, int] = {}
    found: list[list[int]] = []
    for index, (node, read) in enumerate(zip(plan.nodes, plan.reads, strict=True)):
        before = {producer[value]: None for value in read if value in producer}
        before.update({touched[state]: None for state in node.states if state in touched})
        found.append(list(before))
        producer.update(dict.fromkeys(node.outputs, index))
        touched.update(dict.fromkeys(node.states, index))
    return found


def _live(plan: Schedule) -> list[int]:
    """Indices of the nodes that an output or a state depends on."""
    needed: set[Value | None] = set(plan.graph.outputs)
    live: list[int] = []
    for index in range(len(plan.nodes) - 1, -1, -1):
        node = plan.nodes[index]
        if node.states or not needed.isdisjoint(node.outputs):
            live.append(index)
            needed.update(plan.reads[index])
    return live[::-1]


def _relaxed(plan: Schedule) -> list[int]:
    """Indices in an order with late sources (fed by no input) and early sinks (reaching no output)."""
    before = predecessors(plan)
    required_inputs, reaching = _fed(plan, before), _reaching(plan, before)
    sinks: list[list[int]] = [[] for _ in before]
    """For each node, the sinks that wait for it."""
    waiting = [0] * len(before)
    for index, earlier in enumerate(before):
        if required_inputs[index] and not reaching[index]:
            waited = [other for other in earlier if required_inputs[other] or reaching[other]]
            waiting[index] = len(waited)
            for other in waited:
                sinks[other].append(index)
    order: dict[int, None] = {}
    first = [
        index
        for index in range(len(before))
        if required_inputs[index] and not waiting[index] and not reaching[index]
    ]
    then = [index for index in range(len(before)) if required_inputs[index] and reaching[index]]
    for start in (*first, *then, *range(len(before))):
        stack = [start]
        while stack:
            missing = [other for other in before[stack[-1]] if other not in order]
            stack.extend(missing)
            if missing:
                continue
            index = stack.pop()
            if index in order:
                continue
            order[index] = None
            for sink in sinks[index]:
                waiting[sink] -= 1
                if not waiting[sink]:
                    stack.append(sink)
    return list(order)


def _fed(plan: Schedule, before: Sequence[Sequence[int]]) -> list[bool]:
    """For each node, whether it depends on an input."""
    inputs = set(plan.inputs)
    required_inputs: list[bool] = []
    for read, earlier in zip(plan.reads, before, strict=True):
        required_inputs.append(
            not inputs.isdisjoint(read) or any(required_inputs[other] for other in earlier)
        )
    return required_inputs


def _reaching(plan: Schedule, before: Sequence[Sequence[int]]) -> list[bool]:
    """For each node, whether an output depends on it."""
    outputs: set[Value | None] = set(plan.graph.outputs)
    reaching = [not outputs.isdisjoint(node.outputs) for node in plan.nodes]
    for index in range(len(reaching) - 1, -1, -1):
        if reaching[index]:
            for other in before[index]:
                reaching[other] = True
    return reaching
