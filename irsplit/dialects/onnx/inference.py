"""Types of values that the file does not say: from ONNX's own inference, else from the engine.

`infer_types` fills the gaps in three steps. What the file says stays, and is only sharpened: an
unknown dimension may become known. If types are missing, ONNX infers them. If a result still has no
rank, onnxruntime is asked, because it knows operators that ONNX does not. Both look at the model
without its weights, in confined processes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from typing import Any

from irsplit.base import dtypes
from irsplit.base.confined import Bounds, Confined, ConfinedError
from irsplit.base.dtypes import DType
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.attributes import body_messages
from irsplit.dialects.onnx.native import Inference, InferenceError, bounds_for
from irsplit.dialects.onnx.skeleton import Skeleton
from irsplit.dialects.onnx.typeinfo import read_info
from irsplit.dialects.onnx.wire import ProtoField, ProtoMessage, fields, scan
from irsplit.ir import (
    Graph,
    Model,
    Node,
    OpaqueType,
    TensorType,
    Type,
    Value,
    required_inputs,
    walk,
)

_log = getLogger("irsplit")

_MOST_BYTES = 256 * 1024 * 1024
"""Larger skeletons are not worth the time. Only tensors inside of nodes make one so large."""

_ENGINE_PROGRAM = Path(__file__).with_name("engine_types.py")
"""The program that loads the engine; it is run, never imported."""

_ENGINE_MEMORY, _ENGINE_SECONDS = 512 << 20, 1
"""Bounds of the engine beyond those of inference: for itself, its inputs and its results."""

_COPIES, _WEIGHTS_A_SECOND = 4, 50_000_000
"""Bounds for weights, which are inputs of the model that the engine runs: copies that it may hold,
bytes per second."""

Shape = tuple[int, ...]


# -- filling the gaps -----------------------------------------------------------------------------


def infer_types(model: Model, inference: Inference) -> None:
    """Give values of the entry and its bodies the types that can be known.

    The graphs remember their types, so that a writer can tell what a pass changed.

    Args:
        model: A model as it was read.
        inference: The process that will infer types, which may be loading already.
    """
    graphs = [model.entry]
    for node in walk(model.entry):
        graphs.extend(node.graphs)

    kept_bounds = True
    if not all(_has_complete_types(graph) for graph in graphs):
        kept_bounds = _ask_onnx(model, inference)

    # A model that broke the bounds of inference would break those of the engine too.
    unranked = [
        value for value in model.entry.values() if value.producer and not _is_ranked(value.type)
    ]
    if unranked and kept_bounds:
        _sharpen(unranked, _ask_engine(model, unranked))

    for graph in graphs:
        graph.native.types = {value.name: value.type for value in graph.values()}


def _has_complete_types(graph: Graph) -> bool:
    return all(_is_complete(value.type) for value in graph.values())


def _is_ranked(type: Type | None) -> bool:
    """Whether at least the rank is known."""
    return type is not None and not (isinstance(type, TensorType) and type.shape is None)


def _is_complete(type: Type | None) -> bool:
    """Whether inference could add nothing: a symbol counts as a known dimension."""
    return _is_ranked(type) and not (isinstance(type, TensorType) and None in (type.shape or ()))


def _sharper(said: Type | None, inferred: Type | None) -> Type | None:
    """Combine the type that the file says with the inferred one.

    The file wins wherever the two contradict each other. Inference adds what the file leaves open.
    """
    if said is None or inferred is None:
        return said or inferred
    if not isinstance(said, TensorType) or not isinstance(inferred, TensorType):
        return said
    if said.dtype != inferred.dtype:
        return said
    if said.shape is None:
        return inferred
    if inferred.shape is None or len(said.shape) != len(inferred.shape):
        return said

    pairs = zip(said.shape, inferred.shape, strict=True)
    return TensorType(said.dtype, tuple(new if old is None else old for old, new in pairs))


def _sharpen(values: Iterable[Value], types: Mapping[str, Type | None]) -> None:
    """Sharpen the types of values by these types, which are by name."""
    for value in values:
        if not _is_complete(value.type):
            value.type = _sharper(value.type, types.get(value.name))


# -- from ONNX ------------------------------------------------------------------------------------


def _ask_onnx(model: Model, inference: Inference) -> bool:
    """Sharpen types by what ONNX infers. Returns whether inference kept its bounds."""
    name = model.native.buffer.name
    # A model that is too large for inference has not broken any bounds.
    skeleton = Skeleton(model).model()
    if skeleton.size > _MOST_BYTES:
        return True

    try:
        inferred = inference.types(skeleton.tobytes(), name)
    except InferenceError as error:
        _log.info("%s: ONNX cannot infer types: %s", name, error)
        return True
    except ConfinedError as error:
        _log.warning(
            "%s: types that the file does not say are not known: to infer them %s", name, error
        )
        return False

    for field in fields(inferred, 0, len(inferred)):
        if field.key == schema.MODEL_GRAPH:
            _learn(model.entry, dict(enumerate(model.entry.nodes)), inferred, field)

    return inference.followed


def _learn(graph: Graph, nodes: Mapping[int, Node], data: bytes, message: ProtoField) -> None:
    """Take the types of a graph and its bodies from a GraphProto of the answer.

    Args:
        graph: The graph to give types.
        nodes: Its nodes by their position in the GraphProto.
        data: The answer.
        message: The GraphProto.
    """
    shared: dict[bytes, Type | None] = {}
    types: dict[str, Type | None] = {}
    position = 0

    for field in scan(data, message.start, message.stop):
        key, _, start, stop = field
        if key in (schema.GRAPH_VALUE_INFO, schema.GRAPH_OUTPUT):
            name, type = read_info(data, start, stop, shared)
            types[name] = type
        elif key == schema.GRAPH_NODE:
            # A Constant node that was read as a weight of its body is no node of the IR.
            node = nodes.get(position)
            if node is not None and node.graphs:
                _learn_bodies(node, data, ProtoField(*field))
            position += 1

    _sharpen(graph.values(), types)


def _learn_bodies(node: Node, data: bytes, message: ProtoField) -> None:
    """Take the types of a node's bodies from its NodeProto in the answer."""
    for body, inner in zip(node.graphs, body_messages(data, message), strict=True):
        nodes = {node.native.position: node for node in body.nodes}
        _learn(body, nodes, data, inner)


