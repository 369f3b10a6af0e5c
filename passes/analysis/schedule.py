"""The runtime nodes of a graph in an order in which they can run: cuts are positions of it.

A runtime node depends on a graph input, or is random or stateful. The others are *free*: they
depend on constants alone and are cloned to every segment that reads them. Dead nodes are in no
order at all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irsplit.ir import Graph, Node, Value, required_inputs, uses_with_captures, without_collector


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The runtime nodes in execution order, and the values that each must wait for."""

    graph: Graph
    nodes: tuple[Node, ...]
    reads: tuple[tuple[Value, ...], ...]
    """For each node, the runtime values it reads; those its bodies capture are included."""
    frees: tuple[tuple[Value, ...], ...]
    """For each node, the constants and results of free nodes it reads, captures included."""
    inputs: tuple[Value, ...]
    """Graph inputs that a caller must give; one with a default counts as a constant."""
    name: str = ""
    """What the ids of its cuts end with: nothing for the graph's own order."""

    def reordered(self, order: Iterable[int], name: str = "") -> "Schedule":
        """Return the schedule with the nodes at the indices `order`, in that order.

        Args:
            order: Indices of nodes; those that are left out are not in the new schedule.
            name: The name of the new order.
        """
        indices = list(order)
        return Schedule(
            self.graph,
            tuple([self.nodes[index] for index in indices]),
            tuple([self.reads[index] for index in indices]),
            tuple([self.frees[index] for index in indices]),
            self.inputs,
            name,
        )


@without_collector()
def schedule(graph: Graph) -> Schedule:
    """Schedule the live runtime nodes of a graph.

    They keep the graph's order, but for those that are on no path from an input to an output. What
    depends on no input (random numbers, states that are read first) comes just before its first
    reader, and what leads to no output (states that are written last) as soon as it can run. An
    early reader or a late writer would hide cuts that it has nothing to do with.

    Args:
        graph: A graph whose nodes are in an order in which they can run.
    """
    inputs = tuple(required_inputs(graph))
    runtime: set[Value | None] = set(inputs)
    nodes: list[Node] = []
    reads: list[tuple[Value, ...]] = []
    frees: list[tuple[Value, ...]] = []
    for node in graph.nodes:
        used = uses_with_captures(node)
        read = tuple([value for value in used if value in runtime])
        if not (read or node.random or node.states):
            continue

        nodes.append(node)
        reads.append(read)
        all_runtime = len(read) == len(used)
        frees.append(() if all_runtime else tuple([v for v in used if v not in runtime]))
        runtime.update(node.outputs)

    plan = Schedule(graph, tuple(nodes), tuple(reads), tuple(frees), inputs)
    live = _live(plan)
    if len(live) < len(nodes):
        plan = plan.reordered(live)

    # Only random and stateful nodes can be off the paths between inputs and outputs.
    if any(node.random or node.states for node in plan.nodes):
        plan = plan.reordered(_relaxed(plan))
    return plan


def predecessors(plan: Schedule) -> list[list[int]]:
    """Return, for each node, the indices of the nodes it waits for.

    A node waits for the producers of what it reads, and for the last node that touched one of its
    states.
    """
    producer: dict[Value | None, int] = {}
    touched: dict[str, int] = {}
    before: list[list[int]] = []
    for index, (node, reads) in enumerate(zip(plan.nodes, plan.reads, strict=True)):
        earlier = dict.fromkeys(producer[value] for value in reads if value in producer)
        earlier.update((touched[state], None) for state in node.states if state in touched)
        before.append(list(earlier))

        producer.update(dict.fromkeys(node.outputs, index))
        touched.update(dict.fromkeys(node.states, index))
    return before


def _live(plan: Schedule) -> list[int]:
    """Return the indices of the nodes that an output or a state depends on.

    The walk is backwards: when it comes to a node, it has seen all nodes that read its results.
    """
    needed: set[Value | None] = set(plan.graph.outputs)
    live: list[int] = []
    for index in range(len(plan.nodes) - 1, -1, -1):
        node = plan.nodes[index]
        if node.states or not needed.isdisjoint(node.outputs):
            live.append(index)
            needed.update(plan.reads[index])
    return live[::-1]


def _relaxed(plan: Schedule) -> list[int]:
    """Return the indices in an order with late sources and early sinks.

    A source depends on no input, and a sink leads to no output. Nodes on paths from inputs to
    outputs run in the schedule's order, each after the sources it waits for; after each node run
    the sinks that waited for it alone.
    """
    before = predecessors(plan)
    depends = _depends_on_inputs(plan, before)
    reaches = _reaches_outputs(plan, before)

    sinks: list[list[int]] = [[] for _ in before]
    """For each node, the sinks that wait for it."""
    waiting = [0] * len(before)
    """For each sink, how many nodes it still waits for; sources do not count."""
    for index, earlier in enumerate(before):
        if not depends[index] or reaches[index]:
            continue
        for other in earlier:
            if depends[other] or reaches[other]:
                waiting[index] += 1
                sinks[other].append(index)

    indices = range(len(before))
    ready_sinks = [i for i in indices if depends[i] and not waiting[i] and not reaches[i]]
    on_paths = [i for i in indices if depends[i] and reaches[i]]
    order: dict[int, None] = {}
    for start in (*ready_sinks, *on_paths, *indices):
        _run(start, before, sinks, waiting, order)
    return list(order)


def _run(
    start: int,
    before: Sequence[Sequence[int]],
    sinks: Sequence[Sequence[int]],
    waiting: list[int],
    order: dict[int, None],
) -> None:
    """Append a node to the order, after what it waits for and before sinks that waited for it.

    The stack has what is still to run, the node that is needed first on top; recursion would not be
    deep enough for a long chain.

    Args:
        start: The node.
        before: For each node, the nodes it waits for.
        sinks: For each node, the sinks that wait for it.
        waiting: For each sink, how many nodes it still waits for; updated.
        order: The nodes that have run, in order; updated.
    """
    stack = [start]
    while stack:
        # What is missing runs first, then it is this node's turn again.
        missing = [other for other in before[stack[-1]] if other not in order]
        if missing:
            stack.extend(missing)
            continue

        index = stack.pop()
        if index in order:
            continue

        order[index] = None
        for sink in sinks[index]:
            waiting[sink] -= 1
            if not waiting[sink]:
                stack.append(sink)


def _depends_on_inputs(plan: Schedule, before: Sequence[Sequence[int]]) -> list[bool]:
    """Return, for each node, whether it depends on an input.

    Args:
        plan: The schedule.
        before: For each node, the nodes it waits for.
    """
    inputs = set(plan.inputs)
    depends: list[bool] = []
    for reads, earlier in zip(plan.reads, before, strict=True):
        reads_input = not inputs.isdisjoint(reads)
        depends.append(reads_input or any(depends[other] for other in earlier))
    return depends


def _reaches_outputs(plan: Schedule, before: Sequence[Sequence[int]]) -> list[bool]:
    """Return, for each node, whether an output depends on it.

    Args:
        plan: The schedule.
        before: For each node, the nodes it waits for.
    """
    outputs: set[Value | None] = set(plan.graph.outputs)
    reaches = [not outputs.isdisjoint(node.outputs) for node in plan.nodes]
    for index in range(len(reaches) - 1, -1, -1):
        if reaches[index]:
            for other in before[index]:
                reaches[other] = True
    return reaches
