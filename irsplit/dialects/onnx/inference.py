"""Types of values that the file does not say: from ONNX's own inference, else from the engine."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from pathlib import Path

from irsplit.base import dtypes
from irsplit.base.confined import Bounds, Confined, ConfinedError
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.attributes import body_messages
from irsplit.dialects.onnx.native import Inference, InferenceError, bounds_for
from irsplit.dialects.onnx.skeleton import Skeleton
from irsplit.dialects.onnx.typeinfo import read_info
from irsplit.dialects.onnx.wire import ProtoField, fields, scan
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
"""Skeletons above this are not worth the time; only tensors inside nodes make one so large."""
_ENGINE_PROGRAM = Path(__file__).with_name("engine_types.py")
"""Run, never imported: it loads the engine."""
_ENGINE_MEMORY, _ENGINE_SECONDS = 512 << 20, 1
"""Beyond what inference may take: the engine's own, and its inputs and results."""
_COPIES, _WEIGHTS_A_SECOND = 4, 50_000_000
"""Weights are inputs of the model that the engine runs: so many times their bytes, so many bytes in a second."""


def infer_types(model: Model, inference: Inference) -> None:
    """Give values of the entry and its bodies the types that can be known; what the file says stays, if not sharpened.

    The graphs remember their types as read, so that a writer can tell what a pass changed.
    """
    graphs = [model.entry, *(body for node in walk(model.entry) for body in node.graphs)]
    harmless = True
    if any(not _is_complete(value.type) for graph in graphs for value in graph.values()):
        harmless = _ask_onnx(model, inference)
    unranked = [
        value for value in model.entry.values() if value.producer and not _is_ranked(value.type)
    ]
    if unranked and harmless:
        _sharpen(unranked, _ask_engine(model, unranked))
    for graph in graphs:
        graph.native.types = {value.name: value.type for value in graph.values()}


def _is_ranked(type: Type | None) -> bool:
    return type is not None and not (isinstance(type, TensorType) and type.shape is None)


def _is_complete(type: Type | None) -> bool:
    return _is_ranked(type) and not (isinstance(type, TensorType) and None in (type.shape or ()))


def _sharper(said: Type | None, inferred: Type | None) -> Type | None:
    """The inferred type where the file says nothing; where both say something, dimensions that only one knows."""
    if said is None or inferred is None:
        return said or inferred
    if (
        not isinstance(said, TensorType)
        or not isinstance(inferred, TensorType)
        or said.dtype != inferred.dtype
    ):
        return said
    if said.shape is None or inferred.shape is None or len(said.shape) != len(inferred.shape):
        return inferred if said.shape is None else said
    return TensorType(
        said.dtype,
        tuple(b if a is None else a for a, b in zip(said.shape, inferred.shape, strict=True)),
    )


def _sharpen(values: Iterable[Value], types: Mapping[str, Type | None]) -> None:
    for value in values:
        if not _is_complete(value.type):
            value.type = _sharper(value.type, types.get(value.name))


def _ask_onnx(model: Model, inference: Inference) -> bool:
    """Learn what ONNX infers; whether it kept to its bounds, as the engine then will too."""
    name = model.native.buffer.name
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


def shapes_at(model: Model, sizes: Sequence[Mapping[str, int]]) -> list[dict[str, tuple[int, ...]]]:
    """Shapes of the values of the entry for each of several sizes of its inputs' open dimensions.

    `sizes` are by "<input>.<axis>" and name every open dimension. Nothing is run: what ONNX cannot infer is left out.
    """
    with Inference() as inference:
        return [_shapes_at(model, each, inference) for each in sizes]


def _shapes_at(
    model: Model, sizes: Mapping[str, int], inference: Inference
) -> dict[str, tuple[int, ...]]:
    inputs = required_inputs(model.entry)
    types = [value.type for value in inputs]
    try:
        for value in inputs:
            value.type = _sized(value, sizes)
        skeleton = Skeleton(model).model()
        if skeleton.size > _MOST_BYTES:
            return {}
        inferred = inference.types(skeleton.tobytes(), model.native.buffer.name)
        shapes = {value.name: _static_shape(value.type) for value in inputs}
    except (InferenceError, ConfinedError):
        return {}
    finally:
        for value, type in zip(inputs, types, strict=True):
            value.type = type
    shared: dict[bytes, Type | None] = {}
    for field in fields(inferred, 0, len(inferred)):
        if field.key == schema.MODEL_GRAPH:
            for found in scan(inferred, field.start, field.stop):
                if found[0] in (schema.GRAPH_VALUE_INFO, schema.GRAPH_OUTPUT):
                    name, type = read_info(inferred, found[2], found[3], shared)
                    shapes[name] = _static_shape(type)
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _sized(value: Value, sizes: Mapping[str, int]) -> Type | None:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return value.type
    dims = enumerate(value.type.shape)
    shape = tuple(
        dim if isinstance(dim, int) else sizes[f"{value.name}.{axis}"] for axis, dim in dims
    )
    return replace(value.type, shape=shape)


