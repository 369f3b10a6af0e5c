"""From the IR to a .tflite file: the source's tables with new wiring, and only what is used."""

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

INLINE_LIMIT = (1 << 31) - (1 << 24)
"""Offsets of a flatbuffer are signed 32-bit numbers. If the weights exceed this, they are placed
behind the flatbuffer, where `Buffer.offset` refers to them."""
SMALL_BYTES = 64
"""Buffers up to this size are not worth an offset, and stay inside the flatbuffer."""
POSITIONAL_METADATA = ("TFLITE_METADATA", "OfflineMemoryAllocation")
"""Metadata that names tensors by their position, and so would be wrong in a segment."""
DEFAULT_SIGNATURE = "serving_default"


def write_model(model: Model, graph: Graph, path: Path, options: WriteOptions) -> list[Path]:
    """Write a graph as the entry of a file of its own.

    A segment gets exactly the tensors, buffers, operator codes and callees that it uses. A graph
    that is not a segment stands for the whole model: everything is written, also what nothing
    refers to, other signatures with their subgraphs, all metadata, and what follows the flatbuffer
    in the source file (associated files).

    Args:
        model: A model that this dialect has read.
        graph: A segment (after `engine_graph`), or the model's entry.
        path: The file to write, which appears whole or not at all.
        options: Where the weights go.

    Returns:
        The files that were written, which is `path` alone.

    Raises:
        ModelError: The file cannot be written.
        UnsupportedError: TFLite cannot express what a pass has added.
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
    """What follows the flatbuffer and its payloads in the source file."""
    native: ModelNative = model.native
    payloads = [span for span in native.contents if span is not None]
    for graph in model.graphs:
        for node in graph.nodes:
            if node.native is not None and node.native.large_options is not None:
                payloads.append(node.native.large_options)
    return find_trailer(native.table, payloads)


def _graphs(model: Model, graph: Graph) -> list[Graph]:
    """The graphs to write in the order of the file.

    A segment comes before what it calls; the whole model keeps the order of the source.
    """
    if graph.placement is not None:
        entry = with_initialisers(graph)
        return [entry, *sorted(called_graphs([entry])[1:], key=_index)]
    entry = graph if has_initialisers(graph) else with_initialisers(graph)
    others = (other for other in model.graphs if other.native is not graph.native)
    return sorted(called_graphs([entry, *others]), key=_index)


def _index(graph: Graph) -> int:
    return graph.native.index


class _Writer:
    """Makes the tables of the new file, as edits of those of the source."""

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
        self.inline = self._inline_buffers(attached, options)

    def _inline_buffers(self, attached: Iterable[int], options: WriteOptions) -> set[BufferKey]:
        """The buffers that stay inside the flatbuffer: all, or only those of metadata.

        Engines look for metadata inside the flatbuffer only.
        """
        weights = 0
        for key in self.numbers.buffers:
            constant = self.numbers.constants.get(key)
            weights += 0 if constant is None else constant.length

        limit = INLINE_LIMIT
        if options.external_over is not None:
            limit = min(options.external_over, INLINE_LIMIT)
        return set(attached if weights > limit else self.numbers.buffers)

    def model(self) -> Edit:
        """The root table."""
        fields: dict[str, FieldValue] = {
            "operator_codes": [self._operator_code(key) for key in self.numbers.codes],
            "subgraphs": [self._subgraph(graph) for graph in self.graphs],
            "buffers": [self._buffer(key) for key in self.numbers.buffers],
            "metadata": [self._metadata(table) for table in self.metadata],
            "signature_defs": self._signatures(),
        }
        if self.native.table.has("external_buffers"):
            # Their weights are inside now.
            fields |= {"external_buffers": None, "external_buffer_groups": None}
        legacy = self.native.table.numbers("metadata_buffer")
        fields["metadata_buffer"] = [
            self.numbers.buffers[key] for key in legacy if key in self.numbers.buffers
        ]
        return _edit_vectors(self.native.table, fields)

    def _operator_code(self, key: CodeKey) -> Table | Edit:
        return self.native.codes[key] if isinstance(key, int) else new_operator_code(key)

    def _buffer(self, key: BufferKey) -> Table | Edit:
        constant = self.numbers.constants.get(key)
        if key == 0 and constant is not None and not self.whole:
            return new("Buffer")

        source: Table | None = None
        if isinstance(key, int) and key < len(self.native.buffers):
            source = self.native.buffers[key]
        if constant is None:
            return source or new("Buffer")

        fields: dict[str, FieldValue] = {"data": Payload(constant), "offset": None, "size": None}
        if key not in self.inline and constant.length > SMALL_BYTES:
            fields = {"data": None, "offset": Payload(constant), "size": constant.length}
        return edit(source, **fields) if source is not None else new("Buffer", **fields)

    def _metadata(self, table: Table) -> Table | Edit:
        number = self.numbers.buffers[table.integer("buffer")]
        return table if number == table.integer("buffer") else edit(table, buffer=number)

    # -- subgraphs ----------------------------------------------------------------------------

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
        fields: dict[str, FieldValue] = {}
        if buffer != table.integer("buffer"):
            fields["buffer"] = buffer
        if tensor.native.is_external:
            fields["external_buffer"] = None
        if tensor.native.companions:
            fields["quantization"] = self._quantization(tensor, tensors)
        return edit(table, **fields) if fields else table

    def _quantization(self, tensor: NumberedTensor, tensors: Tensors) -> Edit | None:
        """The quantization of blocks, which names the tensors with scales and zero points."""
        assert tensor.native is not None
        quantization = tensor.native.table.table("quantization")
        details = None if quantization is None else quantization.table("details")
        if quantization is None or details is None:
            return None

        new_numbers = {
            companion.index: tensors.of_native[companion] for companion in tensor.native.companions
        }
        changed: dict[str, FieldValue] = {}
        for name in ("scales", "zero_points"):
            if details.has(name):
                number = details.integer(name)
                changed[name] = new_numbers.get(number, number)
        return edit(quantization, details=edit(details, **changed))

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
            if options is None:
                continue

            changed: dict[str, FieldValue] = {}
            for name in CALLS.get(options.layout.name, ()):
                if options.layout.fields[name].kind == "numbers":
                    count = len(options.numbers(name))
                    changed[name], numbers = numbers[:count], numbers[count:]
                else:
                    changed[name] = numbers.pop(0)
            if changed:
                fields[union] = edit(options, **changed)
        return fields

    # -- signatures ---------------------------------------------------------------------------

    def _signatures(self) -> list[Table | Edit]:
        """The signatures of the whole model, or those of the segment's subgraph."""
        source = self.native.table.tables("signature_defs")
        if self.whole:
            whole = [self._whole_signature(table) for table in source]
            return [signature for signature in whole if signature is not None]

        index = self.entry.native.index
        own = [table for table in source if table.integer("subgraph_index") == index]
        if not own:
            return [self._segment_signature(DEFAULT_SIGNATURE, (), ())]
        return [
            self._segment_signature(
                table.text("signature_key"), table.tables("inputs"), table.tables("outputs")
            )
            for table in own
        ]

    def _segment_signature(
        self, key: str | None, inputs: Iterable[Table], outputs: Iterable[Table]
    ) -> Edit:
        """A signature for the segment; `inputs` and `outputs` are the names that the source has."""
        tensors = self.numbers.tensors[self.entry]
        return new(
            "SignatureDef",
            signature_key=key,
            inputs=_tensor_maps(self.entry.inputs, tensors, inputs),
            outputs=_tensor_maps(self.entry.outputs, tensors, outputs),
            subgraph_index=self.numbers.graphs[self.entry],
        )

    def _whole_signature(self, table: Table) -> Edit | None:
        """A signature of the whole model with new numbers; None if its subgraph is gone."""
        index = table.integer("subgraph_index")
        graph = next((graph for graph in self.graphs if graph.native.index == index), None)
        if graph is None:
            return None

        tensors: dict[int, int] = {
            native.index: number for native, number in self.numbers.tensors[graph].of_native.items()
        }
        fields: dict[str, FieldValue] = {}
        for name in ("inputs", "outputs"):
            maps: list[Table | Edit] = []
            for item in table.tables(name):
                number = tensors.get(item.integer("tensor_index"))
                if number is not None:
                    maps.append(edit(item, tensor_index=number))
            fields[name] = maps
        fields["subgraph_index"] = self.numbers.graphs[graph]
        return _edit_vectors(table, fields)


def _tensor_maps(values: Sequence[Value], tensors: Tensors, source: Iterable[Table]) -> list[Edit]:
    """Names for the inputs or outputs of a segment, all different.

    Args:
        values: The inputs or outputs.
        tensors: The tensors of the segment.
        source: The names that the source's signature has, by tensor. A value without one there gets
            the name of its tensor.
    """
    keys: dict[int, list[str]] = {}
    for item in source:
        keys.setdefault(item.integer("tensor_index"), []).append(item.text("name") or "")

    maps: list[Edit] = []
    taken: set[str] = set()
    for value in dict.fromkeys(values):
        names = keys.get(value.native.index, []) if value.native is not None else []
        for name in names or [value.name]:
            key = name or value.name
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
