"""Which tensors, buffers and operator codes a written model has, and their new numbers.

A segment has what its graphs use, in the order of the source file. The whole model has everything of the source, so
that numbers stay, and behind it what passes added.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from irsplit.dialects.tflite.native import ModelNative, OperatorNative, SubgraphNative, TensorNative
from irsplit.ir import Constant, Graph, Node, Value

BufferKey = int | tuple[int, int, int]
"""A buffer of the source by its number, or a span of bytes that a pass brought."""
CodeKey = int | str
"""An operator code of the source by its number, or the operation of a node that a pass made."""


@dataclass(frozen=True, slots=True, eq=False)
class NumberedTensor:
    """A tensor to write: one of the source, of a value, or both."""

    native: TensorNative | None
    value: Value | None

    @property
    def constant(self) -> Constant | None:
        if self.value is not None:
            return self.value.constant
        return None if self.native is None else self.native.constant

    def buffer(self, *, whole: bool) -> BufferKey:
        """The buffer that it needs; 0, the empty one, without data (in the whole model: what it had)."""
        constant, native = self.constant, self.native
        if native is not None and constant is native.constant and (constant is not None or whole):
            if not native.is_external or constant is None:
                return native.buffer
            return id(constant.buffer), constant.offset, constant.length
        if constant is None or not constant.length:
            return native.buffer if native is not None and native.constant is None and whole else 0
        return id(constant.buffer), constant.offset, constant.length


class Tensors:
    """The tensors of one graph by their new numbers."""

    def __init__(self, graph: Graph, *, whole: bool) -> None:
        self.of_value: dict[Value, int] = {}
        self.of_native: dict[TensorNative, int] = {}
        tensors: list[NumberedTensor] = []
        taken: dict[TensorNative, Value] = {}
        shared: list[Value] = []
        for value in dict.fromkeys(_values(graph, whole=whole)):
            native: TensorNative | None = value.native
            if native is not None and native in taken:
                shared.append(value)
                # Written in place by the source: one tensor there, but in a segment the copies may travel.
                if whole:
                    continue
            elif native is not None:
                taken[native] = value
            tensors.append(NumberedTensor(native, value))
        riders = dict.fromkeys(_riders(graph, taken, whole=whole))
        tensors.extend(NumberedTensor(native, None) for native in riders if native not in taken)
        self.tensors = sorted(
            tensors, key=lambda tensor: 1 << 32 if tensor.native is None else tensor.native.index
        )
        for number, tensor in enumerate(self.tensors):
            if tensor.value is not None:
                self.of_value[tensor.value] = number
            if tensor.native is not None:
                self.of_native.setdefault(tensor.native, number)
        if whole:
            self.of_value.update((value, self.of_native[value.native]) for value in shared)


class Numbering:
    """The numbers of everything that graphs of one model file share."""

    def __init__(
        self, model: ModelNative, graphs: Sequence[Graph], metadata: Iterable[int], *, whole: bool
    ) -> None:
        self.whole = whole
        self.graphs = {graph: number for number, graph in enumerate(graphs)}
        self.tensors = {graph: Tensors(graph, whole=whole) for graph in graphs}
        self.constants: dict[BufferKey, Constant | None] = dict(enumerate(model.contents))
        used: dict[BufferKey, None] = dict.fromkeys(metadata)
        for tensors in self.tensors.values():
            for tensor in tensors.tensors:
                key = tensor.buffer(whole=whole)
                used[key] = None
                self.constants.setdefault(key, tensor.constant)
        if whole and not model.buffers:
            used.pop(0, None)  # a model may do without any buffer, the empty one included
        self.buffers = _numbers(used, range(len(model.buffers)) if whole else (0,))
        codes: dict[CodeKey, None] = {
            code_key(node): None for graph in graphs for node in graph.nodes
        }
        self.codes = _numbers(codes, range(len(model.codes)) if whole else ())

    def buffer(self, tensor: NumberedTensor) -> int:
        return self.buffers.get(tensor.buffer(whole=self.whole), 0)


_Key = TypeVar("_Key", BufferKey, CodeKey)


def code_key(node: Node) -> CodeKey:
    native: OperatorNative | None = node.native
    return node.op if native is None else native.code


def _numbers(used: "Iterable[_Key]", first: Iterable[int]) -> "dict[_Key | int, int]":
    """New numbers: those of `first`, then those of the source in its order, then what passes brought."""
    found = list(used)
    source = sorted({*first, *(key for key in found if isinstance(key, int))})
    return {
        key: number
        for number, key in enumerate([*source, *(key for key in found if not isinstance(key, int))])
    }


def _values(graph: Graph, *, whole: bool) -> Iterator[Value]:
    yield from graph.inputs
    if whole:
        yield from graph.constants
    for node in graph.nodes:
        yield from (value for value in node.inputs if value is not None)
        yield from (value for value in node.outputs if value is not None)
    yield from graph.outputs


def _riders(graph: Graph, taken: Iterable[TensorNative], *, whole: bool) -> Iterator[TensorNative]:
    """Tensors that no value stands for: scratch space, scales of blocks, and in the whole model what is unused."""
    subgraph: SubgraphNative | None = graph.native
    if whole and subgraph is not None:
        yield from subgraph.tensors
        return
    scratch = [
        native
        for node in graph.nodes
        if node.native is not None
        for native in node.native.intermediates
        if native
    ]
    yield from scratch
    for native in (*taken, *scratch):
        yield from native.companions
