"""Types and quantization annotations of values, for the output."""

from collections.abc import Iterable, Mapping

from irsplit.dialects.onnx import operators, schema
from irsplit.dialects.onnx.source import Annotation, SourceGraph, SourceNode
from irsplit.dialects.onnx.typeinfo import read_type, value_info
from irsplit.dialects.onnx.wire import ProtoField, ProtoMessage, last_fields
from irsplit.ir import Buffer, Graph, Type, Value


class ValueInfos:
    """Adds ValueInfoProtos to graphs, as the source has them wherever they are still true.

    Args:
        buffer: The source.
        is_segment: Whether to leave out what the graph does not use.
    """

    def __init__(self, buffer: Buffer, is_segment: bool) -> None:
        self._buffer = buffer
        self._is_segment = is_segment

    def add_declared(
        self,
        message: ProtoMessage,
        key: int,
        values: Iterable[Value],
        source: SourceGraph,
        declared: Mapping[str, ProtoField],
    ) -> None:
        """Add graph inputs or outputs.

        Args:
            message: The GraphProto to add them to.
            key: The key of the fields.
            values: The inputs or outputs.
            source: The graph in the source.
            declared: How the source declares them, by name.
        """
        for value in values:
            field = declared.get(value.name)
            # A pass may have changed the type, or the value had another role in the source.
            if field is None or value.type != source.types.get(value.name):
                field = self._equal_info(value, source)
            if field is None:
                message.message(key, value_info(value.name, value.type))
            else:
                message.payload(key, self._buffer, field.start, field.stop)

    def _equal_info(self, value: Value, source: SourceGraph) -> ProtoField | None:
        """A ValueInfoProto of the source with the value's type, whatever its role there."""
        for declared in (source.inputs, source.outputs, source.value_info):
            field = declared.get(value.name)
            if field is not None and self._declared_type(field) == value.type:
                return field
        return None

    def _declared_type(self, message: ProtoField) -> Type | None:
        """The type in a ValueInfoProto."""
        data = self._buffer.view
        field = last_fields(data, message.start, message.stop).get(schema.INFO_TYPE)
        return None if field is None else read_type(data, field.start, field.stop)

    def add_inner(self, message: ProtoMessage, graph: Graph, source: SourceGraph) -> None:
        """Add the types of values inside of a graph.

        These are the types that the source says, and those of results that no inference knows,
        because a pass made their nodes. Types of no value at all stay in a whole model only.
        """
        # In a segment, inputs and outputs have types of their own.
        inner = {value.name: value for value in graph.values()}
        if self._is_segment:
            for value in (*graph.inputs, *graph.outputs):
                inner.pop(value.name, None)

        for name, field in source.value_info.items():
            value = inner.get(name)
            if value is None and (self._is_segment or name in source.types):
                continue

            if value is None or value.type == source.types[name]:
                message.span(self._buffer, field.head, field.stop)
            else:
                message.message(schema.GRAPH_VALUE_INFO, value_info(name, value.type))

        self.add_declared(message, schema.GRAPH_VALUE_INFO, _unknown_results(graph), source, {})

    def annotations(self, graph: Graph, source: SourceGraph) -> list[Annotation]:
        """List the quantization annotations to write.

        Those of the graph's values are written, and in a whole model also those of no value at all.
        """
        if not source.annotations:
            return []

        names = {value.name for value in graph.values()}
        kept: list[Annotation] = []

        for annotation in source.annotations:
            # An orphan belongs to no value of the source: nothing says which segment needs it.
            is_orphan = annotation.tensor not in source.types
            if annotation.tensor in names or (is_orphan and not self._is_segment):
                kept.append(annotation)

        return kept

    def parameters(self, graph: Graph, source: SourceGraph) -> list[ProtoField]:
        """List initializers that only annotations mention: a segment may have lost them."""
        annotations = self.annotations(graph, source)
        if not annotations:
            return []

        names = {value.name for value in graph.values()}
        missing: dict[str, ProtoField] = {}

        for annotation in annotations:
            for name in annotation.parameters:
                if name in source.initializers and name not in names:
                    missing[name] = source.initializers[name]

        return list(missing.values())


def _unknown_results(graph: Graph) -> list[Value]:
    """Results of nodes that passes made, with operators that no inference knows.

    Outputs of the graph are left out: they have types anyway.
    """
    results: list[Value] = []
    for node in graph.nodes:
        if isinstance(node.native, SourceNode) or not operators.is_unknown(node.op):
            continue

        for value in node.outputs:
            if value is not None and value not in graph.outputs:
                results.append(value)

    return results
