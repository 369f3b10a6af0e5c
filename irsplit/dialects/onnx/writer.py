"""IR to ModelProto: spans of the source, with new bytes only where a pass changed something.

A segment gets only what it uses. A whole model gets everything that the source has, in the order of
the source, so that an untouched model comes out byte for byte.
"""

from collections.abc import Iterable, Iterator
from logging import getLogger
from pathlib import Path

from irsplit.base.errors import UnsupportedError
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.onnx import operators, schema
from irsplit.dialects.onnx.attributes import attribute_message
from irsplit.dialects.onnx.blocks import BlockWriter
from irsplit.dialects.onnx.source import SourceGraph, SourceModel, SourceNode
from irsplit.dialects.onnx.tensors import SPARSE
from irsplit.dialects.onnx.value_infos import ValueInfos
from irsplit.dialects.onnx.weights import Weights
from irsplit.dialects.onnx.wire import (
    ProtoField,
    ProtoMessage,
    ProtoSpan,
    fields,
    last_fields,
    text_of,
)
from irsplit.ir import Buffer, Graph, Model, Node, Value, walk

_log = getLogger("irsplit")

_LARGE = 1 << 28
"""Most bytes of a model with weights that come from a data file; larger ones get a data file too.

Between data files with the same alignment the kernel copies whole pages, and engines map them.
"""

_OLD_INITIALIZERS = 4
"""Before this IR version every initializer must be a graph input too."""

_GRAPH_KEYS = (
    schema.GRAPH_NODE,
    schema.GRAPH_INITIALIZER,
    schema.GRAPH_INPUT,
    schema.GRAPH_OUTPUT,
    schema.GRAPH_VALUE_INFO,
    schema.GRAPH_ANNOTATION,
    schema.GRAPH_SPARSE,
)
"""Fields that a graph may need although its source has none of them."""


def write_model(model: Model, graph: Graph, path: Path, options: WriteOptions) -> list[Path]:
    """Write a graph as a model file.

    Args:
        model: The model, which the ONNX dialect has read.
        graph: A segment, or the entry of the whole model.
        path: The file to write; a data file gets its name with ".data" behind.
        options: How to store the weights.

    Returns:
        The files that were written, the model first.

    Raises:
        UnsupportedError: The model is too large even without its weights, or a file would
            overwrite its own source.
    """
    # Try with the weights inside first: the size is known before anything is written.
    limit = _inline_limit(model, graph, options)
    weights = Weights(shared=options.share_weights)
    message = ModelWriter(model, graph, weights).model()
    if message.size > limit:
        weights = Weights(f"{path.name}.data", options.share_weights)
        message = ModelWriter(model, graph, weights).model()
    if message.size > schema.SIZE_LIMIT:
        raise UnsupportedError(
            f"{path}: {message.size} bytes remain in the model without its initializers, and "
            f"protobuf allows {schema.SIZE_LIMIT}; turn its large Constant nodes into "
            "initializers, or cut into more segments"
        )

    targets = [path, path.with_name(f"{path.name}.data")]
    _refuse_overwriting(targets, [model.native.buffer, *_buffers(graph)])

    with BlockWriter(path) as file:
        file.message(message)

    return [path, *weights.finish(path.parent)]


def _inline_limit(model: Model, graph: Graph, options: WriteOptions) -> int:
    """Bytes up to which a model has its weights inside."""
    if options.external_over is not None:
        return min(options.external_over, schema.SIZE_LIMIT)
    from_data_file = any(
        buffer.path is not None and buffer is not model.native.buffer for buffer in _buffers(graph)
    )
    return _LARGE if from_data_file else schema.SIZE_LIMIT


def _buffers(graph: Graph) -> set[Buffer]:
    """Where the graph's constants lie."""
    return {value.constant.buffer for value in graph.values() if value.constant is not None}


def _refuse_overwriting(targets: list[Path], sources: Iterable[Buffer]) -> None:
    """Raise UnsupportedError if a target is the file of a source."""
    existing = [path for path in targets if path.exists()]
    for buffer in sources:
        for path in existing:
            if buffer.path is not None and path.samefile(buffer.path):
                raise UnsupportedError(
                    f"{path}: cannot overwrite the file that the model is read from; give another "
                    "path"
                )


