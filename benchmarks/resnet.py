"""A real ResNet-v2-101 as ONNX, 224 x 224, with seeded weights: made here, not downloaded."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from benchmarks.networks import RESNET101_BLOCKS

SEED = 101
OPSET = 17

Array = NDArray[np.float32]


class _Builder:
    """Adds nodes and their weights; a value is named by the layer that makes it."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.parameters = 0

    def weight(self, name: str, array: Array, *, learned: bool = True) -> str:
        tensor = helper.make_tensor(
            name, TensorProto.FLOAT, array.shape, array.astype("<f4").tobytes(), raw=True
        )
        self.weights.append(tensor)
        self.parameters += array.size if learned else 0
        return name

    def add(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, source: str, name: str, ins: int, outs: int, kernel: int, stride: int, *, bias: bool
    ) -> str:
        spread = np.sqrt(2.0 / (ins * kernel * kernel))
        shape = (outs, ins, kernel, kernel)
        inputs = [
            source,
            self.weight(
                f"{name}/weights", (spread * self.rng.standard_normal(shape)).astype(np.float32)
            ),
        ]
        if bias:
            inputs.append(self.weight(f"{name}/biases", np.zeros(outs, np.float32)))
        pad = (kernel - 1) // 2
        return self.add(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4
        )

    def norm(self, source: str, name: str, channels: int) -> str:
        """Normalisation and activation; the moving averages are no learned parameters."""
        one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
        inputs = [source, self.weight(f"{name}/gamma", one), self.weight(f"{name}/beta", zero)]
        inputs += [
            self.weight(f"{name}/{key}", a, learned=False)
            for key, a in (("mean", zero), ("variance", one))
        ]
        return self.add("Relu", [self.add("BatchNormalization", inputs, f"{name}/norm")], name)

    def unit(self, source: str, name: str, ins: int, depth: int, stride: int) -> str:
        """Pre-activation bottleneck; its last convolution's small gain keeps 33 sums in range."""
        inner = depth // 4
        active = self.norm(source, f"{name}/preact", ins)
        shortcut = source
        if ins != depth:
            shortcut = self.conv(active, f"{name}/shortcut", ins, depth, 1, stride, bias=True)
        a = self.norm(
            self.conv(active, f"{name}/a", ins, inner, 1, 1, bias=False), f"{name}/a/act", inner
        )
        b = self.norm(
            self.conv(a, f"{name}/b", inner, inner, 3, stride, bias=False), f"{name}/b/act", inner
        )
        return self.add(
            "Add", [shortcut, self.conv(b, f"{name}/c", inner, depth, 1, 1, bias=True)], name
        )


def build(path: Path) -> int:
    """Write the model to `path`; the number of its parameters. Units have `networks.py`'s names."""
    b = _Builder()
    value = b.conv("image", "conv1", 3, 64, 7, 2, bias=True)
    value = b.add(
        "MaxPool", [value], "pool1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    channels = 64
    for block, (count, depth) in enumerate(RESNET101_BLOCKS, 2):
        for index in range(1, count + 1):
            stride = 2 if index == 1 and block > 2 else 1
            value = b.unit(value, f"conv{block}_{index}", channels, depth, stride)
            channels = depth
    value = b.add(
        "Flatten",
        [b.add("GlobalAveragePool", [b.norm(value, "postnorm", channels)], "pool5")],
        "features",
    )
    weights = (b.rng.standard_normal((channels, 1000)) / np.sqrt(channels)).astype(np.float32)
    inputs = [
        value,
        b.weight("logits/weights", weights),
        b.weight("logits/biases", np.zeros(1000, np.float32)),
    ]
    b.add("Gemm", inputs, "logits")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])
    graph = helper.make_graph(b.nodes, "resnet-v2-101", [image], [logits], b.weights)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        graph, ir_version=8, opset_imports=[opset], producer_name="irsplit benchmarks"
    )
    path.write_bytes(model.SerializeToString())
    return b.parameters
