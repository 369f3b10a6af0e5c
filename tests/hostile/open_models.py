"""Small models with open inputs: rows, tokens, samples of sound, pixels. Seeded weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import irsplit
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.frame import frame as framing
from irsplit.runtime.run.engines import ONE_THREAD
from irsplit.runtime.serving.protocol.messages import InferRequest, frame_tensor
from irsplit.runtime.serving.server.served import Limits, ServedBundle

_Shape = Sequence[int | str]


def bundle(kind: str, folder: Path) -> Manifest:
    """A bundle of one of `KINDS`, cut at "cut"."""
    path = folder / f"{kind}.onnx"
    onnx.save(KINDS[kind](), path)
    return irsplit.compile_model(path, folder / kind, ["cut"], remember=False).manifest


def memory_of(folder: Path, shape: Sequence[int]) -> tuple[int, int]:
    """Bytes that resuming such a frame takes at most, and bytes that are kept; for `isolated`."""
    manifest = Manifest.load(folder)
    served = ServedBundle(manifest, "open", Limits(), ONE_THREAD)
    frame = framing.encode(manifest.boundaries[0], [np.zeros(shape, np.float32)])
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    served.infer(InferRequest("open", "", [frame_tensor(frame)]))
    return _status("VmHWM") - before, _status("VmRSS") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


def rows() -> onnx.ModelProto:
    """Dense layers, each 64 times as wide as what crosses."""
    nodes = [
        helper.make_node("Relu", ["x"], ["cut"]),
        helper.make_node("MatMul", ["cut", "w1"], ["wide"]),
        helper.make_node("Relu", ["wide"], ["active"]),
        helper.make_node("MatMul", ["active", "w2"], ["y"]),
    ]
    return _model(nodes, ["batch", 16], ["batch", 4], w1=_weights(16, 1024), w2=_weights(1024, 4))


def tokens() -> onnx.ModelProto:
    """Attention of one head: memory grows with the square of the tokens."""
    nodes = [
        helper.make_node("Relu", ["x"], ["cut"]),
        helper.make_node("Transpose", ["cut"], ["keys"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["cut", "keys"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "cut"], ["mixed"]),
        helper.make_node("ReduceMean", ["mixed"], ["y"], axes=[1], keepdims=0),
    ]
    return _model(nodes, ["batch", "tokens", 32], ["batch", 32])


def sound() -> onnx.ModelProto:
    """Strided convolutions over samples."""
    nodes = [
        helper.make_node("Neg", ["x"], ["cut"]),
        helper.make_node("Conv", ["cut", "w1"], ["first"], strides=[4]),
        helper.make_node("Relu", ["first"], ["active"]),
        helper.make_node("Conv", ["active", "w2"], ["second"], strides=[4]),
        helper.make_node("GlobalAveragePool", ["second"], ["y"]),
    ]
    return _model(
        nodes,
        ["batch", 1, "samples"],
        ["batch", 16, 1],
        w1=_weights(16, 1, 8),
        w2=_weights(16, 16, 8),
    )


def picture() -> onnx.ModelProto:
    """Convolutions over pixels in full size."""
    nodes = [
        helper.make_node("Neg", ["x"], ["cut"]),
        helper.make_node("Conv", ["cut", "w1"], ["first"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first"], ["active"]),
        helper.make_node("Conv", ["active", "w2"], ["second"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["second"], ["y"]),
    ]
    weights = {"w1": _weights(8, 3, 3, 3), "w2": _weights(8, 8, 3, 3)}
    return _model(nodes, ["batch", 3, "height", "width"], ["batch", 8, 1, 1], **weights)


KINDS = {"rows": rows, "tokens": tokens, "sound": sound, "picture": picture}


def _weights(*shape: int) -> Any:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32) / 8


def _model(
    nodes: list[onnx.NodeProto], given: _Shape, made: _Shape, **weights: Any
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, given)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, made)
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "open", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
