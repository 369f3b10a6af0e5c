"""IR to ModelProto: spans of the source, with new bytes only where a pass changed something."""

from collections.abc import Iterable, Iterator, Mapping
from logging import getLogger
from pathlib import Path

from irsplit.base.errors import UnsupportedError
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.onnx import operators, schema
from irsplit.dialects.onnx.attributes import attribute_message
from irsplit.dialects.onnx.blocks import BlockWriter
from irsplit.dialects.onnx.source import Annotation, SourceGraph, SourceModel, SourceNode
from irsplit.dialects.onnx.tensors import SPARSE
from irsplit.dialects.onnx.typeinfo import read_type, value_info
from irsplit.dialects.onnx.weights import Weights
from irsplit.dialects.onnx.wire import ProtoField, ProtoMessage, ProtoSpan, fields, read_text
from irsplit.ir import Buffer, Graph, Model, Node, Type, Value, walk

_log = getLogger("irsplit")

_LARGE = 1 << 28
"""Weights that come from a data file go into one where the model would be larger with them: between files with the same
alignment the kernel copies whole pages, and engines map them."""
_OLD_INITIALIZERS = 4
"""Before this IR version every initializer must be a graph input too."""


def write_model(model: Model, graph: Graph, path: Path, options: WriteOptions) -> list[Path]:
    """Write `graph` as a model file: a segment with only what it uses, a whole model with everything."""
    limit = _inline_limit(model, graph, options)
    weights = Weights(shared=options.share_weights)
    message = ModelWriter(model, graph, weights).model()
    if message.size > limit:
        weights = Weights(f"{path.name}.data", options.share_weights)
        message = ModelWriter(model, graph, weights).model()
    if message.size > schema.SIZE_LIMIT:
        raise UnsupportedError(
            f"{path}: {message.size} bytes remain in the model without its initializers, and protobuf allows "
            f"{schema.SIZE_LIMIT}; turn its large Constant nodes into initializers, or cut into more segments"
        )
    _refuse_overwriting([path, path.with_name(f"{path.name}.data")], model.native.buffer, graph)
    with BlockWriter(path) as file:
        file.message(message)
    return [path, *weights.finish(path.parent)]


def _inline_limit(model: Model, graph: Graph, options: WriteOptions) -> int:
    """Bytes up to which a model has its weights inside."""
    if options.external_over is not None:
        return min(options.external_over, schema.SIZE_LIMIT)
    buffers = {value.constant.buffer for value in graph.values() if value.constant is not None}
    beside = any(
        buffer.path is not None and buffer is not model.native.buffer for buffer in buffers
    )
    return _LARGE if beside else schema.SIZE_LIMIT


def _refuse_overwriting(targets: list[Path], source: Buffer, graph: Graph) -> None:
    buffers = {
        source,
        *(value.constant.buffer for value in graph.values() if value.constant is not None),
    }
    for path in targets:
        for buffer in buffers:
            if buffer.path is not None and path.exists() and path.samefile(buffer.path):
                raise UnsupportedError(
                    f"{path}: cannot overwrite the file that the model is read from; give another path"
                )