class ModelWriter:
    """Makes the ModelProto of one graph. Subclasses leave things out.

    Args:
        model: The model.
        graph: The graph that becomes the main graph of the file.
        weights: Decides where the initializers go.
    """

    def __init__(self, model: Model, graph: Graph, weights: Weights) -> None:
        assert isinstance(model.native, SourceModel), "the model was not read by the ONNX dialect"
        self.model_graphs = model.graphs
        self.source = model.native
        self.entry = graph
        self.is_segment = graph.placement is not None
        self.weights = weights
        self.value_infos = ValueInfos(model.native.buffer, self.is_segment)

    # -- model ------------------------------------------------------------------------------------

    def model(self) -> ProtoMessage:
        """Make the ModelProto."""
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
                # A segment does not import operator sets that it does not use.
                case schema.MODEL_OPSET if self.opset_domain(field) not in domains:
                    pass
                case schema.MODEL_TRAINING if self.is_segment:
                    _log.warning(
                        "%s: training information stays with the whole model; segments do not get "
                        "it",
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
        """Domains that only nodes made by passes use; they are imported in their first version."""
        imported = {operators.plain_domain(domain) for domain in self.source.opsets}
        made = (node for node in walk(self.entry) if not isinstance(node.native, SourceNode))
        return sorted({operators.domain(node) for node in made} - imported)

    def functions(self) -> set[Graph]:
        """The functions to write; a segment gets those that it calls, directly or not."""
        if not self.is_segment:
            return set(self.model_graphs)

        # Functions call functions, so the search goes on from each one that is found.
        called: set[Graph] = set()
        pending = [self.entry]

        while pending:
            for node in walk(pending.pop()):
                new = [graph for graph in node.callees if graph not in called]
                called.update(new)
                pending.extend(new)

        return called

    def domains(self, functions: Iterable[Graph]) -> set[str]:
        """The domains to import.

        A segment imports those of its operators, and the default one, which others build upon.
        """
        if not self.is_segment:
            return {operators.plain_domain(domain) for domain in self.source.opsets}

        domains = {""}

        for graph in (self.entry, *functions):
            domains.update(operators.domain(node) for node in walk(graph))

        return domains

    def opset_domain(self, message: ProtoField) -> str:
        """The domain of an OperatorSetIdProto."""
        data = self.source.buffer.view
        by_key = last_fields(data, message.start, message.stop)
        return operators.plain_domain(text_of(data, by_key.get(schema.OPSET_DOMAIN)))

    def function(self, graph: Graph) -> ProtoMessage:
        """Make a FunctionProto."""
        source: SourceGraph = graph.native
        message = ProtoMessage()
        for key in source.order:
            if key == schema.FUNCTION_NODE:
                self.nodes(message, key, graph, source)
            self.rest(message, key, source)
        return message

    # -- graphs -----------------------------------------------------------------------------------

    def graph(self, graph: Graph) -> ProtoMessage:
        """Make a GraphProto, with its fields in the order of the source."""
        source: SourceGraph = graph.native or SourceGraph()
        infos = self.value_infos
        message = ProtoMessage()
        constants = self.constants(graph, source)

        for key in dict.fromkeys((*source.order, *_GRAPH_KEYS)):
            match key:
                case schema.GRAPH_NODE:
                    self.nodes(message, key, graph, source)
                case schema.GRAPH_INITIALIZER:
                    self.initializers(message, constants, source)
                    for field in infos.parameters(graph, source):
                        message.span(self.source.buffer, field.head, field.stop)
                case schema.GRAPH_SPARSE:
                    self.sparse_initializers(message, constants)
                case schema.GRAPH_INPUT:
                    inputs = self.inputs(graph, source)
                    infos.add_declared(message, key, inputs, source, source.inputs)
                case schema.GRAPH_OUTPUT:
                    outputs = self.outputs(graph)
                    infos.add_declared(message, key, outputs, source, source.outputs)
                case schema.GRAPH_VALUE_INFO:
                    infos.add_inner(message, graph, source)
                case schema.GRAPH_ANNOTATION:
                    for annotation in infos.annotations(graph, source):
                        field = annotation.message
                        message.span(self.source.buffer, field.head, field.stop)
                case _:
                    self.rest(message, key, source)

        return message

    def initializers(
        self, message: ProtoMessage, constants: Iterable[Value], source: SourceGraph
    ) -> None:
        """Add the constants that are no sparse tensors."""
        for value in constants:
            if value.constant is None or value.constant.encoding == SPARSE:
                continue

            origin = self.origin(value, source)
            if self.weights.is_verbatim(value, origin):
                field = source.initializers[value.name]
                message.span(self.source.buffer, field.head, field.stop)
            else:
                message.message(schema.GRAPH_INITIALIZER, self.weights.tensor(value, origin))

    def sparse_initializers(self, message: ProtoMessage, constants: Iterable[Value]) -> None:
        """Add the constants that are sparse tensors."""
        for value in constants:
            constant = value.constant
            if constant is None or constant.encoding != SPARSE:
                continue
            stop = constant.offset + constant.length
            message.payload(schema.GRAPH_SPARSE, constant.buffer, constant.offset, stop)

    def constants(self, graph: Graph, source: SourceGraph) -> list[Value]:
        """Constants and default values in the order of the source, new ones last."""
        by_name = {
            value.name: value
            for value in (*graph.constants, *graph.inputs)
            if value.constant is not None
        }
        ordered: list[Value] = []

        for name in (*source.initializers, *source.sparse):
            if name in by_name:
                ordered.append(by_name.pop(name))

        return [*ordered, *by_name.values()]

    def origin(self, value: Value, source: SourceGraph) -> ProtoSpan | None:
        """The tensor of the source that has the name of this constant."""
        field = source.initializers.get(value.name) or source.sparse.get(value.name)
        return None if field is None else ProtoSpan(self.source.buffer, field.start, field.stop)

    def inputs(self, graph: Graph, source: SourceGraph) -> list[Value]:
        """Graph inputs, which in old models include the constants.

        Constants that the source, against the rules, did not list stay unlisted.
        """
        if graph is not self.entry or self.source.ir_version >= _OLD_INITIALIZERS:
            return graph.inputs
        # Such constants are initializers without an input of the same name.
        unlisted = source.initializers.keys() - source.inputs.keys()
        return [*graph.inputs, *(value for value in graph.constants if value.name not in unlisted)]

    def outputs(self, graph: Graph) -> list[Value]:
        """Graph outputs; a subclass may add some."""
        return graph.outputs

    def rest(self, message: ProtoMessage, key: int, source: SourceGraph) -> None:
        """Add the fields of the source with this key that the IR does not model."""
        for field in source.rest:
            if field.key == key:
                message.span(self.source.buffer, field.head, field.stop)

    # -- nodes ------------------------------------------------------------------------------------

    def nodes(self, message: ProtoMessage, key: int, graph: Graph, source: SourceGraph) -> None:
        """Add the nodes of a graph, untouched ones as they are in the source."""
        nodes = graph.nodes if self.is_segment else _source_order(graph.nodes, source)
        for node in nodes:
            if self.is_untouched(node):
                native: SourceNode = node.native
                message.span(native.buffer, native.message.head, native.message.stop)
            else:
                message.message(key, self.node(node))

    def is_untouched(self, node: Node) -> bool:
        """Whether the NodeProto of the source still describes the node, bodies included."""
        native = node.native
        return (
            isinstance(native, SourceNode)
            and native.inputs == _names(node.inputs)
            and native.outputs == _names(node.outputs)
            and all(self.is_untouched_body(body) for body in node.graphs)
        )

    def is_untouched_body(self, graph: Graph) -> bool:
        """Whether the GraphProto of the source still describes the body."""
        source = graph.native
        if not isinstance(source, SourceGraph):
            return False
        if source.input_names != _names(graph.inputs):
            return False
        if source.output_names != _names(graph.outputs):
            return False

        # All nodes of the source are there, each once, and none has changed.
        positions = {node.native.position for node in graph.nodes if self.is_untouched(node)}
        if not len(positions) == len(graph.nodes) == source.node_count:
            return False
        if any(value.type != source.types.get(value.name) for value in graph.values()):
            return False

        constants = self.constants(graph, source)
        if len(constants) != len(source.initializers) + len(source.sparse):
            return False

        return all(
            self.weights.is_verbatim(value, self.origin(value, source)) for value in constants
        )

    def node(self, node: Node) -> ProtoMessage:
        """Make a NodeProto with the wiring of the IR, and everything else as it was."""
        message = ProtoMessage()
        message.texts(schema.NODE_INPUT, _names(node.inputs))
        message.texts(schema.NODE_OUTPUT, _names(node.outputs))
        if not isinstance(node.native, SourceNode):
            self.new_node(message, node)
            return message

        # Names go first, whatever their place in the source; attributes keep their order.
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
        """Make an AttributeProto; each graph in it is replaced by the next body."""
        rebuilt = ProtoMessage()
        for field in fields(buffer.view, message.start, message.stop):
            if field.key in schema.ATTRIBUTE_BODIES:
                rebuilt.message(field.key, self.graph(next(bodies)))
            else:
                rebuilt.span(buffer, field.head, field.stop)

        return rebuilt

    def new_node(self, message: ProtoMessage, node: Node) -> None:
        """Add name, operator and attributes of a node that a pass made."""
        message.text(schema.NODE_NAME, node.name)
        message.text(schema.NODE_OP, node.op.rpartition(".")[2])
        for name, value in node.attributes.items():
            message.message(schema.NODE_ATTRIBUTE, attribute_message(name, value))
        message.text(schema.NODE_DOMAIN, operators.domain(node))


def _names(values: Iterable[Value | None]) -> tuple[str, ...]:
    # A list, because building it is faster than a generator, and this runs for every node.
    return tuple(["" if value is None else value.name for value in values])


def _source_order(nodes: list[Node], source: SourceGraph) -> list[Node]:
    """Put the nodes into the order of the source, if they are exactly the nodes of the source.

    That order need not be topological.
    """
    positions = [node.native.position for node in nodes if isinstance(node.native, SourceNode)]
    if not len(set(positions)) == len(positions) == len(nodes) == source.node_count:
        return nodes
    return sorted(nodes, key=lambda node: node.native.position)
