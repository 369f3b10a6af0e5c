"""Which nodes share state.

State is in resource variables and hash tables (by name), in variable tensors, and in operands that
a node writes in place.

A variable that only initialisers write (subgraphs called by CALL_ONCE) is a constant as far as
cutting goes, and so ties no nodes together. Neither does an initialiser itself, because each
segment can run its share of it.
"""

from collections.abc import Iterable, Iterator

from irsplit.base import dtypes
from irsplit.ir import Graph, Model, Node, TensorType, Value, callees_first

CALL_ONCE = "tflite.CALL_ONCE"
VARIABLE = "tflite.variable"
HANDLES = ("tflite.VAR_HANDLE", "tflite.HASHTABLE")
WRITERS = ("tflite.ASSIGN_VARIABLE", "tflite.HASHTABLE_IMPORT")


def find_states(model: Model) -> None:
    """Set `states` of every node that shares state with other nodes, or with its own next run."""
    resources = Resources(model.graphs)
    for graph in model.graphs:
        mutable = resources.written_by(graph)
        for node in graph.nodes:
            if node.op == CALL_ONCE or node.op in HANDLES:
                continue
            names = [name for name in resources.touched_by(node) if name in mutable]
            for value in node.inputs:
                if value is not None and _is_variable(value):
                    names.append(f"tensor {value.name}")
            node.states = tuple(dict.fromkeys(names))

    for graph in model.graphs:
        for node in graph.nodes:
            _tie_written_operands(node)


def called_graphs(roots: Iterable[Graph]) -> list[Graph]:
    """The roots and all graphs that they call, directly or through others, each once."""
    graphs = dict.fromkeys(roots)
    pending = list(graphs)
    while pending:
        for node in pending.pop().nodes:
            fresh = [callee for callee in node.callees if callee not in graphs]
            graphs.update(dict.fromkeys(fresh))
            pending.extend(dict.fromkeys(fresh))
    return list(graphs)


class Resources:
    """The resource variables and hash tables of graphs, by the names that an interpreter uses.

    A handle is made by a node with the resource's name in its options, and then passed along like
    any other value, also to graphs that are called. Following the handles from callers to callees
    gives the names behind each value; that is repeated until nothing is new, because a loop passes
    handles back. Then callees are summed up before their callers.

    Args:
        graphs: The graphs to look at, together with all that they call.
    """

    def __init__(self, graphs: Iterable[Graph]) -> None:
        self._names: dict[Value, dict[str, None]] = {}
        ordered = callees_first(called_graphs(graphs), "states")
        while sum(self._follow(graph) for graph in reversed(ordered)):
            pass

        self._touched: dict[Graph, dict[str, None]] = {}
        self._written: dict[Graph, dict[str, None]] = {}
        if self._names:
            for graph in ordered:
                self._sum_up(graph)

    def touched_by(self, node: Node) -> dict[str, None]:
        """Names of the resources that a node reads or writes, itself or in what it calls."""
        names = dict.fromkeys(self._operands(node))
        for graph in node.callees:
            names.update(self._touched.get(graph, {}))
        return names

    def touched_in(self, graph: Graph) -> dict[str, None]:
        """Names of the resources that the nodes of a graph themselves read or write."""
        names: dict[str, None] = {}
        for node in graph.nodes:
            names.update(dict.fromkeys(self._operands(node)))
        return names

    def written_by(self, graph: Graph) -> dict[str, None]:
        """Names of the resources that running the graph writes, initialisers aside."""
        return self._written.get(graph, {})

    def writes(self, node: Node) -> Iterator[str]:
        """Names of the resources that a node itself writes; a custom one may write them all."""
        if node.op in WRITERS and node.inputs and node.inputs[0] is not None:
            yield from self._names.get(node.inputs[0], ())
        elif node.op.startswith("tflite.custom."):
            yield from self._operands(node)

    def _sum_up(self, graph: Graph) -> None:
        """Find what the graph touches and writes, given the same of the graphs that it calls."""
        touched = self.touched_in(graph)
        written: dict[str, None] = {}
        for node in graph.nodes:
            written.update(dict.fromkeys(self.writes(node)))

        for node in graph.nodes:
            for callee in node.callees:
                touched.update(self._touched[callee])
                if node.op != CALL_ONCE:
                    written.update(self._written[callee])
        self._touched[graph], self._written[graph] = touched, written

    def _operands(self, node: Node) -> Iterator[str]:
        """Names of the resources whose handles a node reads or makes."""
        values = node.outputs if node.op in HANDLES else node.inputs
        for value in values:
            if value is not None:
                yield from self._names.get(value, ())

    def _follow(self, graph: Graph) -> bool:
        """Name the handles of a graph and those that it passes on; whether any name is new."""
        is_new = False
        for node in graph.nodes:
            names = [_handle_name(node)] if node.op in HANDLES else self._operands(node)
            passed = dict.fromkeys(names)
            if not passed:
                continue

            received = list(node.outputs)
            for callee in node.callees:
                received.extend(callee.inputs)
            for value in received:
                if value is not None and _is_resource(value):
                    names_of_value = self._names.setdefault(value, {})
                    is_new = is_new or not passed.keys() <= names_of_value.keys()
                    names_of_value.update(passed)
        return is_new


def _handle_name(node: Node) -> str:
    """The name under which interpreters share the resource of a handle."""
    options = node.native.table.table("builtin_options")
    if options is None:
        return node.op
    if node.op == "tflite.HASHTABLE":
        return f"hashtable {options.integer('table_id')}"
    return "/".join(filter(None, (options.text("container"), options.text("shared_name"))))


def _is_resource(value: Value) -> bool:
    handles = (dtypes.RESOURCE, dtypes.VARIANT)
    return isinstance(value.type, TensorType) and value.type.dtype in handles


def _is_variable(value: Value) -> bool:
    return value.constant is not None and value.constant.encoding == VARIABLE


def _tie_written_operands(node: Node) -> None:
    """An activation that a node writes in place ties together all nodes that make or read it."""
    if not node.native.table.has("mutating_variable_inputs"):
        return

    flags = node.native.table.numbers("mutating_variable_inputs")
    for value, is_written in zip(node.inputs, flags, strict=False):
        if not is_written or value is None or _is_variable(value):
            continue
        tied = [user for user, _ in value.uses]
        if value.producer is not None:
            tied.append(value.producer)
        for user in dict.fromkeys(tied):
            user.states = tuple(dict.fromkeys([*user.states, f"tensor {value.name}"]))
