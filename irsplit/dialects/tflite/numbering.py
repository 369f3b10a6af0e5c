"""Which tensors, buffers and operator codes a written model has, and their new numbers.

A segment has what its graphs use, in the order of the source file. The whole model has everything
of the source, so that numbers stay, and behind it what passes added.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from irsplit.dialects.tflite.native import ModelNative, OperatorNative, SubgraphNative, TensorNative
from irsplit.ir import Constant, Graph, Node, Value

BufferKey = int | tuple[int, int, int]
"""A buffer of the source by its number, or a span of bytes that a pass brought."""
CodeKey = int | str
"""An operator code of the source by its number, or the operator of a node that a pass made."""
_BEHIND_ALL = 1 << 32
"""Larger than any number of a tensor."""


@dataclass(frozen=True, slots=True, eq=False)
class NumberedTensor:
    """A tensor to write: one of the source, one of a value, or both."""

    native: TensorNative | None
    value: Value | None

    @property
    def constant(self) -> Constant | None:
        """The bytes of the tensor; None without any."""
        if self.value is not None:
            return self.value.constant
        return None if self.native is None else self.native.constant

    def buffer(self, *, whole: bool) -> BufferKey:
        """The buffer that the tensor needs; 0, the empty one, for a tensor without data.

        Args:
            whole: Whether the whole model is written. There, a tensor without data keeps the
                buffer that it had.
        """
        constant, native = self.constant, self.native
        if native is None:
            return _span(constant) if constant is not None and constant.length else 0

        is_unchanged = constant is native.constant and (constant is not None or whole)
        if is_unchanged and (constant is None or not native.is_external):
            return native.buffer
        if constant is not None and (is_unchanged or constant.length):
            return _span(constant)
        return native.buffer if native.constant is None and whole else 0


def _span(constant: Constant) -> BufferKey:
    return id(constant.buffer), constant.offset, constant.length


class Tensors:
    """The tensors of one graph by their new numbers.

    Attributes:
        tensors: All tensors to write, in order.
        of_value: The number of each value.
        of_native: The number of each tensor of the source.
    """

    def __init__(self, graph: Graph, *, whole: bool) -> None:
        self.of_value: dict[Value, int] = {}
        self.of_native: dict[TensorNative, int] = {}

        tensors: list[NumberedTensor] = []
        first_value: dict[TensorNative, Value] = {}
        shared: list[Value] = []
        for value in dict.fromkeys(_values(graph, whole=whole)):
            native: TensorNative | None = value.native
            if native is not None and native in first_value:
                # The source writes one tensor in place, which are several values. The whole model
                # keeps that; in a segment each is a tensor, because it may cross on its own.
                shared.append(value)
                if whole:
                    continue
            elif native is not None:
                first_value[native] = value
            tensors.append(NumberedTensor(native, value))

        for native in dict.fromkeys(_without_value(graph, first_value, whole=whole)):
            if native not in first_value:
                tensors.append(NumberedTensor(native, None))

        self.tensors = sorted(tensors, key=_source_index)
        self._number()
        if whole:
            self.of_value.update((value, self.of_native[value.native]) for value in shared)

    def _number(self) -> None:
        for number, tensor in enumerate(self.tensors):
            if tensor.value is not None:
                self.of_value[tensor.value] = number
            if tensor.native is not None:
                self.of_native.setdefault(tensor.native, number)


def _source_index(tensor: NumberedTensor) -> int:
    return _BEHIND_ALL if tensor.native is None else tensor.native.index


class Numbering:
    """The numbers of everything that the graphs of one model file share.

    Args:
        model: The source file.
        graphs: The graphs to write, in the order of the new file.
        metadata: The numbers of buffers that metadata of the source needs.
        whole: Whether the whole model is written, instead of a segment.

    Attributes:
        graphs: The number of each graph.
        tensors: The tensors of each graph.
        constants: What each buffer holds.
        buffers: The new number of each buffer, in order.
        codes: The new number of each operator code, in order.
    """

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
            # A model may do without any buffer, the empty one included.
            used.pop(0, None)
        self.buffers = _numbers(used, range(len(model.buffers)) if whole else (0,))

        codes: dict[CodeKey, None] = {}
        for graph in graphs:
            codes.update(dict.fromkeys(map(code_key, graph.nodes)))
        self.codes = _numbers(codes, range(len(model.codes)) if whole else ())

    def buffer(self, tensor: NumberedTensor) -> int:
        """The new number of a tensor's buffer."""
        return self.buffers.get(tensor.buffer(whole=self.whole), 0)


_Key = TypeVar("_Key", BufferKey, CodeKey)


def code_key(node: Node) -> CodeKey:
    """The operator code of a node: that of the source, or that of its operator."""
    native: OperatorNative | None = node.native
    return node.op if native is None else native.code


def _numbers(used: "Iterable[_Key]", first: Iterable[int]) -> "dict[_Key | int, int]":
    """New numbers: for `first` and the source in its order, then for what passes made."""
    keys = list(used)
    source = sorted({*first, *(key for key in keys if isinstance(key, int))})
    made = [key for key in keys if not isinstance(key, int)]
    return {key: number for number, key in enumerate([*source, *made])}


def _values(graph: Graph, *, whole: bool) -> Iterator[Value]:
    """The values of a graph that need tensors; some come more than once."""
    yield from graph.inputs
    if whole:
        yield from graph.constants
    for node in graph.nodes:
        yield from filter(None, node.inputs)
        yield from filter(None, node.outputs)
    yield from graph.outputs


def _without_value(
    graph: Graph, natives: Iterable[TensorNative], *, whole: bool
) -> Iterator[TensorNative]:
    """Tensors of the source that may have no value: scratch space, and scales of blocks.

    For the whole model these are simply all tensors, used or not.
    """
    subgraph: SubgraphNative | None = graph.native
    if whole and subgraph is not None:
        yield from subgraph.tensors
        return

    scratch: list[TensorNative] = []
    for node in graph.nodes:
        operator: OperatorNative | None = node.native
        if operator is not None:
            scratch.extend(filter(None, operator.intermediates))
    yield from scratch
    for native in (*natives, *scratch):
        yield from native.companions