# -- shapes for given sizes -----------------------------------------------------------------------


def shapes_at(model: Model, sizes: Sequence[Mapping[str, int]]) -> list[dict[str, Shape]]:
    """Infer the shapes of the entry's values for several sizes of its open dimensions.

    Nothing is run, so shapes that only a run can tell are missing.

    Args:
        model: The model.
        sizes: For each request the sizes of all open dimensions, by "<input>.<axis>".

    Returns:
        For each request the shapes by value name.
    """
    with Inference() as inference:
        return [_shapes_at(model, request, inference) for request in sizes]


def _shapes_at(model: Model, sizes: Mapping[str, int], inference: Inference) -> dict[str, Shape]:
    inputs = required_inputs(model.entry)
    shapes: dict[str, Shape | None] = {}
    try:
        skeleton = _sized_skeleton(model, inputs, sizes, shapes)
        if skeleton.size > _MOST_BYTES:
            return {}

        inferred = inference.types(skeleton.tobytes(), model.native.buffer.name)
    except (InferenceError, ConfinedError):
        return {}

    shared: dict[bytes, Type | None] = {}

    for graph in fields(inferred, 0, len(inferred)):
        if graph.key != schema.MODEL_GRAPH:
            continue

        for key, _, start, stop in scan(inferred, graph.start, graph.stop):
            if key in (schema.GRAPH_VALUE_INFO, schema.GRAPH_OUTPUT):
                name, type = read_info(inferred, start, stop, shared)
                shapes[name] = _static_shape(type)

    return {name: shape for name, shape in shapes.items() if shape is not None}


def _sized_skeleton(
    model: Model,
    inputs: Sequence[Value],
    sizes: Mapping[str, int],
    shapes: dict[str, Shape | None],
) -> ProtoMessage:
    """The skeleton of the model with inputs of these sizes, whose shapes are added to `shapes`.

    The inputs have these types only while the skeleton is made.
    """
    types = [value.type for value in inputs]
    try:
        for value in inputs:
            value.type = _sized(value, sizes)
            shapes[value.name] = _static_shape(value.type)
        return Skeleton(model).model()
    finally:
        for value, type in zip(inputs, types, strict=True):
            value.type = type


