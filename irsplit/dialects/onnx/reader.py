"""ModelProto to IR: one scan over the wire, which leaves the weights where they are."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from irsplit.base.errors import ModelError, UnsupportedError, short
from irsplit.dialects.onnx import operators, schema
from irsplit.dialects.onnx.external import DataFiles
from irsplit.dialects.onnx.inference import infer_types
from irsplit.dialects.onnx.native import Inference
from irsplit.dialects.onnx.node_messages import NodeMessage, read_bodies, read_node
from irsplit.dialects.onnx.order import in_order
from irsplit.dialects.onnx.source import (
    Annotation,
    FunctionKey,
    SourceGraph,
    SourceModel,
    SourceNode,
)
from irsplit.dialects.onnx.tensors import OnnxTensor, read_sparse, read_tensor
from irsplit.dialects.onnx.typeinfo import read_info
from irsplit.dialects.onnx.wire import (
    ProtoField,
    WireError,
    fields,
    last_fields,
    read_int,
    read_text,
    text_of,
)
from irsplit.ir import (
    DEEPEST_BODIES,
    Buffer,
    Graph,
    Model,
    Node,
    Type,
    Value,
    callees_first,
    name_apart,
    without_collector,
)

_FOREIGN = (
    (slice(0, 0), b"", "it is empty"),
    (slice(4, 8), b"TFL3", "it is a TFLite model; name it .tflite"),
    (slice(4, 8), b"ORTM", "it is in ORT format; give the .onnx file that it was made from"),
    (slice(0, 24), b"version https://git-lfs.", "it is a Git LFS pointer; run 'git lfs pull'"),
    (slice(0, 2), b"PK", "it is a ZIP archive; unpack it first"),
)
"""Files that are often mistaken for ONNX: where to look, what is there, what to do.

