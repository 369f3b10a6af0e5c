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
# A tensor without data that LiteRT lets an operator read.
UNSET = "tflite.unset"
SPARSE = "tflite.sparse"
BLOCK_QUANTIZATIONS = ("BlockwiseQuantization", "MultiAxisQuantization")


def read_model(path: Path, entry: str | None = None) -> Model:
    """The model of a file; `entry` names the signature or subgraph that becomes graphs[0], by default the first."""
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
    signatures = model.native.table.tables("signature_defs")
    indices = {
        signature.text("signature_key"): signature.integer("subgraph_index")
        for signature in signatures
    }
    chosen = [
        graph
        for graph in model.graphs
        if graph.native.index == indices.get(entry) or graph.name == entry
    ]
    if not chosen:
        known = short(
            ", ".join(dict.fromkeys([*map(str, indices), *(graph.name for graph in model.graphs)])),
            1000,
        )
        raise ModelError(f"{name}: no signature or subgraph is named '{entry}'; known: {known}")
    model.graphs.remove(chosen[0])
    model.graphs.insert(0, chosen[0])


class _Reader:
    """Tables that all subgraphs share, and the graphs so far."""

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
        found = [table.text("name") or f"subgraph_{index}" for index, table in enumerate(tables)]
        names = _Names(found)
        graphs = [Graph(names.unique(name)) for name in found]
        for index, (graph, table) in enumerate(zip(graphs, tables, strict=True)):
            _SubgraphReader(self, graphs, graph, table, index).read()
        callees_first(graphs, self.source.name)
        unknown = {
            node.op.removeprefix("tflite.custom.")
            for graph in graphs
            for node in graph.nodes
            if is_foreign(node.op)
        }
        if unknown:
            _log.warning(
                "%s: custom operator %s needs a kernel of its own; a stock engine refuses the model",
                self.source.name,
                short(", ".join(sorted(unknown)), 400),
            )
        native = ModelNative(self.root, self.codes, self.buffers, self.contents)
        return Model("tflite", graphs, native)

    def _content(self, index: int, table: Table) -> Constant | None:
        """What a buffer holds, inside the flatbuffer or behind it; None when it is empty."""
        start, length = table.span("data") or (table.integer("offset"), table.integer("size"))
        # Offset 1 is what converters write before they know the real one.
        length = 0 if start <= 1 else length
        if start + length > self.source.size:
            raise ModelError(
                f"{self.source.name}: buffer {index} lies at bytes {start} to {start + length}, beyond the end of the "
                f"file ({self.source.size} bytes); copy the file again"
            )
        return Constant(self.buffer, start, length) if length else None


