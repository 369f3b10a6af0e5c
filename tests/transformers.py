"""Small transformers as ONNX files, as exporters write them: shapes computed in the graph."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper, save

WIDTH, HEADS, VOCABULARY, POSITIONS = 16, 2, 50, 32


class _Writer:
    """Nodes and seeded weights of a graph that grows."""

    def __init__(self, seed: int) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self._rng = np.random.default_rng(seed)

    def op(self, op: str, *inputs: str, output: str = "", **attributes: object) -> str:
        name = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, array: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(array, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        return self.constant(
            (self._rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        )

    def linear(self, x: str, width: int = WIDTH) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(WIDTH, width)), self.weight(width))

    def normalized(self, x: str, output: str) -> str:
        return self.op(
            "LayerNormalization", x, self.weight(WIDTH), self.weight(WIDTH), output=output, axis=-1
        )

    def heads(self, x: str) -> str:
        """[batch, n, width] to [batch, heads, n, width / heads], with exporters' shapes."""
        shape = self.op("Shape", x)
        sizes = [self.op("Gather", shape, self.ints(axis), axis=0) for axis in (0, 1)]
        target = self.op("Concat", *sizes, self.ints(HEADS), self.ints(WIDTH // HEADS), axis=0)
        return self.op("Transpose", self.op("Reshape", x, target), perm=[0, 2, 1, 3])

    def attention(self, q: str, k: str, v: str, mask: str | None) -> str:
        """Of heads; back to [batch, n, width]."""
        scores = self.op("MatMul", q, self.op("Transpose", k, perm=[0, 1, 3, 2]))
        scores = scores if mask is None else self.op("Add", scores, mask)
        mixed = self.op(
            "Transpose",
            self.op("MatMul", self.op("Softmax", scores, axis=-1), v),
            perm=[0, 2, 1, 3],
        )
        return self.op("Reshape", mixed, self.ints(0, 0, WIDTH))

    def feed_forward(self, x: str, output: str) -> str:
        return self.normalized(
            self.op("Add", x, self.linear(self.op("Tanh", self.linear(x)))), output
        )

    def save(self, path: Path, inputs: list[object], outputs: list[object]) -> Path:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        model: ModelProto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )
        checker.check_model(model)
        save(model, path)
        return path


def encoder(path: Path, layers: int = 3) -> Path:
    """A BERT-like encoder; the output of layer i is called `layer{i}`."""
    g = _Writer(layers)
    ids, masked = "input_ids", "attention_mask"
    count = g.op("Gather", g.op("Shape", ids), g.constant(np.array(1, np.int64)), axis=0)
    positions = g.op(
        "Range", g.constant(np.array(0, np.int64)), count, g.constant(np.array(1, np.int64))
    )
    position = g.op("Gather", g.weight(POSITIONS, WIDTH), positions)
    x = g.normalized(
        g.op("Add", g.op("Gather", g.weight(VOCABULARY, WIDTH), ids), position), "embedded"
    )
    wide = g.op("Cast", g.op("Unsqueeze", masked, g.ints(1, 2)), to=TensorProto.FLOAT)
    one, lowest = (g.constant(np.array(value, np.float32)) for value in (1.0, -10000.0))
    mask = g.op("Mul", g.op("Sub", one, wide), lowest)
    for layer in range(layers):
        q, k, v = (g.heads(g.linear(x)) for _ in range(3))
        x = g.normalized(g.op("Add", x, g.linear(g.attention(q, k, v, mask))), f"attended{layer}")
        x = g.feed_forward(x, f"layer{layer}")
    g.op("MatMul", x, g.weight(WIDTH, 4), output="logits")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in (ids, masked)
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 4])]
    return g.save(path, [*inputs], [*outputs])


def decoder(path: Path, layers: int = 3) -> Path:
    """A decoder of one token a call that keeps earlier keys and values: `past_key_values.0.key`"""
    g = _Writer(layers)
    x = g.normalized(g.op("Gather", g.weight(VOCABULARY, WIDTH), "input_ids"), "embedded")
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 1])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, VOCABULARY])]
    for layer in range(layers):
        kept: list[str] = []
        for kind in ("key", "value"):
            past, present = f"past_key_values.{layer}.{kind}", f"present.{layer}.{kind}"
            kept.append(g.op("Concat", past, g.heads(g.linear(x)), output=present, axis=2))
            for name, where, size in (
                (past, inputs, "past_length"),
                (present, outputs, "total_length"),
            ):
                shape = [1, HEADS, size, WIDTH // HEADS]
                where.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        attended = g.attention(g.heads(g.linear(x)), kept[0], kept[1], None)
        x = g.normalized(g.op("Add", x, g.linear(attended)), f"attended{layer}")
        x = g.feed_forward(x, f"layer{layer}")
    g.op("MatMul", x, g.weight(WIDTH, VOCABULARY), output="logits")
    return g.save(path, [*inputs], [*outputs])