def _static_shape(type: Type | None) -> tuple[int, ...] | None:
    shape = type.shape if isinstance(type, TensorType) else None
    known = tuple(dim for dim in shape or () if isinstance(dim, int))
    return None if shape is None or len(known) < len(shape) else known


def _learn(graph: Graph, nodes: Mapping[int, Node], data: bytes, message: ProtoField) -> None:
    """Take the types of a graph from the GraphProto in the answer, whose nodes are in the order of `nodes`."""
    shared: dict[bytes, Type | None] = {}
    types: dict[str, Type | None] = {}
    position = 0
    for found in scan(data, message.start, message.stop):
        if found[0] in (schema.GRAPH_VALUE_INFO, schema.GRAPH_OUTPUT):
            name, type = read_info(data, found[2], found[3], shared)
            types[name] = type
        elif found[0] == schema.GRAPH_NODE:
            # A Constant node of a body that was read as a weight has no node in the IR.
            node = nodes.get(position)
            if node is not None and node.graphs:
                for body, inner in zip(
                    node.graphs, body_messages(data, ProtoField(*found)), strict=True
                ):
                    _learn(body, {each.native.position: each for each in body.nodes}, data, inner)
            position += 1
    _sharpen(graph.values(), types)


def _ask_engine(model: Model, wanted: list[Value]) -> dict[str, Type | None]:
    """What onnxruntime says, in a process of its own, when the values are made outputs: it knows contrib operators."""
    name = model.native.buffer.name
    skeleton = Skeleton(model, wanted, stubs=False).model()
    if skeleton.size > _MOST_BYTES:
        return {}
    weights = sum(
        value.constant.length for value in model.entry.values() if value.constant is not None
    )
    memory, seconds = bounds_for(skeleton.size)
    bounds = Bounds(
        memory + _ENGINE_MEMORY + _COPIES * weights,
        seconds + _ENGINE_SECONDS + weights // _WEIGHTS_A_SECOND,
    )
    unranked = [value.name for value in model.entry.inputs if not _is_ranked(value.type)]
    try:
        with Confined(_ENGINE_PROGRAM, packages=True) as process:
            request = json.dumps(unranked).encode() + b"\n" + skeleton.tobytes()
            answer = process.answer(request, bounds)
    except ConfinedError as error:
        types = "types that neither the file nor ONNX says are not known"
        _log.warning("%s: %s: to ask onnxruntime %s", name, types, error)
        return {}
    said = json.loads(answer)
    if "refused" in said:
        _log.warning(
            "%s: onnxruntime refuses this model: %s",
            name,
            said["refused"].strip().rpartition("\n")[2],
        )
        return {}
    return {value: _engine_type(type, shape) for value, type, shape in said["types"]}


def _engine_type(text: str, shape: list[int | str | None] | None) -> Type:
    dtype = _ENGINE_TYPES.get(text)
    return (
        OpaqueType(text)
        if dtype is None
        else TensorType(dtype, None if shape is None else tuple(shape))
    )


_ENGINE_TYPES = {
    f"tensor({name})": dtype
    for name, dtype in (
        ("float", dtypes.F32),
        ("double", dtypes.F64),
        ("float16", dtypes.F16),
        ("bfloat16", dtypes.BF16),
        ("string", dtypes.STR),
        ("complex64", dtypes.C64),
        ("complex128", dtypes.C128),
        *(
            (f"{kind}int{bits}", dtypes.BY_NAME[f"{kind or 'i'}{bits}"])
            for kind in ("", "u")
            for bits in (8, 16, 32, 64)
        ),
        *((f"float{dtype.name[1:]}", dtype) for dtype in dtypes.ALL if dtype.name.startswith("f8")),
        ("bool", dtypes.BOOL),
        ("int4", dtypes.I4),
        ("uint4", dtypes.U4),
        ("int2", dtypes.I2),
        ("uint2", dtypes.U2),
        ("float4e2m1", dtypes.F4E2M1),
    )
}
