"""Structural equality of models: everything that the IR models, nothing that rides in `native`."""

from collections.abc import Iterable, Sequence

from irsplit.ir.core import Constant, Graph, Model, Node, Value


def equal(left: Model, right: Model) -> bool:
    """Whether two models have the same graphs, wiring, names, types, constants and attributes."""
    if left.dialect != right.dialect or len(left.graphs) != len(right.graphs):
        return False
    same: dict[Value, Value] = {}
    return all(_graphs(a, b, same) for a, b in zip(left.graphs, right.graphs, strict=True))


def _graphs(left: Graph, right: Graph, same: dict[Value, Value]) -> bool:
    return (
        (left.name, left.placement) == (right.name, right.placement)
        and _definitions(left.inputs, right.inputs, same)
        and _definitions(left.constants, right.constants, same)
        and len(left.nodes) == len(right.nodes)
        and all(_nodes(a, b, same) for a, b in zip(left.nodes, right.nodes, strict=True))
        and _uses(left.outputs, right.outputs, same)
    )


def _nodes(left: Node, right: Node, same: dict[Value, Value]) -> bool:
    return (
        (left.op, left.name, left.states, left.random)
        == (right.op, right.name, right.states, right.random)
        and _plain(left.attributes) == _plain(right.attributes)
        and _uses(left.inputs, right.inputs, same)
        and [graph.name for graph in left.callees] == [graph.name for graph in right.callees]
        and len(left.graphs) == len(right.graphs)
        and all(_graphs(a, b, same) for a, b in zip(left.graphs, right.graphs, strict=True))
        and _definitions(left.outputs, right.outputs, same)
    )


def _plain(attribute: object) -> object:
    """Sequences of any kind as lists; NaN as a word, because it is unequal to itself."""
    if isinstance(attribute, dict):
        return {key: _plain(value) for key, value in attribute.items()}
    if isinstance(attribute, Sequence) and not isinstance(attribute, str | bytes):
        return [_plain(item) for item in attribute]
    return "NaN" if attribute != attribute else attribute


def _definitions(
    left: Sequence[Value | None], right: Sequence[Value | None], same: dict[Value, Value]
) -> bool:
    if len(left) != len(right):
        return False
    for a, b in zip(left, right, strict=True):
        if a is None or b is None:
            if a is not b:
                return False
            continue
        if (a.name, a.type) != (b.name, b.type) or not _constants(a.constant, b.constant):
            return False
        same[a] = b
    return True


def _uses(
    left: Iterable[Value | None], right: Iterable[Value | None], same: dict[Value, Value]
) -> bool:
    return [value and same.get(value) for value in left] == list(right)


def _constants(left: Constant | None, right: Constant | None) -> bool:
    if left is None or right is None:
        return left is right
    if (left.buffer.name, left.length, left.encoding) != (
        right.buffer.name,
        right.length,
        right.encoding,
    ):
        return False
    return left.offset == right.offset if left.buffer.name else left.view() == right.view()
