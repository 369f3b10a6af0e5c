"""Structural equality of models: everything that the IR models, and nothing in `native`.

Two models are walked side by side. Each pair of definitions is recorded in `same`, from the left
value to the right one, so that uses are equal when they refer to recorded pairs.
"""

from collections.abc import Iterable, Sequence

from irsplit.ir.core import Attribute, Constant, Graph, Model, Node, Value


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


def _plain(attribute: Attribute | dict[str, Attribute]) -> object:
    """An attribute in a form that compares: any sequence as a list, NaN as a word."""
    if isinstance(attribute, dict):
        return {key: _plain(value) for key, value in attribute.items()}
    if isinstance(attribute, Sequence) and not isinstance(attribute, str | bytes):
        return [_plain(item) for item in attribute]
    # NaN alone is unequal to itself.
    return "NaN" if attribute != attribute else attribute


def _definitions(
    left: Sequence[Value | None], right: Sequence[Value | None], same: dict[Value, Value]
) -> bool:
    """Whether the definitions are equal one by one; equal ones are recorded in `same`."""
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

    same_span = (left.buffer.name, left.length, left.encoding) == (
        right.buffer.name,
        right.length,
        right.encoding,
    )
    if not same_span:
        return False

    # Constants of a file are equal by their place; those in memory have no place, only bytes.
    if left.buffer.name:
        return left.offset == right.offset
    return left.view() == right.view()