class _SubgraphReader:
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
        found = [tensor.text("name") or f"tensor_{index}" for index, tensor in enumerate(tables)]
        self.unique_names = _Names(found)
        self.names = [self.unique_names.unique(name) for name in found]
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
        for tensor in self.tensors:
            quantization = tensor.table.table("quantization")
            details = None if quantization is None else quantization.table("details")
            if details is not None and details.layout.name in BLOCK_QUANTIZATIONS:
                indices = [
                    details.integer(name) for name in ("scales", "zero_points") if details.has(name)
                ]
                tensor.companions.extend(
                    self.tensors[index] for index in indices if 0 <= index < len(self.tensors)
                )

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
            self._in_range(tensor, where, optional=True)
            outputs.append(None if tensor < 0 else self._result(tensor, op))
        intermediates = table.numbers("intermediates")
        scratch = tuple(
            self.tensors[i] if self._in_range(i, where, optional=True) else None
            for i in intermediates
        )
        return Node(
            op,
            inputs,
            outputs,
            callees=self._callees(table, where),
            random=op in RANDOM,
            native=OperatorNative(table, index, code, scratch, self._large_options(table, where)),
        )

    def _large_options(self, table: Table, where: str) -> Constant | None:
        start, length = (
            table.integer(f"large_custom_options_{name}") for name in ("offset", "size")
        )
        if start + length > self.reader.source.size:
            raise ModelError(
                f"{self.where}: the options of {where} lie at bytes {start} to {start + length}, beyond the end of the "
                f"file ({self.reader.source.size} bytes); copy the file again"
            )
        return Constant(self.reader.buffer, start, length) if start > 1 else None

    def _operand(self, op: str, place: int, index: int, where: str) -> Value | None:
        if not self._in_range(index, where, optional=True):
            return None
        return self.values[index] or self._constant(index, where, unset=may_be_unset(op, place))

    def _define(self, index: int, constant: Constant | None) -> Value:
        """A new value for a tensor. One that is written again (in place, in file order) is another value each time."""
        tensor = self.tensors[index]
        if self.values[index] is not None:
            self.names[index] = self.unique_names.unique(self.names[index])
        value = self.values[index] = Value(
            self.names[index], tensor_type(tensor.table), constant, tensor
        )
        return value

    def _result(self, index: int, op: str) -> Value:
        value = self._define(index, None)
        table = self.tensors[index].table
        assert isinstance(value.type, TensorType)
        # Converters write no shape, or that of a scalar, for what only the kernel of a custom operator knows.
        unsaid = not table.has("shape") or op.startswith("tflite.custom.")
        if unsaid and value.type.shape == () and not table.integer("has_rank"):
            value.type = replace(value.type, shape=None)
        return value

    def _constant(self, index: int, where: str, *, unset: bool = False) -> Value:
        """The value of a tensor that nothing has produced so far."""
        tensor = self.tensors[index]
        value = self._define(index, tensor.constant)
        assert isinstance(value.type, TensorType)
        if value.constant is None:
            variable = tensor.table.integer("is_variable")
            if not variable and not unset and value.type.elements(1):
                raise ModelError(
                    f"{self.where}: {where} reads tensor {index} ('{short(value.name)}'), which has no data and is not "
                    "produced before; operators must be in execution order"
                )
            encoding = VARIABLE if variable else UNSET if unset else "raw"
            value.constant = Constant(self.reader.buffer, 0, 0, encoding)
        self.graph.constants.append(value)
        return value

    def _callees(self, table: Table, where: str) -> list[Graph]:
        called: list[int] = []
        for union in ("builtin_options", "builtin_options2"):
            options = table.table(union) if table.has(union) else None
            for name in CALLS.get(options.layout.name, ()) if options is not None else ():
                assert options is not None
                vector = options.layout.fields[name].kind == "numbers"
                called.extend(options.numbers(name) if vector else [options.integer(name)])
        for index in called:
            if not 0 <= index < len(self.graphs):
                raise ModelError(
                    f"{self.where}: {where} calls subgraph {index}, but the model has {len(self.graphs)}; "
                    "convert the model again"
                )
        return [self.graphs[index] for index in called]

    def _in_range(self, index: int, where: str, *, optional: bool = False) -> bool:
        """Whether the index is that of a tensor; -1 stands for an optional one that is absent."""
        if optional and index == -1:
            return False
        if not 0 <= index < len(self.tensors):
            raise ModelError(
                f"{self.where}: {where} names tensor {index}, but the subgraph has {len(self.tensors)} tensors; "
                "convert the model again"
            )
        return True


def _operation(code: Table) -> str:
    """The operation of an operator code: the number is in either of two fields, the larger one counts."""
    number = max(code.integer("deprecated_builtin_code"), code.integer("builtin_code"))
    name = CODES_BY_NUMBER.get(number, f"BUILTIN_{number}")
    return (
        f"tflite.custom.{code.text('custom_code') or 'unnamed'}"
        if name == "CUSTOM"
        else f"tflite.{name}"
    )


class _Names:
    """Names made unique: later ones of the same text get #2, #3 behind, and no name of the file is taken twice."""

    def __init__(self, names: Iterable[str]) -> None:
        self._taken = set(names)
        self._given: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, name: str) -> str:
        if name in self._given:
            number = self._next.get(name, 2)
            while f"{name}#{number}" in self._taken:
                number += 1
            self._next[name] = number + 1
            name = f"{name}#{number}"
        self._taken.add(name)
        self._given.add(name)
        return name
