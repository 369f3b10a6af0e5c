"""ModelProto to IR: one scan over the wire, weights left where they are."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from irsplit.base.errors import ModelError, UnsupportedError, short
from irsplit.dialects.onnx import operators, schema
from irsplit.dialects.onnx.external import DataFiles
from irsplit.dialects.onnx.inference import infer_types
from irsplit.dialects.onnx.native import Inference
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
    Data,
    ProtoField,
    WireError,
    fields,
    read_int,
    read_text,
    scan,
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

_SMALL = 4096
_EXTERNAL = bytes([schema.TENSOR_LOCATION, schema.LOCATION_EXTERNAL])
_BODY_KEYS = frozenset(schema.ATTRIBUTE_BODIES)

_FOREIGN = (
    (slice(0, 0), b"", "it is empty"),
    (slice(4, 8), b"TFL3", "it is a TFLite model; name it .tflite"),
    (slice(4, 8), b"ORTM", "it is in ORT format; give the .onnx file that it was made from"),
    (slice(0, 24), b"version https://git-lfs.", "it is a Git LFS pointer; run 'git lfs pull'"),
    (slice(0, 2), b"PK", "it is a ZIP archive; unpack it first"),
)
"""Files that are often mistaken for ONNX: where to look, what is there, what to do. The first is for no bytes."""


def read_model(path: Path) -> Model:
    """The model in an .onnx file, typed as far as the file itself says."""
    buffer = Buffer(path.name, path)
    try:
        if not path.is_file():
            raise ModelError(f"{path}: no such file; check the path")
        with without_collector(), Inference() as inference:
            return _Reader(path, buffer, inference).model()
    except WireError as error:
        raise ModelError(
            f"{path}: damaged at byte {error.offset}: {error}; the file is truncated or no ONNX model, fetch it again"
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


def may_hold_bodies(attribute: Data) -> bool:
    """Whether the key of a graph occurs among the bytes at all; most attributes need no closer look."""
    return len(attribute) >= _SMALL or not _BODY_KEYS.isdisjoint(attribute)


def _leaves_types_out(graph: Iterable[ProtoField]) -> bool:
    """Whether a GraphProto with these fields has fewer types than nodes; a look at each of them may show more."""
    keys = Counter(field.key for field in graph)
    return keys[schema.GRAPH_VALUE_INFO] + keys[schema.GRAPH_OUTPUT] < keys[schema.GRAPH_NODE]


class _Head(NamedTuple):
    message: ProtoField
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    name: str
    op: str
    domain: str
    overload: str
    attributes: list[tuple[int, int]]
    weight: ProtoField | None
    """The tensor of a Constant node that lies in another file."""


class _Reader:
    def __init__(self, path: Path, buffer: Buffer, inference: Inference) -> None:
        self.path = path
        self.inference = inference
        self.buffer = buffer
        self.data = buffer.view
        self.files = DataFiles(path)
        self.functions: dict[FunctionKey, Graph] = {}
        self.types: dict[bytes, Type | None] = {}

    # -- model --------------------------------------------------------------------------------------------------

    def model(self) -> Model:
        self.refuse_foreign()
        found = fields(self.data, 0, len(self.data))
        graphs = [field for field in found if field.key == schema.MODEL_GRAPH]
        versions = [
            read_int(self.data, field.start, field.stop)
            for field in found
            if field.key == schema.MODEL_IR_VERSION
        ]
        if not graphs or not versions or versions[-1] < 1:
            missing = "graph" if not graphs else "IR version"
            raise ModelError(
                f"{self.path}: not an ONNX model: it has no {missing}; give a file that holds a ModelProto"
            )
        if len(graphs) > 1:
            raise ModelError(
                f"{self.path}: the model has {len(graphs)} graphs instead of one; export it again"
            )
        opsets = dict(self.opset(field) for field in found if field.key == schema.MODEL_OPSET)
        definitions = [field for field in found if field.key == schema.MODEL_FUNCTION]
        for message in definitions:
            self.declare_function(message)
        for message, function in zip(definitions, self.functions.values(), strict=True):
            self.fill_function(message, function)
        entry = self.graph(graphs[0], [])
        if self.functions:
            self.mark_random([*callees_first(list(self.functions.values()), str(self.path)), entry])
        name_apart([entry, *self.functions.values()])
        native = SourceModel(self.buffer, found, versions[-1], opsets, self.functions)
        model = Model("onnx", [entry, *self.functions.values()], native)
        infer_types(model, self.inference)
        return model

    def refuse_foreign(self) -> None:
        for place, magic, advice in _FOREIGN:
            if bytes(self.data[place]) == magic and (magic or not len(self.data)):
                raise ModelError(f"{self.path}: not an ONNX model: {advice}")

    def opset(self, message: ProtoField) -> tuple[str, int]:
        domain, version = "", 0
        for field in fields(self.data, message.start, message.stop):
            if field.key == schema.OPSET_DOMAIN:
                domain = read_text(self.data, field.start, field.stop)
            elif field.key == schema.OPSET_VERSION:
                version = read_int(self.data, field.start, field.stop)
        return domain, version

    # -- functions ----------------------------------------------------------------------------------------------

    def declare_function(self, message: ProtoField) -> None:
        domain = name = overload = ""
        for field in fields(self.data, message.start, message.stop):
            match field.key:
                case schema.FUNCTION_DOMAIN:
                    domain = read_text(self.data, field.start, field.stop)
                case schema.FUNCTION_NAME:
                    name = read_text(self.data, field.start, field.stop)
                case schema.FUNCTION_OVERLOAD:
                    overload = read_text(self.data, field.start, field.stop)
                case _:
                    pass
        key = (operators.plain_domain(domain), name, overload)
        if key in self.functions:
            raise ModelError(
                f"{self.path}: function '{short(domain)}.{short(name)}' is defined twice; remove one"
            )
        self.functions[key] = Graph(".".join(part for part in key if part))

    def fill_function(self, message: ProtoField, graph: Graph) -> None:
        source = SourceGraph()
        graph.native = source
        found = fields(self.data, message.start, message.stop)
        source.order = tuple(dict.fromkeys(field.key for field in found))
        nodes: list[ProtoField] = []
        outputs: list[str] = []
        scope: dict[str, Value] = {}
        for field in found:
            match field.key:
                case schema.FUNCTION_NODE:
                    nodes.append(field)
                    continue
                case schema.FUNCTION_INPUT:
                    graph.inputs.append(
                        self.define(
                            Value(read_text(self.data, field.start, field.stop)), scope, graph
                        )
                    )
                case schema.FUNCTION_OUTPUT:
                    outputs.append(read_text(self.data, field.start, field.stop))
                case schema.FUNCTION_VALUE_INFO:
                    name, _ = read_info(self.data, field.start, field.stop, self.types)
                    source.value_info[name] = field
                    continue
                case _:
                    pass
            source.rest.append(field)
        source.types = {
            name: read_info(self.data, field.start, field.stop, self.types)[1]
            for name, field in source.value_info.items()
        }
        self.fill(graph, source, nodes, outputs, [scope])
        if graph.constants:
            raise UnsupportedError(
                f"{self.path}: {graph.constants[0]} of function '{short(graph.name)}' lies in another file, and a "
                "function cannot hold weights; make it an input of the function"
            )

    def mark_random(self, graphs: Iterable[Graph]) -> None:
        """A node is random when something in the function that it calls or in its bodies is, however deep."""
        random: set[Graph] = set()
        for graph in graphs:
            if self.is_random(graph, random):
                random.add(graph)

    def is_random(self, graph: Graph, random: set[Graph]) -> bool:
        """Whether a node of the graph is random, now that the `random` functions are known; marks those that are."""
        for node in graph.nodes:
            inner = [self.is_random(body, random) for body in node.graphs]
            node.random |= any(inner) or not random.isdisjoint(node.callees)
        return any(node.random for node in graph.nodes)

    # -- graphs -------------------------------------------------------------------------------------------------

    def graph(self, message: ProtoField, outer: list[dict[str, Value]]) -> Graph:
        if len(outer) > DEEPEST_BODIES:
            raise ModelError(
                f"{self.path}: bodies are nested deeper than {DEEPEST_BODIES}; the file is damaged"
            )
        graph, source = Graph(""), SourceGraph()
        graph.native = source
        found = fields(self.data, message.start, message.stop)
        if not outer and _leaves_types_out(found):
            self.inference.start()
        source.order = tuple(dict.fromkeys(field.key for field in found))
        nodes: list[ProtoField] = []
        inputs: list[str] = []
        outputs: list[str] = []
        tensors: dict[str, OnnxTensor] = {}
        for field in found:
            match field.key:
                case schema.GRAPH_NODE:
                    nodes.append(field)
                case schema.GRAPH_INITIALIZER:
                    tensor = read_tensor(self.buffer, field.start, field.stop, self.files)
                    self.add_tensor(tensors, tensor)
                    source.initializers[tensor.name] = field
                case schema.GRAPH_SPARSE:
                    tensor = read_sparse(self.buffer, field.start, field.stop, self.files)
                    self.add_tensor(tensors, tensor)
                    source.sparse[tensor.name] = field
                case schema.GRAPH_INPUT:
                    inputs.append(self.add_info(source.inputs, source, field))
                case schema.GRAPH_OUTPUT:
                    outputs.append(self.add_info(source.outputs, source, field))
                case schema.GRAPH_VALUE_INFO:
                    self.add_info(source.value_info, source, field)
                case schema.GRAPH_ANNOTATION:
                    source.annotations.append(self.annotation(field))
                case _:
                    if field.key == schema.GRAPH_NAME:
                        graph.name = read_text(self.data, field.start, field.stop)
                    source.rest.append(field)
        source.input_names, source.output_names = tuple(inputs), tuple(outputs)
        scope: dict[str, Value] = {}
        for name in inputs:
            tensor = tensors.pop(name, None)
            value = (
                Value(name, source.types[name])
                if tensor is None
                else Value(name, tensor.type, tensor.constant)
            )
            graph.inputs.append(self.define(value, scope, graph))
        for tensor in tensors.values():
            graph.constants.append(
                self.define(Value(tensor.name, tensor.type, tensor.constant), scope, graph)
            )
        self.fill(graph, source, nodes, outputs, [*outer, scope])
        return graph

    def add_tensor(self, tensors: dict[str, OnnxTensor], tensor: OnnxTensor) -> None:
        if not tensor.name or tensor.name in tensors:
            what = (
                f"two initializers are named '{short(tensor.name)}'"
                if tensor.name
                else "an initializer has no name"
            )
            raise ModelError(f"{self.path}: {what}; give each a name of its own")
        tensors[tensor.name] = tensor

    def add_info(self, infos: dict[str, ProtoField], source: SourceGraph, field: ProtoField) -> str:
        name, type = read_info(self.data, field.start, field.stop, self.types)
        if type is not None or name not in source.types:
            source.types[name] = type
        infos[name] = field
        return name

    def annotation(self, message: ProtoField) -> Annotation:
        name, parameters = "", list[str]()
        for field in fields(self.data, message.start, message.stop):
            if field.key == schema.ANNOTATION_TENSOR:
                name = read_text(self.data, field.start, field.stop)
            elif field.key == schema.ANNOTATION_PARAMETER:
                for entry in fields(self.data, field.start, field.stop):
                    if entry.key == schema.ENTRY_VALUE:
                        parameters.append(read_text(self.data, entry.start, entry.stop))
        return Annotation(name, tuple(parameters), message)

    def define(self, value: Value, scope: dict[str, Value], graph: Graph) -> Value:
        if value.name in scope:
            raise ModelError(
                f"{self.path}: '{short(value.name)}' is defined twice in graph '{short(graph.name)}'; every value "
                "needs one producer"
            )
        scope[value.name] = value
        return value

    # -- nodes --------------------------------------------------------------------------------------------------

    def fill(
        self,
        graph: Graph,
        source: SourceGraph,
        messages: list[ProtoField],
        outputs: list[str],
        scopes: list[dict[str, Value]],
    ) -> None:
        """Nodes, outputs and types of a graph whose inputs and constants are in the innermost scope.

        A Constant node whose tensor lies in another file becomes a constant of the graph, as an initializer does: its
        bytes are copied or shared, where the node as it is would point nowhere.
        """
        scope = scopes[-1]
        heads = [self.head(message) for message in messages]
        for head in heads:
            if head.weight is not None:
                tensor = read_tensor(
                    self.buffer, head.weight.start, head.weight.stop, self.files, head.outputs[0]
                )
                value = Value(head.outputs[0], tensor.type, tensor.constant)
                graph.constants.append(self.define(value, scope, graph))
                continue
            for name in head.outputs:
                if name:
                    self.define(Value(name, source.types.get(name)), scope, graph)
        nodes = [
            self.node(index, head, scopes)
            for index, head in enumerate(heads)
            if head.weight is None
        ]
        source.node_count = len(nodes)
        graph.nodes = in_order(nodes, lambda node: self.cycle(node, graph))
        graph.outputs = [self.resolve(name, scopes, graph) for name in outputs]
        source.types = {name: value.type for name, value in scope.items()}

    def head(self, message: ProtoField) -> _Head:
        """What a NodeProto says of itself; of its attributes only those that may hold bodies, and where they lie."""
        start, stop = message.start, message.stop
        data = self.data[start:stop]
        if stop - start < _SMALL:
            data = bytes(data)  # indexing bytes is faster
        inputs: list[str] = []
        outputs: list[str] = []
        attributes: list[tuple[int, int]] = []
        external: list[ProtoField] = []
        name = op = domain = overload = ""
        for key, _, begin, end in scan(data, 0, stop - start, start):
            if key == schema.NODE_INPUT:
                inputs.append(str(data[begin:end], "utf-8"))
            elif key == schema.NODE_OUTPUT:
                outputs.append(str(data[begin:end], "utf-8"))
            elif key == schema.NODE_NAME:
                name = str(data[begin:end], "utf-8")
            elif key == schema.NODE_OP:
                op = str(data[begin:end], "utf-8")
            elif key == schema.NODE_ATTRIBUTE:
                attribute = data[begin:end]
                if may_hold_bodies(attribute):
                    attributes.append((start + begin, start + end))
                if end - begin < _SMALL and _EXTERNAL in bytes(attribute):
                    external += self.external_tensors(start + begin, start + end)
            elif key == schema.NODE_DOMAIN:
                domain = read_text(data, begin, end)
            elif key == schema.NODE_OVERLOAD:
                overload = read_text(data, begin, end)
        if not op:
            raise WireError(message.head, f"node '{short(name)}' names no operator")
        domain = operators.plain_domain(domain)
        if external and (op != "Constant" or domain or len(outputs) != 1 or not outputs[0]):
            raise UnsupportedError(
                f"{self.path}: node '{short(name)}' at byte {message.head} keeps an attribute in another file; "
                "write it inside of the model: onnx.save(onnx.load(MODEL), NEW)"
            )
        weight = external[0] if external else None
        return _Head(
            message, tuple(inputs), tuple(outputs), name, op, domain, overload, attributes, weight
        )

    def node(self, index: int, head: _Head, scopes: list[dict[str, Value]]) -> Node:
        scope = scopes[-1]
        operator = operators.name(head.domain, head.op)
        function = (
            self.functions.get((head.domain, head.op, head.overload)) if self.functions else None
        )
        bodies = [
            self.graph(body, scopes)
            for attribute in head.attributes
            for body in self.bodies(*attribute)
        ]
        node = Node(
            operator,
            [
                (scope.get(name) or self.resolve(name, scopes, head)) if name else None
                for name in head.inputs
            ],
            [scope[name] if name else None for name in head.outputs],
            name=head.name,
            graphs=bodies,
            callees=() if function is None else (function,),
            native=SourceNode(self.buffer, head.message, head.inputs, head.outputs, index),
        )
        node.random = operators.is_random(node)
        return node

    def bodies(self, start: int, stop: int) -> list[ProtoField]:
        """The graphs in the attribute at data[start:stop]."""
        return [
            field
            for field in fields(self.data, start, stop)
            if field.key in schema.ATTRIBUTE_BODIES
        ]

    def external_tensors(self, start: int, stop: int) -> list[ProtoField]:
        """The tensors of the attribute at data[start:stop] that lie in other files."""
        return [
            tensor
            for tensor in fields(self.data, start, stop)
            if tensor.key in (schema.ATTRIBUTE_TENSOR, schema.ATTRIBUTE_TENSORS)
            for field in fields(self.data, tensor.start, tensor.stop)
            if field.key == schema.TENSOR_LOCATION and read_int(self.data, field.start, field.stop)
        ]

    def resolve(self, name: str, scopes: list[dict[str, Value]], reader: _Head | Graph) -> Value:
        """The value of this name in the innermost scope that has one."""
        for scope in reversed(scopes):
            if name in scope:
                return scope[name]
        if isinstance(reader, Graph):
            who = f"the output of graph '{short(reader.name)}'"
        else:
            who = f"{short(operators.name(reader.domain, reader.op))} '{short(reader.name)}'"
        raise ModelError(
            f"{self.path}: {who} reads '{short(name)}', which nothing produces; the model is incomplete"
        )

    def cycle(self, node: Node, graph: Graph) -> ModelError:
        return ModelError(
            f"{self.path}: {node} of graph '{short(graph.name)}' depends on its own result; break the cycle"
        )
