"""From a .tflite file to the IR; weights stay in the mapped file."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path

from irsplit.base.errors import ModelError, UnsupportedError, short
from irsplit.dialects.tflite.external import ExternalBuffers
from irsplit.dialects.tflite.flatbuffer import Flatbuffer, Table
from irsplit.dialects.tflite.native import ModelNative, OperatorNative, SubgraphNative, TensorNative
from irsplit.dialects.tflite.operators import (
    CALLS,
    CODES_BY_NUMBER,
    RANDOM,
    is_foreign,
    may_be_unset,
)
from irsplit.dialects.tflite.states import CALL_ONCE, VARIABLE, find_states
from irsplit.dialects.tflite.tensors import tensor_type
from irsplit.ir import Buffer, Constant, Graph, Model, Node, TensorType, Value, callees_first

_log = getLogger("irsplit")

IDENTIFIER = b"TFL3"
VERSION = 3
UNSET = "tflite.unset"
"""The encoding of a tensor without data that LiteRT lets an operator read."""
SPARSE = "tflite.sparse"
BLOCK_QUANTIZATIONS = ("BlockwiseQuantization", "MultiAxisQuantization")


def read_model(path: Path, entry: str | None = None) -> Model:
    """Read a model; its weights stay in the mapped file.

    Args:
        path: The file.
        entry: The signature or subgraph that becomes the entry; by default the first subgraph.

    Returns:
        The model, whose nodes know their states.

    Raises:
        ModelError: The file cannot be read, is damaged, or has no such entry.
        UnsupportedError: The file is newer than irsplit's schema.
    """
    buffer = Buffer(path.name, path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ModelError(f"{path}: cannot be read: it is a pipe or a device; check the path")
        model = _Reader(Flatbuffer(buffer.view, str(path)), buffer).model()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    except MemoryError as error:
        raise ModelError(f"{path}: too large to be read; convert it again") from error

    if entry is not None:
        _move_to_front(model, entry, str(path))
    find_states(model)
    return model


def _move_to_front(model: Model, entry: str, name: str) -> None:
    """Make the graph that is named by its signature or its own name the entry of the model."""
    indices: dict[str | None, int] = {}
    for signature in model.native.table.tables("signature_defs"):
        indices[signature.text("signature_key")] = signature.integer("subgraph_index")

    index = indices.get(entry)
    chosen = [graph for graph in model.graphs if graph.native.index == index or graph.name == entry]
    if not chosen:
        names = dict.fromkeys([*map(str, indices), *(graph.name for graph in model.graphs)])
        raise ModelError(
            f"{name}: no signature or subgraph is named '{entry}'; "
            f"known: {short(', '.join(names), 1000)}"
        )
    model.graphs.remove(chosen[0])
    model.graphs.insert(0, chosen[0])


class _Reader:
    """Reads a file: the tables that all subgraphs share, and then each subgraph."""

    def __init__(self, source: Flatbuffer, buffer: Buffer) -> None:
        self.source = source
        self.buffer = buffer
        self.root = source.root("Model", IDENTIFIER)
        version = self.root.integer("version")
        if version != VERSION:
            raise UnsupportedError(
                f"{source.name}: TFLite schema version {version}; irsplit reads version {VERSION}"
            )
        self.external = ExternalBuffers(Path(source.name), self.root)
        self.codes = tuple(self.root.tables("operator_codes"))
        self.operations = [_operation(code) for code in self.codes]
        self.buffers = tuple(self.root.tables("buffers"))
        self.contents = tuple(
            self._content(index, table) for index, table in enumerate(self.buffers)
        )

    def model(self) -> Model:
        tables = self.root.tables("subgraphs")
        if not tables:
            raise ModelError(f"{self.source.name}: the model has no subgraph; convert it again")

        # All graphs exist before the first is read, because operators call them by number.
        texts = [table.text("name") or f"subgraph_{index}" for index, table in enumerate(tables)]
        names = _Names(texts)
        graphs = [Graph(names.unique(text)) for text in texts]
        for index, (graph, table) in enumerate(zip(graphs, tables, strict=True)):
            _SubgraphReader(self, graphs, graph, table, index).read()

        callees_first(graphs, self.source.name)
        self._warn_of_custom_operators(graphs)
        native = ModelNative(self.root, self.codes, self.buffers, self.contents)
        return Model("tflite", graphs, native)

    def _warn_of_custom_operators(self, graphs: Iterable[Graph]) -> None:
        foreign: set[str] = set()
        for graph in graphs:
            operators = {node.op for node in graph.nodes}
            foreign.update(op.removeprefix("tflite.custom.") for op in operators if is_foreign(op))
        if foreign:
            _log.warning(
                "%s: custom operator %s needs a kernel of its own; "
                "a stock engine refuses the model",
                self.source.name,
                short(", ".join(sorted(foreign)), 400),
            )

    def _content(self, index: int, table: Table) -> Constant | None:
        """What a buffer holds, inside the flatbuffer or behind it; None if it is empty."""
        start, length = table.span("data") or (table.integer("offset"), table.integer("size"))
        # Offset 1 is what converters write before they know the real one.
        length = 0 if start <= 1 else length
        if start + length > self.source.size:
            raise ModelError(
                f"{self.source.name}: buffer {index} lies at bytes {start} to {start + length}, "
                f"beyond the end of the file ({self.source.size} bytes); copy the file again"
            )
        return Constant(self.buffer, start, length) if length else None


class _SubgraphReader:
    """Reads one subgraph into a graph.

    `values` has the current value of each tensor: a tensor that is written again is another value
    from there on.
    """

    def __init__(
        self, reader: _Reader, graphs: Sequence[Graph], graph: Graph, table: Table, index: int
    ) -> None:
        self.reader = reader
        self.graphs = graphs
        self.graph = graph
        self.table = table
        self.where = f"{reader.source.name}: subgraph {index} ('{short(graph.name)}')"

        tables = table.tables("tensors")
        self.tensors = tuple(self._tensor(index, tensor) for index, tensor in enumerate(tables))
        self._add_companions()

        texts = [tensor.text("name") or f"tensor_{index}" for index, tensor in enumerate(tables)]
        self.unique_names = _Names(texts)
        self.names = [self.unique_names.unique(text) for text in texts]
        self.values: list[Value | None] = [None] * len(tables)
        graph.native = SubgraphNative(table, index, self.tensors)

    def read(self) -> None:
        graph = self.graph
        for index in self.table.numbers("inputs"):
            if self._in_range(index, "its inputs") and self.values[index] is not None:
                raise UnsupportedError(
                    f"{self.where} lists tensor {index} twice among its inputs; list it once"
                )
            graph.inputs.append(self._define(index, self.tensors[index].constant))

        for index, table in enumerate(self.table.tables("operators")):
            graph.nodes.append(self._node(index, table))
        graph.native.initialisers.extend(node for node in graph.nodes if node.op == CALL_ONCE)

        for index in self.table.numbers("outputs"):
            self._in_range(index, "its outputs")
            graph.outputs.append(self.values[index] or self._constant(index, "its outputs"))

    def _tensor(self, index: int, table: Table) -> TensorNative:
        buffer = table.integer("buffer")
        if buffer >= max(1, len(self.reader.buffers)):
            raise ModelError(
                f"{self.where}: tensor {index} names buffer {buffer}, but the model has "
                f"{len(self.reader.buffers)} buffers; convert the model again"
            )

        # Buffer 0 is empty by definition, whatever it holds.
        content = self.reader.contents[buffer] if buffer else None
        if table.integer("external_buffer"):
            content = self.reader.external.constant(
                table.integer("external_buffer"),
                f"tensor {index} of subgraph '{short(self.graph.name)}'",
            )
        if content is not None and table.has("sparsity"):
            content = replace(content, encoding=SPARSE)
        return TensorNative(table, index, buffer, content)

    def _add_companions(self) -> None:
        """Find the tensors that hold scales and zero points of blocks of other tensors."""
        for tensor in self.tensors:
            quantization = tensor.table.table("quantization")
            details = None if quantization is None else quantization.table("details")
            if details is None or details.layout.name not in BLOCK_QUANTIZATIONS:
                continue
            for name in ("scales", "zero_points"):
                index = details.integer(name) if details.has(name) else -1
                if 0 <= index < len(self.tensors):
                    tensor.companions.append(self.tensors[index])

    def _node(self, index: int, table: Table) -> Node:
        code = table.integer("opcode_index")
        if code >= len(self.reader.operations):
            raise ModelError(
                f"{self.where}: operator {index} names operator code {code}, but the model has "
                f"{len(self.reader.operations)}; convert the model again"
            )

        op = self.reader.operations[code]
        where = f"operator {index} ({short(op.removeprefix('tflite.'))})"
        inputs = [
            self._operand(op, place, tensor, where)
            for place, tensor in enumerate(table.numbers("inputs"))
        ]
        outputs: list[Value | None] = []
        for tensor in table.numbers("outputs"):
            is_present = self._in_range(tensor, where, optional=True)
            outputs.append(self._result(tensor, op) if is_present else None)

        scratch: list[TensorNative | None] = []
        for tensor in table.numbers("intermediates"):
            is_present = self._in_range(tensor, where, optional=True)
            scratch.append(self.tensors[tensor] if is_present else None)

        large_options = self._large_options(table, where)
        return Node(
            op,
            inputs,
            outputs,
            callees=self._callees(table, where),
            random=op in RANDOM,
            native=OperatorNative(table, index, code, tuple(scratch), large_options),
        )

    def _large_options(self, table: Table, where: str) -> Constant | None:
        """The options of a custom operator that are stored behind the flatbuffer."""
        start = table.integer("large_custom_options_offset")
        length = table.integer("large_custom_options_size")
        size = self.reader.source.size
        if start + length > size:
            raise ModelError(
                f"{self.where}: the options of {where} lie at bytes {start} to {start + length}, "
                f"beyond the end of the file ({size} bytes); copy the file again"
            )
        return Constant(self.reader.buffer, start, length) if start > 1 else None

    def _operand(self, op: str, place: int, index: int, where: str) -> Value | None:
        if not self._in_range(index, where, optional=True):
            return None
        return self.values[index] or self._constant(index, where, unset=may_be_unset(op, place))

    def _define(self, index: int, constant: Constant | None) -> Value:
        """Make a new value for a tensor, also for one that has a value already."""
        tensor = self.tensors[index]
        if self.values[index] is not None:
            self.names[index] = self.unique_names.unique(self.names[index])
        value = Value(self.names[index], tensor_type(tensor.table), constant, tensor)
        self.values[index] = value
        return value

    def _result(self, index: int, op: str) -> Value:
        """A new value for a result, whose rank may be unknown."""
        value = self._define(index, None)
        table = self.tensors[index].table
        assert isinstance(value.type, TensorType)

        # Where only the kernel of a custom operator knows the shape, converters write none, or that
        # of a scalar.
        is_unknown = not table.has("shape") or op.startswith("tflite.custom.")
        if is_unknown and value.type.shape == () and not table.integer("has_rank"):
            value.type = replace(value.type, shape=None)
        return value

    def _constant(self, index: int, where: str, *, unset: bool = False) -> Value:
        """The value of a tensor that no operator has produced so far.

        Args:
            index: The tensor.
            where: What reads it, for error messages.
            unset: Whether the tensor may be without data.
        """
        tensor = self.tensors[index]
        value = self._define(index, tensor.constant)
        self.graph.constants.append(value)
        if value.constant is not None:
            return value

        assert isinstance(value.type, TensorType)
        encoding = "raw"
        if tensor.table.integer("is_variable"):
            encoding = VARIABLE
        elif unset:
            encoding = UNSET
        elif value.type.elements(1):
            raise ModelError(
                f"{self.where}: {where} reads tensor {index} ('{short(value.name)}'), which has no "
                "data and is not produced before; operators must be in execution order"
            )
        value.constant = Constant(self.reader.buffer, 0, 0, encoding)
        return value

    def _callees(self, table: Table, where: str) -> list[Graph]:
        """The graphs that an operator calls, by the numbers in its options."""
        indices: list[int] = []
        for union in ("builtin_options", "builtin_options2"):
            options = table.table(union) if table.has(union) else None
            if options is None:
                continue
            for name in CALLS.get(options.layout.name, ()):
                if options.layout.fields[name].kind == "numbers":
                    indices.extend(options.numbers(name))
                else:
                    indices.append(options.integer(name))

        for index in indices:
            if not 0 <= index < len(self.graphs):
                raise ModelError(
                    f"{self.where}: {where} calls subgraph {index}, but the model has "
                    f"{len(self.graphs)}; convert the model again"
                )
        return [self.graphs[index] for index in indices]

    def _in_range(self, index: int, where: str, *, optional: bool = False) -> bool:
        """Whether a tensor is present: -1 stands for an optional one that is absent.

        Raises ModelError for any other number that is no tensor of the subgraph.
        """
        if optional and index == -1:
            return False
        if not 0 <= index < len(self.tensors):
            raise ModelError(
                f"{self.where}: {where} names tensor {index}, but the subgraph has "
                f"{len(self.tensors)} tensors; convert the model again"
            )
        return True


def _operation(code: Table) -> str:
    """The operator of an operator code, whose number is the larger one of two fields."""
    number = max(code.integer("deprecated_builtin_code"), code.integer("builtin_code"))
    name = CODES_BY_NUMBER.get(number, f"BUILTIN_{number}")
    if name == "CUSTOM":
        return f"tflite.custom.{code.text('custom_code') or 'unnamed'}"
    return f"tflite.{name}"


class _Names:
    """Makes names unique: the second of one text becomes NAME#2, then NAME#3 and so on.

    Args:
        names: All names of the file, none of which is taken for another object.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = set(names)
        self._used: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, name: str) -> str:
        if name in self._used:
            number = self._next.get(name, 2)
            while f"{name}#{number}" in self._taken:
                number += 1
            self._next[name] = number + 1
            name = f"{name}#{number}"
        self._taken.add(name)
        self._used.add(name)
        return name