def _sized(value: Value, sizes: Mapping[str, int]) -> Type | None:
    """The type of an input with a size for every open dimension."""
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return value.type
    shape = tuple(
        dim if isinstance(dim, int) else sizes[f"{value.name}.{axis}"]
        for axis, dim in enumerate(value.type.shape)
    )
    return replace(value.type, shape=shape)


def _static_shape(type: Type | None) -> Shape | None:
    """The shape of a tensor type without open dimensions, else None."""
    if not isinstance(type, TensorType) or type.shape is None:
        return None
    shape = tuple(dim for dim in type.shape if isinstance(dim, int))
    return shape if len(shape) == len(type.shape) else None


# -- from the engine ------------------------------------------------------------------------------


def _ask_engine(model: Model, values: list[Value]) -> dict[str, Type | None]:
    """Ask onnxruntime for the types of some values, by making them outputs of the model.

    Returns:
        Types by name; nothing if the engine takes too much or refuses the model.
    """
    name = model.native.buffer.name
    skeleton = Skeleton(model, values, stubs=False).model()
    if skeleton.size > _MOST_BYTES:
        return {}

    # The program needs the inputs without a rank, because it cannot make arrays for those.
    unranked = [value.name for value in model.entry.inputs if not _is_ranked(value.type)]
    request = json.dumps(unranked).encode() + b"\n" + skeleton.tobytes()

    try:
        with Confined(_ENGINE_PROGRAM, packages=True) as process:
            answer = process.answer(request, _engine_bounds(model, skeleton.size))
    except ConfinedError as error:
        what = "types that neither the file nor ONNX says are not known"
        _log.warning("%s: %s: to ask onnxruntime %s", name, what, error)
        return {}

    reply: dict[str, Any] = json.loads(answer)
    if "refused" in reply:
        # The last line is the reason; the ones before it say where in onnxruntime.
        reason = reply["refused"].strip().rpartition("\n")[2]
        _log.warning("%s: onnxruntime refuses this model: %s", name, reason)
        return {}

    return {value: _engine_type(type, shape) for value, type, shape in reply["types"]}


def _engine_bounds(model: Model, size: int) -> Bounds:
    """Memory and time that the engine may take for a model whose skeleton has `size` bytes."""
    constants = [value.constant for value in model.entry.values()]
    weights = sum(constant.length for constant in constants if constant is not None)
    inference = bounds_for(size)
    return Bounds(
        inference.memory + _ENGINE_MEMORY + _COPIES * weights,
        inference.seconds + _ENGINE_SECONDS + weights // _WEIGHTS_A_SECOND,
    )


def _engine_type(text: str, shape: list[int | str | None] | None) -> Type:
    """The type that onnxruntime spells so."""
    dtype = _ENGINE_TYPES.get(text)
    if dtype is None:
        return OpaqueType(text)
    return TensorType(dtype, None if shape is None else tuple(shape))


def _engine_types() -> dict[str, DType]:
    """Element types by onnxruntime's names of tensors of them."""
    names = {
        "float": dtypes.F32,
        "double": dtypes.F64,
        "float16": dtypes.F16,
        "bfloat16": dtypes.BF16,
        "string": dtypes.STR,
        "complex64": dtypes.C64,
        "complex128": dtypes.C128,
        "bool": dtypes.BOOL,
        "int4": dtypes.I4,
        "uint4": dtypes.U4,
        "int2": dtypes.I2,
        "uint2": dtypes.U2,
        "float4e2m1": dtypes.F4E2M1,
    }
    for bits in (8, 16, 32, 64):
        names[f"int{bits}"] = dtypes.BY_NAME[f"i{bits}"]
        names[f"uint{bits}"] = dtypes.BY_NAME[f"u{bits}"]

    for dtype in dtypes.ALL:
        if dtype.name.startswith("f8"):
            names[f"float{dtype.name[1:]}"] = dtype

    return {f"tensor({name})": dtype for name, dtype in names.items()}


_ENGINE_TYPES = _engine_types()