class ModelWriter:
    """One model on its way out; subclasses leave things out."""

    def __init__(self, model: Model, graph: Graph, weights: Weights) -> None:
        assert isinstance(model.native, SourceModel), "the model was not read by the ONNX dialect"
        self.model_graphs = model.graphs
        self.source = model.native
        self.entry = graph
        self.is_segment = graph.placement is not None
        self.weights = weights

    # -- model --------------------------------------------------------------------------------------------------

    def model(self) -> ProtoMessage:
        message, buffer = ProtoMessage(), self.source.buffer
        functions = self.functions()
        domains = self.domains(functions)
        definitions = iter(self.source.functions.values())
        for field in self.source.fields:
            match field.key:
                case schema.MODEL_GRAPH:
                    message.message(field.key, self.graph(self.entry))
                case schema.MODEL_FUNCTION:
                    function = next(definitions)
                    if function in functions:
                        message.message(field.key, self.function(function))
                case schema.MODEL_OPSET if self.opset_domain(field) not in domains:
                    pass
                case schema.MODEL_TRAINING if self.is_segment:
                    _log.warning(
                        "%s: training information stays with the whole model; segments do not get it",
                        buffer.name,
                    )
                case _:
                    message.span(buffer, field.head, field.stop)
        for domain in self.new_domains():
            opset = ProtoMessage()
            opset.text(schema.OPSET_DOMAIN, domain)
            opset.number(schema.OPSET_VERSION, 1)
            message.message(schema.MODEL_OPSET, opset)
        return message

    def new_domains(self) -> list[str]:
        """Domains that only nodes made by passes use: the first version of each."""
        known = {operators.plain_domain(domain) for domain in self.source.opsets}
        made = (node for node in walk(self.entry) if not isinstance(node.native, SourceNode))
        return sorted({operators.domain(node) for node in made} - known)

    def functions(self) -> set[Graph]:
        """The functions to write: for a segment those that it calls, directly or through others."""
        if not self.is_segment:
            return set(self.model_graphs)
        called: set[Graph] = set()
        pending = [self.entry]
        while pending:
            for node in walk(pending.pop()):
                fresh = [graph for graph in node.callees if graph not in called]
                called.update(fresh)
                pending.extend(fresh)
        return called

    def domains(self, functions: Iterable[Graph]) -> set[str]:
        """Domains to import: for a segment those of its operators, and the default one, which others build upon."""
        if not self.is_segment:
            return {operators.plain_domain(domain) for domain in self.source.opsets}
        graphs = [self.entry, *functions]
        return {"", *(operators.domain(node) for graph in graphs for node in walk(graph))}

    def opset_domain(self, message: ProtoField) -> str:
        data = self.source.buffer.view
        for field in fields(data, message.start, message.stop):
            if field.key == schema.OPSET_DOMAIN:
                return operators.plain_domain(read_text(data, field.start, field.stop))
        return ""

    def function(self, graph: Graph) -> ProtoMessage:
        source: SourceGraph = graph.native
        message = ProtoMessage()
        for key in source.order:
            if key == schema.FUNCTION_NODE:
                self.nodes(message, key, graph, source)
            self.rest(message, key, source)
        return message

    # -- graphs -------------------------------------------------------------------------------------------------

    def graph(self, graph: Graph) -> ProtoMessage:
        source: SourceGraph = graph.native or SourceGraph()
        message = ProtoMessage()
        constants = self.constants(graph, source)
        for key in dict.fromkeys((*source.order, *_GRAPH_KEYS)):
            match key:
                case schema.GRAPH_NODE:
                    self.nodes(message, key, graph, source)
                case schema.GRAPH_INITIALIZER:
                    for value in constants:
                        if value.constant and value.constant.encoding != SPARSE:
                            self.initializer(message, value, source)
                    for field in self.parameters(graph, source):
                        message.span(self.source.buffer, field.head, field.stop)
                case schema.GRAPH_SPARSE:
                    for value in constants:
                        if value.constant and value.constant.encoding == SPARSE:
                            constant = value.constant
                            message.payload(
                                key,
                                constant.buffer,
                                constant.offset,
                                constant.offset + constant.length,
                            )
                case schema.GRAPH_INPUT:
                    self.infos(message, key, self.inputs(graph, source), source, source.inputs)
                case schema.GRAPH_OUTPUT:
                    self.infos(message, key, self.outputs(graph), source, source.outputs)
                case schema.GRAPH_VALUE_INFO:
                    self.value_infos(message, graph, source)
                case schema.GRAPH_ANNOTATION:
                    for annotation in self.annotations(graph, source):
                        message.span(
                            self.source.buffer, annotation.message.head, annotation.message.stop
                        )
                case _:
                    self.rest(message, key, source)
        return message

    def initializer(self, message: ProtoMessage, value: Value, source: SourceGraph) -> None:
        if self.weights.is_verbatim(value, self.origin(value, source)):
            field = source.initializers[value.name]
            message.span(self.source.buffer, field.head, field.stop)
        else:
            message.message(
                schema.GRAPH_INITIALIZER, self.weights.tensor(value, self.origin(value, source))
            )

    def constants(self, graph: Graph, source: SourceGraph) -> list[Value]:
        """Constants and defaults in the source's order, new ones last."""
        given = {
            value.name: value
            for value in (*graph.constants, *graph.inputs)
            if value.constant is not None
        }
        known = [
            given.pop(name) for name in (*source.initializers, *source.sparse) if name in given
        ]
        return [*known, *given.values()]

    def origin(self, value: Value, source: SourceGraph) -> ProtoSpan | None:
        field = source.initializers.get(value.name) or source.sparse.get(value.name)
        return None if field is None else ProtoSpan(self.source.buffer, field.start, field.stop)

    def inputs(self, graph: Graph, source: SourceGraph) -> list[Value]:
        """Graph inputs, and in old models the constants; not those that the source, against the rules, did not list."""
        if graph is not self.entry or self.source.ir_version >= _OLD_INITIALIZERS:
            return graph.inputs
        unlisted = source.initializers.keys() - source.inputs.keys()
        return [*graph.inputs, *(value for value in graph.constants if value.name not in unlisted)]

    def outputs(self, graph: Graph) -> list[Value]:
        return graph.outputs

    def infos(
        self,
        message: ProtoMessage,
        key: int,
        values: Iterable[Value],
        source: SourceGraph,
        declared: Mapping[str, ProtoField],
    ) -> None:
        """Graph inputs or outputs: as the source declared them, or with the type that is known now."""
        for value in values:
            field = declared.get(value.name)
            if field is None or value.type != source.types.get(value.name):
                field = self.equal_info(value, source)
            if field is None:
                message.message(key, value_info(value.name, value.type))
            else:
                message.payload(key, self.source.buffer, field.start, field.stop)

    def equal_info(self, value: Value, source: SourceGraph) -> ProtoField | None:
        """A ValueInfoProto of the source, whatever its role there, that says the very type of the value."""
        for declared in (source.inputs, source.outputs, source.value_info):
            field = declared.get(value.name)
            if field is not None and self.declared_type(field) == value.type:
                return field
        return None

    def declared_type(self, message: ProtoField) -> Type | None:
        data = self.source.buffer.view
        for field in fields(data, message.start, message.stop):
            if field.key == schema.INFO_TYPE:
                return read_type(data, field.start, field.stop)
        return None

    def value_infos(self, message: ProtoMessage, graph: Graph, source: SourceGraph) -> None:
        """Types of inner values: those that the source says, and of what new operators give that no inference knows.

        What the source says of no value at all stays in a whole model only.
        """
        inner = {value.name: value for value in graph.values()}
        if self.is_segment:
            for value in (*graph.inputs, *graph.outputs):
                inner.pop(value.name, None)
        for name, field in source.value_info.items():
            value = inner.get(name)
            if value is None and (self.is_segment or name in source.types):
                continue
            if value is None or value.type == source.types[name]:
                message.span(self.source.buffer, field.head, field.stop)
            else:
                message.message(schema.GRAPH_VALUE_INFO, value_info(name, value.type))
        self.infos(message, schema.GRAPH_VALUE_INFO, _unknown_results(graph), source, {})

    def annotations(self, graph: Graph, source: SourceGraph) -> list[Annotation]:
        """Quantization annotations of the graph's values; a whole model also keeps those of no value at all."""
        names = {value.name for value in graph.values()} if source.annotations else set[str]()
        whole = not self.is_segment
        return [
            each
            for each in source.annotations
            if each.tensor in names or (whole and each.tensor not in source.types)
        ]

    def parameters(self, graph: Graph, source: SourceGraph) -> list[ProtoField]:
        """Initializers that only annotations mention: a segment may have lost them."""
        annotations = self.annotations(graph, source)
        names = {value.name for value in graph.values()} if annotations else set[str]()
        wanted = dict.fromkeys(name for annotation in annotations for name in annotation.parameters)
        return [
            source.initializers[name]
            for name in wanted
            if name in source.initializers and name not in names
        ]

    def rest(self, message: ProtoMessage, key: int, source: SourceGraph) -> None:
        for field in source.rest:
            if field.key == key:
                message.span(self.source.buffer, field.head, field.stop)

    # -- nodes --------------------------------------------------------------------------------------------------

    def nodes(self, message: ProtoMessage, key: int, graph: Graph, source: SourceGraph) -> None:
        nodes = graph.nodes if self.is_segment else _source_order(graph.nodes, source)
        for node in nodes:
            if self.is_untouched(node):
                native: SourceNode = node.native
                message.span(native.buffer, native.message.head, native.message.stop)
            else:
                message.message(key, self.node(node))

    def is_untouched(self, node: Node) -> bool:
        """Whether the NodeProto of the source still says the truth about the node, bodies included."""
        native = node.native
        return (
            isinstance(native, SourceNode)
            and native.inputs == _names(node.inputs)
            and native.outputs == _names(node.outputs)
            and all(self.is_untouched_body(body) for body in node.graphs)
        )

    def is_untouched_body(self, graph: Graph) -> bool:
        source = graph.native
        if not isinstance(source, SourceGraph):
            return False
        constants = self.constants(graph, source)
        return (
            source.node_count
            == len({node.native.position for node in graph.nodes if self.is_untouched(node)})
            and source.node_count == len(graph.nodes)
            and source.input_names == _names(graph.inputs)
            and source.output_names == _names(graph.outputs)
            and all(value.type == source.types.get(value.name) for value in graph.values())
            and all(
                self.weights.is_verbatim(value, self.origin(value, source)) for value in constants
            )
            and len(constants) == len(source.initializers) + len(source.sparse)
        )

    def node(self, node: Node) -> ProtoMessage:
        """A NodeProto with the wiring of the IR and everything else as it was."""
        message = ProtoMessage()
        message.texts(schema.NODE_INPUT, _names(node.inputs))
        message.texts(schema.NODE_OUTPUT, _names(node.outputs))
        if not isinstance(node.native, SourceNode):
            self.new_node(message, node)
            return message
        buffer, bodies = node.native.buffer, iter(node.graphs)
        for field in fields(buffer.view, node.native.message.start, node.native.message.stop):
            if field.key == schema.NODE_ATTRIBUTE and node.graphs:
                message.message(field.key, self.attribute(buffer, field, bodies))
            elif field.key not in (schema.NODE_INPUT, schema.NODE_OUTPUT):
                message.span(buffer, field.head, field.stop)
        return message

    def attribute(
        self, buffer: Buffer, message: ProtoField, bodies: Iterator[Graph]
    ) -> ProtoMessage:
        rebuilt = ProtoMessage()
        for field in fields(buffer.view, message.start, message.stop):
            if field.key in schema.ATTRIBUTE_BODIES:
                rebuilt.message(field.key, self.graph(next(bodies)))
            else:
                rebuilt.span(buffer, field.head, field.stop)
        return rebuilt

    def new_node(self, message: ProtoMessage, node: Node) -> None:
        """The rest of a node that a pass made: name, operator, attributes."""
        message.text(schema.NODE_NAME, node.name)
        message.text(schema.NODE_OP, node.op.rpartition(".")[2])
        for name, value in node.attributes.items():
            message.message(schema.NODE_ATTRIBUTE, attribute_message(name, value))
        message.text(schema.NODE_DOMAIN, operators.domain(node))


