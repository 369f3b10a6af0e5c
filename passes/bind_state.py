"""bind-state: state that a model takes as input and gives as output stays in one segment."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from irsplit.base.errors import PassError, short
from irsplit.ir import Graph, Model, Node, TensorType, Value, required_inputs, uses_with_captures
from irsplit.passes.analysis.dims import OpenDim, open_dims, parse_dims
from irsplit.passes.base import Context

AUTO = "auto"
"""As a state: every pair of an input and an output whose names tell it."""

_HISTORY = re.compile("past|seq|len|time|hist|cache|total|context", re.IGNORECASE)
"""Symbols of dimensions that grow with every call."""
_WORDS = re.compile(r"[a-z]+|\d+")
_RECURRENT = re.compile(r"([hc])(0|n|in|out|i\d*|o\d*|t\d*|prev|next)")
"""The customary names of recurrent states (h0 and hn, c0 and cn, hi and ho), numbered or not."""
_DIRECTIONS = {
    "in",
    "out",
    "input",
    "output",
    "past",
    "present",
    "prev",
    "previous",
    "next",
    "new",
    "current",
    "n",
}
_STATES = {"state", "states", "hidden", "cell", "cache", "memory", "past", "present", "carry"}

_Pair = tuple[Value, Value]
"""The input that a state is read from, and the output that it is written to."""


@dataclass(frozen=True)
class BindState:
    """Turn pairs of an input and an output into state.

    `state` is "input=output" for one pair, or "auto" for all pairs that their names give away. The
    input becomes an `irsplit.load` and the output an `irsplit.store` of one state: no cut separates
    them, they travel in no frame, and a session keeps the value from one call to the next.

    A state begins as zeros. Its history is empty then, and other dimensions that vary are 1; `dim`
    says otherwise, as "symbol=2", "in=2" or "in.axis=2".
    """

    name: ClassVar[str] = "bind-state"
    state: tuple[str, ...] = ()
    dim: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        """Bind all pairs. Raises PassError for a pair that cannot hold a state."""
        graph = model.entry
        pairs = [_pair(graph, text) for text in self.state if text != AUTO]
        if AUTO in self.state:
            pairs += self._found(graph, pairs, context)
        _check(pairs)

        # All shapes are found before the first pair is bound, which takes its input away.
        sizes = parse_dims(self.dim, list(open_dims(required_inputs(graph))))
        first_shapes = [_first_shape(input, sizes) for input, _ in pairs]

        # Each load goes to the front of the graph, so the last pair is bound first.
        for (input, output), shape in reversed([*zip(pairs, first_shapes, strict=True)]):
            _bind(graph, input, output, shape)
        return bool(pairs)

    def _found(self, graph: Graph, bound: Sequence[_Pair], context: Context) -> list[_Pair]:
        """Find the pairs that names give away, but for values that are bound; remark on each."""
        taken: set[Value] = set()
        for pair in bound:
            taken.update(pair)

        pairs = [pair for pair in find_states(graph) if taken.isdisjoint(pair)]
        for input, output in pairs:
            state = f"{short(input.name)}={short(output.name)}"
            context.remark(self, f"state {state} was found by its name and type")
        return pairs


def _pair(graph: Graph, text: str) -> _Pair:
    """Return the input and the output that the user names.

    Args:
        graph: The entry graph of the model.
        text: "input=output", each name with or without its %.

    Raises:
        PassError: The graph has no such input and output.
    """
    inputs = {value.name: value for value in required_inputs(graph)}
    outputs = {value.name: value for value in graph.outputs}

    # Tensor names may hold '=' themselves: any of them may be the one between the two.
    for match in re.finditer("=", text):
        input = text[: match.start()].removeprefix("%")
        output = text[match.end() :].removeprefix("%")
        if input in inputs and output in outputs:
            return inputs[input], outputs[output]

    raise PassError(
        f"state '{text}': give INPUT=OUTPUT with one of the inputs "
        f"{', '.join(inputs) or '(none)'} and one of the outputs {', '.join(outputs) or '(none)'}"
    )


def _check(pairs: Sequence[_Pair]) -> None:
    """Raise PassError for a pair that shares a value, keeps nothing, or does not fit."""
    seen: set[Value] = set()
    for input, output in pairs:
        label = f"state '{short(input.name)}={short(output.name)}'"
        if input in seen or output in seen:
            value = input if input in seen else output
            raise PassError(f"{label}: {value} belongs to another state already")

        seen.update((input, output))
        if output.producer is None or not input.uses:
            raise PassError(
                f"{label}: a node must read {input} and produce {output}, or there is nothing "
                "to keep"
            )
        if not may_hold(input, output):
            raise PassError(
                f"{label}: {input} and {output} differ in type or shape; a state must fit its input"
            )


def _first_shape(input: Value, sizes: Mapping[str, int]) -> list[int]:
    """Return the shape in which a state begins.

    Args:
        input: The input that the state is read from.
        sizes: The sizes that the user gave to open dimensions, by name.
    """
    assert isinstance(input.type, TensorType)
    first = {dim.axis: _first_size(dim, sizes) for dim in open_dims([input])}
    dims = enumerate(input.type.shape or ())
    return [dim if isinstance(dim, int) else first[axis] for axis, dim in dims]


def _first_size(dim: OpenDim, sizes: Mapping[str, int]) -> int:
    size = dim.size(sizes)
    if size is not None:
        return size

    # A history is empty before the first call.
    return 0 if dim.symbol is not None and _HISTORY.search(dim.symbol) else 1


def may_hold(input: Value, output: Value) -> bool:
    """Return whether an input can take what an output gave.

    Element types and ranks have to be the same, and no two sizes may differ. An output of unknown
    rank is accepted.
    """
    taken, given = input.type, output.type
    if not isinstance(taken, TensorType) or not isinstance(given, TensorType):
        return False
    if taken.dtype != given.dtype or taken.shape is None:
        return False
    if given.shape is None:
        return True
    if len(taken.shape) != len(given.shape):
        return False

    for size, other in zip(taken.shape, given.shape, strict=True):
        if isinstance(size, int) and isinstance(other, int) and size != other:
            return False
    return True


def find_states(graph: Graph) -> list[tuple[Value, Value]]:
    """Find the pairs of an input and an output whose names tell that they are a state.

    The names are equal but for the direction (past and present, in and out, h0 and hn), the types
    fit, and neither of the two fits another value.

    Args:
        graph: The entry graph of a model.

    Returns:
        The pairs, in order of the inputs.
    """
    outputs: dict[tuple[str, ...], list[Value]] = {}
    for value in graph.outputs:
        if value.producer is not None:
            outputs.setdefault(_stem(value.name)[0], []).append(value)

    pairs: list[tuple[Value, Value]] = []
    for value in graph.inputs:
        if value.constant is not None:
            continue

        stem, is_state = _stem(value.name)
        fitting = [output for output in outputs.get(stem, ()) if may_hold(value, output)]
        if len(fitting) == 1 and (is_state or _stem(fitting[0].name)[1]):
            pairs.append((value, fitting[0]))

    # An output that fits several inputs is left to the user.
    chosen = [output for _, output in pairs]
    return [pair for pair in pairs if chosen.count(pair[1]) == 1]


def _stem(name: str) -> tuple[tuple[str, ...], bool]:
    """Return what a name is about: the part that the input and the output of a state share.

    Returns:
        The words of the name without those of direction, and whether they tell of a state.
    """
    # Words begin with a capital letter too, as in stateN and HiddenOut.
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("past_key_values", "past"))
    words = _WORDS.findall(spaced.lower())

    # The name of a recurrent state is one letter and its direction, with a number or not.
    letters = "".join(words)
    recurrent = _RECURRENT.fullmatch(letters)
    if recurrent:
        return (recurrent[1], *re.findall(r"[1-9]\d*", letters)), True

    stem = tuple(word for word in words if word not in _DIRECTIONS)
    return stem, not _STATES.isdisjoint(words)


def _bind(graph: Graph, input: Value, output: Value, first: Sequence[int]) -> None:
    """Replace the input by a load and the output by a store of one state.

    Args:
        graph: The entry graph, which is changed.
        input: The input that the state is read from.
        output: The output that it is written to.
        first: The shape in which the state begins.
    """
    label = (f"{input.name}={output.name}",)

    # A shared state keeps who reads it and who writes it on one side of every cut.
    for node in graph.nodes:
        if node is output.producer or input in uses_with_captures(node):
            node.states += label

    graph.inputs.remove(input)
    graph.outputs[:] = [value for value in graph.outputs if value is not output]

    load = Node("irsplit.load", (), [input], attributes={"shape": list(first)}, states=label)
    graph.nodes.insert(0, load)
    graph.nodes.append(Node("irsplit.store", [output], states=label))
