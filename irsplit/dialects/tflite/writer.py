"""From the IR to a .tflite file: the tables of the source file, with new wiring and only what is used."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from irsplit.base.errors import ModelError
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.tflite.builder import Builder, Edit, FieldValue, Payload, edit, new
from irsplit.dialects.tflite.file import write_file
from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.dialects.tflite.initialisers import has_initialisers, with_initialisers
from irsplit.dialects.tflite.native import ModelNative, OperatorNative, SubgraphNative
from irsplit.dialects.tflite.numbering import (
    BufferKey,
    CodeKey,
    NumberedTensor,
    Numbering,
    Tensors,
    code_key,
)
from irsplit.dialects.tflite.operators import CALLS
from irsplit.dialects.tflite.reader import IDENTIFIER
from irsplit.dialects.tflite.states import called_graphs
from irsplit.dialects.tflite.tables import new_operator_code, new_tensor
from irsplit.dialects.tflite.trailer import find_trailer, relocated
from irsplit.ir import Constant, Graph, Model, Node, Value

# Offsets of a flatbuffer are signed 32-bit numbers; what does not fit lies behind it, where Buffer.offset points.
INLINE_LIMIT = (1 << 31) - (1 << 24)
# Buffers up to this size are not worth an offset, and stay inside the flatbuffer.
SMALL_BYTES = 64
# Metadata that speaks of tensors by their position, and so would lie about a segment.
POSITIONAL_METADATA = ("TFLITE_METADATA", "OfflineMemoryAllocation")
DEFAULT_SIGNATURE = "serving_default"


def write_model(model: Model, graph: Graph, path: Path, options: WriteOptions) -> list[Path]:
    """Write `graph` as the entry of a file of its own.

    A segment gets exactly the tensors, buffers, operator codes and callees that it uses. A graph that is no segment
    is the whole model: what nothing refers to, other signatures and their subgraphs, all metadata and what follows
    the flatbuffer (associated files) are written too.
    """
    model.native.table.source.start()
    builder = Builder(_Writer(model, graph, options).model(), IDENTIFIER)
    trailer = _trailer(model) if graph.placement is None else None
    rest = b"" if trailer is None else relocated(trailer, builder.size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, builder.out, builder.placed, rest)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written: {error.strerror}; check the folder and its free space"
        ) from error
    return [path]


def _trailer(model: Model) -> Constant | None:
    native: ModelNative = model.native
    options = (
        node.native.large_options
        for graph in model.graphs
        for node in graph.nodes
        if node.native is not None
    )
    return find_trailer(
        native.table, [span for span in (*native.contents, *options) if span is not None]
    )


def _graphs(model: Model, graph: Graph) -> list[Graph]:
    """The graphs to write, in the order of the file: a segment before what it calls, the whole model as it was."""
    if graph.placement is not None:
        entry = with_initialisers(graph)
        return [entry, *sorted(called_graphs([entry])[1:], key=lambda callee: callee.native.index)]
    entry = graph if has_initialisers(graph) else with_initialisers(graph)
    others = (other for other in model.graphs if other.native is not graph.native)
    return sorted(called_graphs([entry, *others]), key=lambda other: other.native.index)


class _Writer:
    """The tables of the new file, as edits of those of the source."""

    def __init__(self, model: Model, graph: Graph, options: WriteOptions) -> None:
        self.native: ModelNative = model.native
        self.whole = graph.placement is None
        self.graphs = _graphs(model, graph)
        self.entry = next(written for written in self.graphs if written.native is graph.native)
        self.metadata = [
            table
            for table in self.native.table.tables("metadata")
            if self.whole or table.text("name") not in POSITIONAL_METADATA
        ]
        attached = [table.integer("buffer") for table in self.metadata]
        self.numbers = Numbering(self.native, self.graphs, attached, whole=self.whole)
        weights = sum(
            constant.length
            for constant in map(self.numbers.constants.get, self.numbers.buffers)
            if constant
        )
        limit = (
            INLINE_LIMIT
            if options.external_over is None
            else min(options.external_over, INLINE_LIMIT)
        )
        # Engines look for metadata inside the flatbuffer only.
        self.inline = set(attached if weights > limit else self.numbers.buffers)

    def model(self) -> Edit:
        fields: dict[str, FieldValue] = {
            "operator_codes": [self._operator_code(key) for key in self.numbers.codes],
            "subgraphs": [self._subgraph(graph) for graph in self.graphs],
            "buffers": [self._buffer(key) for key in self.numbers.buffers],
            "metadata": [self._metadata(table) for table in self.metadata],
            "signature_defs": self._signatures(),
        }
        if self.native.table.has("external_buffers"):
            fields |= {"external_buffers": None, "external_buffer_groups": None}
        legacy = self.native.table.numbers("metadata_buffer")
        fields["metadata_buffer"] = [
            self.numbers.buffers[key] for key in legacy if key in self.numbers.buffers
        ]
        return _edit_vectors(self.native.table, fields)

    def _operator_code(self, key: CodeKey) -> Table | Edit:
        return self.native.codes[key] if isinstance(key, int) else new_operator_code(key)

    def _buffer(self, key: BufferKey) -> Table | Edit:
        source = (
            self.native.buffers[key]
            if isinstance(key, int) and key < len(self.native.buffers)
            else None
        )
        constant = self.numbers.constants.get(key)
        if key == 0 and constant is not None and not self.whole:
            return new("Buffer")
        if constant is None:
            return source or new("Buffer")
        fields: dict[str, FieldValue] = {"data": Payload(constant), "offset": None, "size": None}
        if key not in self.inline and constant.length > SMALL_BYTES:
            fields = {"data": None, "offset": Payload(constant), "size": constant.length}
        return edit(source, **fields) if source is not None else new("Buffer", **fields)

    def _metadata(self, table: Table) -> Table | Edit:
        number = self.numbers.buffers[table.integer("buffer")]
        return table if number == table.integer("buffer") else edit(table, buffer=number)

    # -- subgraphs ----------------------------------------------------------------------------------------------

    def _subgraph(self, graph: Graph) -> Edit:
        native: SubgraphNative = graph.native
        tensors = self.numbers.tensors[graph]
        return _edit_vectors(
            native.table,
            {
                "tensors": [self._tensor(tensor, tensors) for tensor in tensors.tensors],
                "inputs": [tensors.of_value[value] for value in graph.inputs],
                "outputs": [tensors.of_value[value] for value in graph.outputs],
                "operators": [self._operator(node, tensors) for node in graph.nodes],
            },
        )

    def _tensor(self, tensor: NumberedTensor, tensors: Tensors) -> Table | Edit:
        buffer = self.numbers.buffer(tensor)
        if tensor.native is None:
            assert tensor.value is not None, "a tensor comes from the source or from a value"
            return new_tensor(tensor.value, buffer)
        table = tensor.native.table
        fields: dict[str, FieldValue] = (
            {} if buffer == table.integer("buffer") else {"buffer": buffer}
        )
        if tensor.native.is_external:
            fields["external_buffer"] = None
        if tensor.native.companions:
            fields["quantization"] = self._quantization(tensor, tensors)
        return edit(table, **fields) if fields else table

    def _quantization(self, tensor: NumberedTensor, tensors: Tensors) -> Edit | None:
        """The quantization of blocks, whose scales and zero points are tensors."""
        assert tensor.native is not None
        quantization = tensor.native.table.table("quantization")
        details = None if quantization is None else quantization.table("details")
        if quantization is None or details is None:
            return None
        companions = {
            companion.index: tensors.of_native[companion] for companion in tensor.native.companions
        }
        numbers = {
            name: details.integer(name) for name in ("scales", "zero_points") if details.has(name)
        }
        return edit(
            quantization,
            details=edit(details, **{name: companions.get(n, n) for name, n in numbers.items()}),
        )

    def _operator(self, node: Node, tensors: Tensors) -> Table | Edit:
        native: OperatorNative | None = node.native
        fields: dict[str, FieldValue] = {
            "opcode_index": self.numbers.codes[code_key(node)],
            "inputs": _indices(node.inputs, tensors),
            "outputs": _indices(node.outputs, tensors),
        }
        if native is None:
            return new("Operator", **fields)
        if native.intermediates:
            fields["intermediates"] = [
                -1 if item is None else tensors.of_native[item] for item in native.intermediates
            ]
        if node.callees:
            fields.update(self._calls(node, native.table))
        if native.large_options is not None:
            fields["large_custom_options_offset"] = Payload(native.large_options)
        return _edit_vectors(native.table, fields)

    def _calls(self, node: Node, table: Table) -> dict[str, FieldValue]:
        """The options of an operator, with the new numbers of the subgraphs that it calls."""
        numbers = [self.numbers.graphs[callee] for callee in node.callees]
        fields: dict[str, FieldValue] = {}
        for union in ("builtin_options", "builtin_options2"):
            options = table.table(union)
            changed: dict[str, FieldValue] = {}
            for name in CALLS.get(options.layout.name, ()) if options is not None else ():
                assert options is not None
                count = (
                    len(options.numbers(name))
                    if options.layout.fields[name].kind == "numbers"
                    else None
                )
                changed[name] = (
                    numbers.pop(0) if count is None else [numbers.pop(0) for _ in range(count)]
                )
            if options is not None and changed:
                fields[union] = edit(options, **changed)
        return fields

    # -- signatures ---------------------------------------------------------------------------------------------

    def _signatures(self) -> list[Table | Edit]:
        source = self.native.table.tables("signature_defs")
        if self.whole:
            return [signature for table in source for signature in self._whole_signature(table)]
        own = [
            table for table in source if table.integer("subgraph_index") == self.entry.native.index
        ]
        tensors = self.numbers.tensors[self.entry]
        return [
            new(
                "SignatureDef",
                signature_key=table.text("signature_key")
                if table is not None
                else DEFAULT_SIGNATURE,
                inputs=_tensor_maps(
                    self.entry.inputs, tensors, table.tables("inputs") if table is not None else ()
                ),
                outputs=_tensor_maps(
                    self.entry.outputs,
                    tensors,
                    table.tables("outputs") if table is not None else (),
                ),
                subgraph_index=self.numbers.graphs[self.entry],
            )
            for table in own or [None]
        ]

    def _whole_signature(self, table: Table) -> Iterable[Edit]:
        """The signature with new numbers; none when its subgraph is gone."""
        index = table.integer("subgraph_index")
        graph = next((graph for graph in self.graphs if graph.native.index == index), None)
        if graph is None:
            return
        tensors: dict[int, int] = {
            native.index: number for native, number in self.numbers.tensors[graph].of_native.items()
        }
        maps: dict[str, FieldValue] = {
            name: [
                edit(item, tensor_index=tensors[item.integer("tensor_index")])
                for item in table.tables(name)
                if item.integer("tensor_index") in tensors
            ]
            for name in ("inputs", "outputs")
        }
        yield _edit_vectors(table, {**maps, "subgraph_index": self.numbers.graphs[graph]})


def _tensor_maps(values: Sequence[Value], tensors: Tensors, source: Iterable[Table]) -> list[Edit]:
    """Names for the inputs or outputs of a segment: what the source's signature calls them, or the tensors' names."""
    keys: dict[int, list[str]] = {}
    for item in source:
        keys.setdefault(item.integer("tensor_index"), []).append(item.text("name") or "")
    maps: list[Edit] = []
    taken: set[str] = set()
    for value in dict.fromkeys(values):
        known = keys.get(value.native.index, []) if value.native is not None else []
        for key in known or [""]:
            key = key or value.name
            while key in taken:
                key += "_"
            taken.add(key)
            maps.append(new("TensorMap", name=key, tensor_index=tensors.of_value[value]))
    return maps


def _indices(values: Iterable[Value | None], tensors: Tensors) -> list[int]:
    return [-1 if value is None else tensors.of_value[value] for value in values]


def _edit_vectors(table: Table, fields: dict[str, FieldValue]) -> Edit:
    """The table with new fields; an empty vector that the source does not have stays absent."""
    kept = {name: value for name, value in fields.items() if value != [] or table.has(name)}
    return edit(table, **kept)
