"""bind-state: state that a model takes as inputs and gives as outputs stays with the segment that owns its layer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from irsplit.base.errors import PassError, short
from irsplit.ir import Graph, Model, Node, TensorType, Value, required_inputs, uses_with_captures
from irsplit.passes.analysis.dims import OpenDim, open_dims, parse_dims
from irsplit.passes.base import Context

AUTO = "auto"
_HISTORY = re.compile("past|seq|len|time|hist|cache|total|context", re.IGNORECASE)
"""Symbols of dimensions that grow with every call."""
_WORDS = re.compile(r"[a-z]+|\d+")
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


@dataclass(frozen=True)
class BindState:
    """Turn pairs of an input and an output into state: "in=out", or "auto" for the pairs that names give away.

    The input becomes an `irsplit.load` and the output an `irsplit.store` of one state: no cut separates them, they
    travel in no frame, and a session keeps the value from one call to the next. It begins with zeros: a history empty,
    other dimensions that vary are 1; `dim` says otherwise, as "symbol=2", "in=2" or "in.axis=2".
    """

    name: ClassVar[str] = "bind-state"
    state: tuple[str, ...] = ()
    dim: tuple[str, ...] = ()

    def run(self, model: Model, context: Context) -> bool:
        graph = model.entry
        pairs = [self._pair(graph, text) for text in self.state if text != AUTO]
        if AUTO in self.state:
            bound = {value for pair in pairs for value in pair}
            found = [pair for pair in find_states(graph) if bound.isdisjoint(pair)]
            for input, output in found:
                context.remark(
                    self,
                    f"state {short(input.name)}={short(output.name)} was found by its name and type",
                )
            pairs += found
        self._check(pairs)
        given = parse_dims(self.dim, list(open_dims(required_inputs(graph))))
        first = {input: _first_shape(input, given) for input, _ in pairs}
        for input, output in reversed(pairs):
            _bind(graph, input, output, first[input])
        return bool(pairs)

    def _pair(self, graph: Graph, text: str) -> tuple[Value, Value]:
        inputs = {value.name: value for value in required_inputs(graph)}
        outputs = {value.name: value for value in graph.outputs}
        # Tensor names may hold '=' themselves.
        for match in re.finditer("=", text):
            names = text[: match.start()].removeprefix("%"), text[match.end() :].removeprefix("%")
            if names[0] in inputs and names[1] in outputs:
                return inputs[names[0]], outputs[names[1]]
        raise PassError(
            f"state '{text}': give INPUT=OUTPUT with one of the inputs {', '.join(inputs) or '(none)'} and one of the "
            f"outputs {', '.join(outputs) or '(none)'}"
        )

    def _check(self, pairs: Sequence[tuple[Value, Value]]) -> None:
        seen: set[Value] = set()
        for input, output in pairs:
            label = f"state '{short(input.name)}={short(output.name)}'"
            if input in seen or output in seen:
                raise PassError(
                    f"{label}: {input if input in seen else output} belongs to another state already"
                )
            seen.update((input, output))
            if output.producer is None or not input.uses:
                raise PassError(
                    f"{label}: a node must read {input} and produce {output}, or there is nothing to keep"
                )
            if not may_hold(input, output):
                raise PassError(
                    f"{label}: {input} and {output} differ in type or shape; a state must fit its input"
                )


def _first_shape(input: Value, given: Mapping[str, int]) -> list[int]:
    """The shape in which a state begins."""
    assert isinstance(input.type, TensorType)
    first = {dim.axis: _first_size(dim, given) for dim in open_dims([input])}
    return [
        dim if isinstance(dim, int) else first[axis]
        for axis, dim in enumerate(input.type.shape or ())
    ]


def _first_size(dim: OpenDim, given: Mapping[str, int]) -> int:
    size = dim.size(given)
    if size is not None:
        return size
    return 0 if dim.symbol is not None and _HISTORY.search(dim.symbol) else 1


def may_hold(input: Value, output: Value) -> bool:
    """Whether the input can take what the output gave: same element type and rank, no two sizes that differ."""
    a, b = input.type, output.type
    if (
        not isinstance(a, TensorType)
        or not isinstance(b, TensorType)
        or a.dtype != b.dtype
        or a.shape is None
    ):
        return False
    if b.shape is None:
        return True
    pairs = zip(a.shape, b.shape, strict=False)
    return len(a.shape) == len(b.shape) and all(
        x == y for x, y in pairs if isinstance(x, int) and isinstance(y, int)
    )


def find_states(graph: Graph) -> list[tuple[Value, Value]]:
    """Pairs whose names tell a state: equal but for the direction (past/present, in/out, h0/hn), one each way."""
    outputs: dict[tuple[str, ...], list[Value]] = {}
    for value in graph.outputs:
        if value.producer is not None:
            outputs.setdefault(_stem(value.name)[0], []).append(value)
    pairs: list[tuple[Value, Value]] = []
    for value in graph.inputs:
        stem, is_state = _stem(value.name)
        fitting = [
            output
            for output in outputs.get(stem, ())
            if value.constant is None and may_hold(value, output)
        ]
        if len(fitting) == 1 and (is_state or _stem(fitting[0].name)[1]):
            pairs.append((value, fitting[0]))
    counts = [output for _, output in pairs]
    return [pair for pair in pairs if counts.count(pair[1]) == 1]


def _stem(name: str) -> tuple[tuple[str, ...], bool]:
    """The words of a name without those of direction, and whether they speak of a state."""
    # stateN, HiddenOut: words begin with a capital letter too.
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.replace("past_key_values", "past"))
    words = _WORDS.findall(spaced.lower())
    # h0 and hn, c0 and cn, hi and ho: the customary names of recurrent states, with a number behind them or not.
    short = "".join(words)
    recurrent = re.fullmatch(r"([hc])(0|n|in|out|i\d*|o\d*|t\d*|prev|next)", short)
    if recurrent:
        return (recurrent[1], *re.findall(r"[1-9]\d*", short)), True
    stem = tuple(word for word in words if word not in _DIRECTIONS)
    return stem, not _STATES.isdisjoint(words)


def _bind(graph: Graph, input: Value, output: Value, first: Sequence[int]) -> None:
    label = (f"{input.name}={output.name}",)
    for node in graph.nodes:
        # Who reads the state and who writes it stay together.
        if node is output.producer or input in uses_with_captures(node):
            node.states += label
    graph.inputs.remove(input)
    graph.outputs[:] = [value for value in graph.outputs if value is not output]
    graph.nodes.insert(
        0, Node("irsplit.load", (), [input], attributes={"shape": list(first)}, states=label)
    )
    graph.nodes.append(Node("irsplit.store", [output], states=label))