The first entry is for a file without any bytes.
"""

Scope = dict[str, Value]
"""Values of one graph by name."""


def read_model(path: Path) -> Model:
    """Read an .onnx file. Values have the types that the file says or that can be inferred.

    Raises:
        ModelError: The file is missing, damaged or no ONNX model.
        UnsupportedError: The file holds something that irsplit could not carry without loss.
    """
    buffer = Buffer(path.name, path)
    try:
        if not path.is_file():
            raise ModelError(f"{path}: no such file; check the path")

        with without_collector(), Inference() as inference:
            return _Reader(path, buffer, inference).model()
    except WireError as error:
        raise ModelError(
            f"{path}: damaged at byte {error.offset}: {error}; the file is truncated or no ONNX "
            "model, fetch it again"
        ) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    except (MemoryError, RecursionError) as error:
        raise ModelError(
            f"{path}: too large or too deep to be read; no engine reads it either"
        ) from error
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{path}: a name is not UTF-8 ({error.reason}); the file is damaged, fetch it again"
        ) from error


def _leaves_types_out(graph: Iterable[ProtoField]) -> bool:
    """Whether a GraphProto with these fields has fewer types than nodes.

    That is quick to see; a look at each node may show that more types are missing.
    """
    keys = Counter(field.key for field in graph)
    return keys[schema.GRAPH_VALUE_INFO] + keys[schema.GRAPH_OUTPUT] < keys[schema.GRAPH_NODE]


@dataclass(slots=True)
class _Body:
    """What the fields of a GraphProto or FunctionProto hold, before the values are made."""

    nodes: list[ProtoField] = field(default_factory=list[ProtoField])
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    tensors: dict[str, OnnxTensor] = field(default_factory=dict[str, OnnxTensor])


class _Reader:
    """Reads one model file.

    Names are resolved through a list of scopes, outermost first: one for each graph around the
    current one, and one for the current one itself.
    """

    def __init__(self, path: Path, buffer: Buffer, inference: Inference) -> None:
        self.path = path
        self.inference = inference
        self.buffer = buffer
        self.data = buffer.view
        self.files = DataFiles(path)
        self.functions: dict[FunctionKey, Graph] = {}
        self.types: dict[bytes, Type | None] = {}
        """Types by their bytes: equal ones are read once."""

    # -- model ------------------------------------------------------------------------------------

    def model(self) -> Model:
        # Bytes of another format would only be called damaged below.
        self.refuse_foreign()
        model_fields = fields(self.data, 0, len(self.data))
        main, version = self.main_graph(model_fields)
        opsets = dict(self.opset(item) for item in model_fields if item.key == schema.MODEL_OPSET)

        # A function may be called before its definition, so all are declared first.
        definitions = [item for item in model_fields if item.key == schema.MODEL_FUNCTION]

        for message in definitions:
            self.declare_function(message)

        for message, function in zip(definitions, self.functions.values(), strict=True):
            self.fill_function(message, function)

        entry = self.graph(main, [])

        # Whether a call is random depends on what it calls: callees come first.
        functions = list(self.functions.values())
        if functions:
            self.mark_random([*callees_first(functions, str(self.path)), entry])
        name_apart([entry, *functions])
        native = SourceModel(self.buffer, model_fields, version, opsets, self.functions)
        model = Model("onnx", [entry, *functions], native)
        infer_types(model, self.inference)
        return model

    def refuse_foreign(self) -> None:
        """Raise ModelError for a file of another well-known format."""
        for place, magic, advice in _FOREIGN:
            if bytes(self.data[place]) == magic and (magic or not len(self.data)):
                raise ModelError(f"{self.path}: not an ONNX model: {advice}")

    def main_graph(self, model_fields: list[ProtoField]) -> tuple[ProtoField, int]:
        """The GraphProto of the model, and the IR version."""
        graphs = [item for item in model_fields if item.key == schema.MODEL_GRAPH]
        version = 0

        for item in model_fields:
            if item.key == schema.MODEL_IR_VERSION:
                version = read_int(self.data, item.start, item.stop)

        if not graphs or version < 1:
            missing = "graph" if not graphs else "IR version"
            raise ModelError(
                f"{self.path}: not an ONNX model: it has no {missing}; give a file that holds a "
                "ModelProto"
            )
        if len(graphs) > 1:
            raise ModelError(
                f"{self.path}: the model has {len(graphs)} graphs instead of one; export it again"
            )

        return graphs[0], version

    def opset(self, message: ProtoField) -> tuple[str, int]:
        """Domain and version of an OperatorSetIdProto."""
        by_key = last_fields(self.data, message.start, message.stop)
        version = by_key.get(schema.OPSET_VERSION)
        number = 0 if version is None else read_int(self.data, version.start, version.stop)
        return text_of(self.data, by_key.get(schema.OPSET_DOMAIN)), number

    # -- functions --------------------------------------------------------------------------------

    def declare_function(self, message: ProtoField) -> None:
        """Add an empty graph for the function."""
        by_key = last_fields(self.data, message.start, message.stop)
        domain = text_of(self.data, by_key.get(schema.FUNCTION_DOMAIN))
        name = text_of(self.data, by_key.get(schema.FUNCTION_NAME))
        overload = text_of(self.data, by_key.get(schema.FUNCTION_OVERLOAD))

        # Functions with one name differ in their overload. Older models have none.
        key = (operators.plain_domain(domain), name, overload)
        if key in self.functions:
            raise ModelError(
                f"{self.path}: function '{short(domain)}.{short(name)}' is defined twice; "
                "remove one"
            )

        self.functions[key] = Graph(".".join(part for part in key if part))

    def fill_function(self, message: ProtoField, graph: Graph) -> None:
        """Read the body of a function into its graph."""
        source, body = SourceGraph(), _Body()
        graph.native = source
        function_fields = fields(self.data, message.start, message.stop)
        source.order = tuple(dict.fromkeys(item.key for item in function_fields))

        for item in function_fields:
            match item.key:
                case schema.FUNCTION_NODE:
                    body.nodes.append(item)
                case schema.FUNCTION_VALUE_INFO:
                    name, type = read_info(self.data, item.start, item.stop, self.types)
                    source.value_info[name] = item
                    source.types[name] = type
                case schema.FUNCTION_INPUT:
                    body.inputs.append(read_text(self.data, item.start, item.stop))
                    source.rest.append(item)
                case schema.FUNCTION_OUTPUT:
                    body.outputs.append(read_text(self.data, item.start, item.stop))
                    source.rest.append(item)
                case _:
                    source.rest.append(item)

        scope: Scope = {}

        for name in body.inputs:
            graph.inputs.append(self.define(Value(name), scope, graph))

        self.fill(graph, body, [scope])
        if graph.constants:
            raise UnsupportedError(
                f"{self.path}: {graph.constants[0]} of function '{short(graph.name)}' lies in "
                "another file, and a function cannot hold weights; make it an input of the function"
            )

    def mark_random(self, graphs: Iterable[Graph]) -> None:
        """Mark nodes whose bodies or callees hold a random node, however deep.

        Args:
            graphs: All graphs, callees before their callers.
        """
        random: set[Graph] = set()
        for graph in graphs:
            if self.is_random(graph, random):
                random.add(graph)

    def is_random(self, graph: Graph, random: set[Graph]) -> bool:
        """Mark the graph's random nodes, given the `random` functions. Whether there are any."""
        for node in graph.nodes:
            bodies = [self.is_random(body, random) for body in node.graphs]
            node.random |= any(bodies) or not random.isdisjoint(node.callees)
        return any(node.random for node in graph.nodes)

    # -- graphs -----------------------------------------------------------------------------------

    def graph(self, message: ProtoField, outer: list[Scope]) -> Graph:
        """Read a GraphProto.

        Args:
            message: The GraphProto.
            outer: The scopes of the graphs around it.
        """
        if len(outer) > DEEPEST_BODIES:
            raise ModelError(
                f"{self.path}: bodies are nested deeper than {DEEPEST_BODIES}; the file is damaged"
            )

        graph, source = Graph(""), SourceGraph()
        graph.native = source
        graph_fields = fields(self.data, message.start, message.stop)
        source.order = tuple(dict.fromkeys(item.key for item in graph_fields))

        # Inference loads while the rest of the model is read.
        if not outer and _leaves_types_out(graph_fields):
            self.inference.start()

        body = self.body(graph, source, graph_fields)
        source.input_names, source.output_names = tuple(body.inputs), tuple(body.outputs)
        scope: Scope = {}

        for name in body.inputs:
            # An input that is an initializer too has a default value.
            tensor = body.tensors.pop(name, None)
            value = _constant(tensor) if tensor else Value(name, source.types[name])
            graph.inputs.append(self.define(value, scope, graph))

        for tensor in body.tensors.values():
            graph.constants.append(self.define(_constant(tensor), scope, graph))

        self.fill(graph, body, [*outer, scope])
        return graph

    def body(self, graph: Graph, source: SourceGraph, graph_fields: list[ProtoField]) -> _Body:
        """Sort the fields of a GraphProto by what they hold."""
        body = _Body()
        for item in graph_fields:
            match item.key:
                case schema.GRAPH_NODE:
                    body.nodes.append(item)
                case schema.GRAPH_INITIALIZER:
                    tensor = read_tensor(self.buffer, item.start, item.stop, self.files)
                    self.add_tensor(body.tensors, tensor)
                    source.initializers[tensor.name] = item
                case schema.GRAPH_SPARSE:
                    tensor = read_sparse(self.buffer, item.start, item.stop, self.files)
                    self.add_tensor(body.tensors, tensor)
                    source.sparse[tensor.name] = item
                case schema.GRAPH_INPUT:
                    body.inputs.append(self.add_info(source.inputs, source, item))
                case schema.GRAPH_OUTPUT:
                    body.outputs.append(self.add_info(source.outputs, source, item))
                case schema.GRAPH_VALUE_INFO:
                    self.add_info(source.value_info, source, item)
                case schema.GRAPH_ANNOTATION:
                    source.annotations.append(self.annotation(item))
                case schema.GRAPH_NAME:
                    graph.name = read_text(self.data, item.start, item.stop)
                    source.rest.append(item)
                case _:
                    source.rest.append(item)

        return body

    def add_tensor(self, tensors: dict[str, OnnxTensor], tensor: OnnxTensor) -> None:
        """Add a tensor by its name, which must be new."""
        if not tensor.name:
            raise ModelError(
                f"{self.path}: an initializer has no name; give each a name of its own"
            )
        if tensor.name in tensors:
            raise ModelError(
                f"{self.path}: two initializers are named '{short(tensor.name)}'; give each a "
                "name of its own"
            )

        tensors[tensor.name] = tensor

    def add_info(self, infos: dict[str, ProtoField], source: SourceGraph, item: ProtoField) -> str:
        """Add a ValueInfoProto and its type. Returns the name of the value."""
        name, type = read_info(self.data, item.start, item.stop, self.types)
        if type is not None or name not in source.types:
            source.types[name] = type
        infos[name] = item
        return name

    def annotation(self, message: ProtoField) -> Annotation:
        """Read a TensorAnnotation."""
        name, parameters = "", list[str]()
        for item in fields(self.data, message.start, message.stop):
            if item.key == schema.ANNOTATION_TENSOR:
                name = read_text(self.data, item.start, item.stop)
            elif item.key == schema.ANNOTATION_PARAMETER:
                for entry in fields(self.data, item.start, item.stop):
                    if entry.key == schema.ENTRY_VALUE:
                        parameters.append(read_text(self.data, entry.start, entry.stop))

        return Annotation(name, tuple(parameters), message)

    def define(self, value: Value, scope: Scope, graph: Graph) -> Value:
        """Add a value to the scope of its graph. Its name must be new there."""
        if value.name in scope:
            raise ModelError(
                f"{self.path}: '{short(value.name)}' is defined twice in graph "
                f"'{short(graph.name)}'; every value needs one producer"
            )
        scope[value.name] = value
        return value

    # -- nodes ------------------------------------------------------------------------------------

    def fill(self, graph: Graph, body: _Body, scopes: list[Scope]) -> None:
        """Read the nodes of a graph, and resolve its outputs.

        A Constant node whose tensor lies in another file becomes a constant of the graph, like an
        initializer: then its bytes are copied or shared, where the node as it is would point to a
        file that is not there.

        Args:
            graph: The graph; its inputs and constants are in the innermost scope.
            body: Its nodes and the names of its outputs.
            scopes: The scopes, innermost last.
        """
        source: SourceGraph = graph.native
        scope = scopes[-1]
        messages = [read_node(self.data, message, self.path) for message in body.nodes]

        # All results are defined before any node is made: exporters may leave nodes unsorted.
        for message in messages:
            if message.weight is not None:
                weight, name = message.weight, message.outputs[0]
                tensor = read_tensor(self.buffer, weight.start, weight.stop, self.files, name)
                value = Value(name, tensor.type, tensor.constant)
                graph.constants.append(self.define(value, scope, graph))
                continue

            for name in message.outputs:
                if name:
                    self.define(Value(name, source.types.get(name)), scope, graph)

        nodes: list[Node] = []

        for index, message in enumerate(messages):
            if message.weight is None:
                nodes.append(self.node(index, message, scopes))

        source.node_count = len(nodes)
        graph.nodes = in_order(nodes, lambda node: self.cycle(node, graph))
        graph.outputs = [self.resolve(name, scopes, graph) for name in body.outputs]
        source.types = {name: value.type for name, value in scope.items()}

    def node(self, index: int, message: NodeMessage, scopes: list[Scope]) -> Node:
        """Make a node, with its bodies."""
        scope = scopes[-1]
        inputs: list[Value | None] = []

        for name in message.inputs:
            # An empty name stands for an operand that is left out.
            value = scope.get(name) or self.resolve(name, scopes, message) if name else None
            inputs.append(value)

        outputs = [scope[name] if name else None for name in message.outputs]

        # Most models have no functions, and then no key has to be made for every node.
        function = None
        if self.functions:
            function = self.functions.get((message.domain, message.op, message.overload))
        node = Node(
            operators.name(message.domain, message.op),
            inputs,
            outputs,
            name=message.name,
            graphs=[self.graph(body, scopes) for body in read_bodies(self.data, message)],
            callees=() if function is None else (function,),
            native=SourceNode(self.buffer, message.message, message.inputs, message.outputs, index),
        )
        node.random = operators.is_random(node)
        return node

    def resolve(self, name: str, scopes: list[Scope], reader: NodeMessage | Graph) -> Value:
        """Find the value of this name, in the innermost scope that has one."""
        for scope in reversed(scopes):
            if name in scope:
                return scope[name]

        if isinstance(reader, Graph):
            who = f"the output of graph '{short(reader.name)}'"
        else:
            who = f"{short(operators.name(reader.domain, reader.op))} '{short(reader.name)}'"
        raise ModelError(
            f"{self.path}: {who} reads '{short(name)}', which nothing produces; the model is "
            "incomplete"
        )

    def cycle(self, node: Node, graph: Graph) -> ModelError:
        return ModelError(
            f"{self.path}: {node} of graph '{short(graph.name)}' depends on its own result; "
            "break the cycle"
        )


def _constant(tensor: OnnxTensor) -> Value:
    return Value(tensor.name, tensor.type, tensor.constant)
