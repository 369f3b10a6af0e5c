"""Which nodes share state: resource variables and hash tables by name, variable tensors, operands written in place.

A variable that only initialisers write (subgraphs called by CALL_ONCE) is a constant as far as cutting goes, and so
ties no nodes together; an initialiser itself is no bond either, because each segment can run its share of it.
"""

from collections.abc import Iterable, Iterator

from irsplit.base import dtypes
from irsplit.ir import Graph, Model, Node, TensorType, Value, callees_first

CALL_ONCE = "tflite.CALL_ONCE"
VARIABLE = "tflite.variable"
HANDLES = ("tflite.VAR_HANDLE", "tflite.HASHTABLE")
WRITERS = ("tflite.ASSIGN_VARIABLE", "tflite.HASHTABLE_IMPORT")


def find_states(model: Model) -> None:
    """Set `states` of every node that shares state with other nodes, or with itself in a later call."""
    resources = Resources(model.graphs)
    for graph in model.graphs:
        mutable = resources.written_by(graph)
        for node in graph.nodes:
            if node.op == CALL_ONCE or node.op in HANDLES:
                continue
            touched = [name for name in resources.touched_by(node) if name in mutable]
            variables = [
                f"tensor {value.name}"
                for value in node.inputs
                if value is not None and _is_variable(value)
            ]
            node.states = tuple(dict.fromkeys([*touched, *variables]))
    for graph in model.graphs:
        for node in graph.nodes:
            _tie_written_operands(node)


def called_graphs(roots: Iterable[Graph]) -> list[Graph]:
    """The roots and all graphs that they call, directly or not."""
    found = dict.fromkeys(roots)
    pending = list(found)
    while pending:
        for node in pending.pop().nodes:
            for callee in node.callees:
                if callee not in found:
                    found[callee] = None
                    pending.append(callee)
    return list(found)


class Resources:
    """The resource variables and hash tables of graphs, by the names under which an interpreter shares them."""

    def __init__(self, graphs: Iterable[Graph]) -> None:
        self._names: dict[Value, dict[str, None]] = {}
        ordered = callees_first(called_graphs(graphs), "states")
        # Resources go from callers to what they call, which a second round confirms.
        while sum(self._follow(graph) for graph in reversed(ordered)):
            pass
        self._touched: dict[Graph, dict[str, None]] = {}
        self._written: dict[Graph, dict[str, None]] = {}
        for graph in ordered if self._names else ():
            self._sum_up(graph)

    def touched_by(self, node: Node) -> dict[str, None]:
        """Names of the resources that a node reads or writes, itself or in what it calls."""
        names = dict.fromkeys(self._operands(node))
        for graph in node.callees:
            names.update(self._touched.get(graph, {}))
        return names

    def touched_in(self, graph: Graph) -> dict[str, None]:
        """Names of the resources that the nodes of a graph themselves read or write."""
        return dict.fromkeys(name for node in graph.nodes for name in self._operands(node))

    def written_by(self, graph: Graph) -> dict[str, None]:
        """Names of the resources that running the graph writes, initialisers aside."""
        return self._written.get(graph, {})

    def writes(self, node: Node) -> Iterator[str]:
        """Names of the resources that a node writes by itself; what a custom operator does is unknown and counts."""
        if node.op in WRITERS and node.inputs and node.inputs[0] is not None:
            yield from self._names.get(node.inputs[0], ())
        elif node.op.startswith("tflite.custom."):
            yield from self._operands(node)

    def _sum_up(self, graph: Graph) -> None:
        """What the graph touches and writes, now that the graphs that it calls are summed up."""
        touched, written = (
            self.touched_in(graph),
            dict.fromkeys(name for node in graph.nodes for name in self.writes(node)),
        )
        for node in graph.nodes:
            for callee in node.callees:
                touched.update(self._touched[callee])
                if node.op != CALL_ONCE:
                    written.update(self._written[callee])
        self._touched[graph], self._written[graph] = touched, written

    def _operands(self, node: Node) -> Iterator[str]:
        values = node.outputs if node.op in HANDLES else node.inputs
        for value in values:
            if value is not None:
                yield from self._names.get(value, ())

    def _follow(self, graph: Graph) -> bool:
        """Name the resource values of a graph and what it passes to others; whether anything was new."""
        fresh = False
        for node in graph.nodes:
            passed = dict.fromkeys(
                [_handle_name(node)] if node.op in HANDLES else self._operands(node)
            )
            if not passed:
                continue
            received = [value for callee in node.callees for value in callee.inputs]
            for value in (*node.outputs, *received):
                if value is not None and _is_resource(value):
                    names = self._names.setdefault(value, {})
                    fresh = fresh or not passed.keys() <= names.keys()
                    names.update(passed)
        return fresh


def _handle_name(node: Node) -> str:
    options = node.native.table.table("builtin_options")
    if options is None:
        return node.op
    if node.op == "tflite.HASHTABLE":
        return f"hashtable {options.integer('table_id')}"
    return "/".join(
        part for part in (options.text("container"), options.text("shared_name")) if part
    )


def _is_resource(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype in (
        dtypes.RESOURCE,
        dtypes.VARIANT,
    )


def _is_variable(value: Value) -> bool:
    return value.constant is not None and value.constant.encoding == VARIABLE


def _tie_written_operands(node: Node) -> None:
    """An activation that a node writes in place ties together all nodes that make or read it."""
    if not node.native.table.has("mutating_variable_inputs"):
        return
    flags = node.native.table.numbers("mutating_variable_inputs")
    for value, written in zip(node.inputs, flags, strict=False):
        if not written or value is None or _is_variable(value):
            continue
        tied = [user for user, _ in value.uses] + (
            [] if value.producer is None else [value.producer]
        )
        for user in dict.fromkeys(tied):
            user.states = tuple(dict.fromkeys([*user.states, f"tensor {value.name}"]))