_GRAPH_KEYS = (
    schema.GRAPH_NODE,
    schema.GRAPH_INITIALIZER,
    schema.GRAPH_INPUT,
    schema.GRAPH_OUTPUT,
    schema.GRAPH_VALUE_INFO,
    schema.GRAPH_ANNOTATION,
    schema.GRAPH_SPARSE,
)


def _names(values: Iterable[Value | None]) -> tuple[str, ...]:
    return tuple(["" if value is None else value.name for value in values])


def _unknown_results(graph: Graph) -> list[Value]:
    """What nodes that passes made give, where no inference knows their operators; outputs of the graph have types."""
    made = [
        node
        for node in graph.nodes
        if not isinstance(node.native, SourceNode) and operators.is_unknown(node.op)
    ]
    results = [value for node in made for value in node.outputs if value is not None]
    return [value for value in results if value not in graph.outputs]


def _source_order(nodes: list[Node], source: SourceGraph) -> list[Node]:
    """The order of the source, which need not be topological, when these are exactly its nodes."""
    indices = [node.native.position for node in nodes if isinstance(node.native, SourceNode)]
    if (
        len(indices) != len(nodes)
        or len(indices) != source.node_count
        or len(set(indices)) != len(indices)
    ):
        return nodes
    return sorted(nodes, key=lambda node: node.native.position)
