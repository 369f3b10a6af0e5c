"""Mutants of model files and of IR text, and valid models far too deep, wide or large.

`onnx_mutants`, `tflite_mutants` and `text_mutants` damage small real models: anywhere, or
(protobuf) by taking messages out, doubling them, putting one inside another and setting numbers to
the edges of their range. What is accepted is then taken through everything that looks at a whole
model: verifier, printer, cuts with their reasons, operation counts, writer.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

import corpus
from hostile.damage import WIDE_EDGES, damaged
from hostile.target import Target
from irsplit.dialects.base import Dialect
from irsplit.dialects.onnx import ONNX
from irsplit.dialects.onnx.wire import BYTES, VARINT, WireError, fields, varint
from irsplit.dialects.tflite import TFLITE
from irsplit.ir import Model, parse_model, print_model, verify
from irsplit.passes.analysis.cuts import find_cuts
from tflite_models import Sketch

EXAMPLES = Path(__file__).parents[2] / "examples" / "digits"
CASES = Path(__file__).parents[1] / "cases"
LARGEST = 200_000
"""Bytes of a model that is worth damaging: in a larger one most bytes are weights."""

# -- mutants ---------------------------------------------------------------------------------------


def onnx_mutants(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        model = random.choice(_onnx_models())
        yield damaged(model, random) if random.random() < 0.4 else _rebuilt(model, random)


def tflite_mutants(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        model = random.choice(_tflite_models())
        # Tables come before weights: most damage should not hit those.
        head = min(len(model), 4096) if random.random() < 0.7 else len(model)
        yield damaged(model[:head], random) + model[head:]


def text_mutants(seed: int, count: int) -> Iterator[bytes]:
    random = Random(seed)
    for _ in range(count):
        text = random.choice(_texts())
        yield damaged(text, random) if random.random() < 0.3 else _reworded(text, random)


def _rebuilt(message: bytes, random: Random) -> bytes:
    """A protobuf message with one field, at any depth, that is not as it was."""
    try:
        found = fields(message, 0, len(message))
    except WireError:
        return damaged(message, random)
    if not found:
        return random.randbytes(4)
    field = random.choice(found)
    key, payload = varint(field.key), message[field.start : field.stop]
    inner = field.key & 7 == BYTES
    match random.randrange(8 if inner else 4):
        case 0:
            replaced = b""
        case 1:
            replaced = message[field.head : field.stop] * random.choice((2, 3, 50))
        case 2:
            other = random.choice(found)
            replaced = key + message[other.start - 1 : other.stop]
        case 3 if field.key & 7 == VARINT:
            replaced = key + varint(random.choice(WIDE_EDGES))
        case 4:
            odd = random.choice(
                (b"", b"\0", b"\xff\xfe", b"../../x", b"x" * 3000, "é\x1b[2J\n".encode())
            )
            replaced = key + varint(len(odd)) + odd
        case _:
            changed = _rebuilt(payload, random) if inner else damaged(payload, random)
            replaced = key + varint(len(changed)) + changed
    return message[: field.head] + replaced + message[field.stop :]


_TOKEN = re.compile(rb'"[^"]*"|[\w.$-]+|\s+|.', re.DOTALL)
_ODD_TOKENS = (
    b'"\\ud800"', b'"\\x"', b'"', b"0x1", b"0x", b"-1", b"9" * 5000, b"1e999", b"nan", b"\0",
    "é".encode(), b"[" * 300, b"%x", b"@main", b"{", b"}", b"with {", b"graph @g() {",
    b"irsplit.send 0", b"irsplit.recv", b"boundary=[1]", b"_", b"f32[*]", b"f32[-1]",
    b"q(0:0; axis -1)", b"sized()", b"device", b"a" * 3000, b"// x", b"random", b"calls @main",
)  # fmt: skip


def _reworded(text: bytes, random: Random) -> bytes:
    """Text with some of its words removed, doubled, swapped or replaced."""
    words = _TOKEN.findall(text)
    for _ in range(random.randint(1, 4)):
        place, other = random.randrange(len(words)), random.randrange(len(words))
        match random.randrange(4):
            case 0:
                words[place] = b""
            case 1:
                words[place] = words[other]
            case 2:
                words[place], words[other] = words[other], words[place]
            case _:
                words[place] = b" " + random.choice(_ODD_TOKENS) + b" "
    return b"".join(words)


@cache
def _onnx_models() -> tuple[bytes, ...]:
    return (bodies_and_functions(), *_files("onnx"))


@cache
def _tflite_models() -> tuple[bytes, ...]:
    return tuple(_files("tflite"))


@cache
def _texts() -> tuple[bytes, ...]:
    cases = [path.read_text(encoding="utf-8") for path in sorted(CASES.glob("*/*.irs"))]
    parts = [part.encode() for case in cases for part in case.split("// ----\n")]
    real = [ONNX.read(EXAMPLES / "digits.onnx"), TFLITE.read(EXAMPLES / "digits_int8.tflite")]
    return (*parts, *(print_model(model).encode() for model in real))


def _files(format: str) -> list[bytes]:
    """The example and, where there is a corpus, its small models and those that no engine opens."""
    sources = [EXAMPLES / f"digits.{format}"]
    sources += [model.path for section in ("micro", "hostile") for model in corpus.load(section)]
    return [
        path.read_bytes()
        for path in sources
        if path.suffix == f".{format}" and 0 < path.stat().st_size < LARGEST
    ]


# -- readers ---------------------------------------------------------------------------------------


def read_onnx(mutant: bytes, folder: Path) -> None:
    _read(ONNX, mutant, folder)


def read_tflite(mutant: bytes, folder: Path) -> None:
    _read(TFLITE, mutant, folder)


def _read(dialect: Dialect, mutant: bytes, folder: Path) -> None:
    path = folder / f"model{dialect.extensions[0]}"
    path.write_bytes(mutant)
    model = dialect.read(path)
    look_at(model)
    for node in model.entry.nodes:
        dialect.macs(node)
        dialect.is_cheap(node)
    dialect.write(model, model.entry, folder / f"written{dialect.extensions[0]}")


def read_text(mutant: bytes, folder: Path) -> None:
    """As `irsplit opt` reads it."""
    try:
        text = mutant.decode()
    except UnicodeDecodeError:
        return
    look_at(parse_model(text))


def look_at(model: Model) -> None:
    """Everything that reads a whole model and no elements."""
    verify(model)
    print_model(model).encode()
    for cut in find_cuts(model.entry):
        assert cut.reason is None or len(cut.reason) < 4000


TARGETS = (
    Target("models: ONNX reader", onnx_mutants, read_onnx),
    Target("models: TFLite reader", tflite_mutants, read_tflite),
    Target("models: IR text parser", text_mutants, read_text),
)

# -- models that are too much ----------------------------------------------------------------------

FLOAT = TensorProto.FLOAT


def bodies_and_functions() -> bytes:
    """A small model with a loop, a branch, nested functions, a sparse and a typed weight."""
    call = helper.make_node("Twice", ["x"], ["t"], domain="local")
    inner = helper.make_node("Add", ["a", "a"], ["b"])
    relay = helper.make_node("Sum", ["a"], ["b"], domain="local")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function("local", "Sum", ["a"], ["b"], [inner], opsets),
        helper.make_function("local", "Twice", ["a"], ["b"], [relay], opsets),
    ]
    branches = {
        f"{word}_branch": helper.make_graph(
            [helper.make_node(op, ["t"], [f"{word}_y"])], word, [], [_info(f"{word}_y")]
        )
        for word, op in (("then", "Relu"), ("else", "Neg"))
    }
    step = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Mul", ["h", "w"], ["next"]),
        ],
        "step",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []), _info("h")],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), _info("next")],
    )  # fmt: skip
    nodes = [
        call,
        helper.make_node("If", ["yes"], ["c"], **branches),
        helper.make_node("Loop", ["trips", "yes", "c"], ["l"], body=step),
        helper.make_node("Shape", ["l"], ["shape"]),
        helper.make_node("Reshape", ["l", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.array(3), "trips"),
        numpy_helper.from_array(np.ones((2, 4), np.float32), "w"),
        helper.make_tensor("v", FLOAT, [4, 2], [1.0] * 8),
    ]
    graph = helper.make_graph(
        nodes, "net", [_info("x")], [helper.make_empty_tensor_value_info("y")], weights
    )
    return helper.make_model(
        graph, functions=functions, opset_imports=opsets, ir_version=10
    ).SerializeToString()


def _info(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, [2, 4])


def net(
    nodes: list[onnx.NodeProto],
    weights: tuple[onnx.TensorProto, ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> bytes:
    """A model from the input x: f32[2,4] to the output y, of which nothing is said."""
    graph = helper.make_graph(
        nodes, "net", [_info("x")], [helper.make_empty_tensor_value_info("y")], weights
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(
        graph, functions=functions, opset_imports=opsets, ir_version=10
    ).SerializeToString()


def huge_shape() -> bytes:
    """A shape of 2^40 elements, which ONNX's inference writes down one by one."""
    size = numpy_helper.from_array(np.array([2**40]), "n")
    nodes = [
        helper.make_node(
            "ConstantOfShape", ["n"], ["ends"], value=numpy_helper.from_array(np.array([1]))
        ),
        helper.make_node("Slice", ["x", "ends", "ends"], ["y"]),
    ]
    return net(nodes, (size,))


def doubled_shape() -> bytes:
    """A shape that is put behind itself, over and over: inference writes it down each time."""
    nodes = [helper.make_node("Shape", ["x"], ["d0"])]
    nodes += [
        helper.make_node("Concat", [f"d{i}", f"d{i}"], [f"d{i + 1}"], axis=0) for i in range(40)
    ]
    return net([*nodes, helper.make_node("Slice", ["x", "d40", "d40"], ["y"])])


def call_chain(depth: int, calls: int = 1) -> bytes:
    """Functions that call the next one, each `calls` times."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions: list[onnx.FunctionProto] = []
    for level in range(depth):
        names = ["a", *(f"m{i}" for i in range(calls - 1)), "b"]
        op, domain = (f"F{level + 1}", "local") if level + 1 < depth else ("Relu", "")
        nodes = [
            helper.make_node(op, [names[i]], [names[i + 1]], domain=domain) for i in range(calls)
        ]
        functions.append(helper.make_function("local", f"F{level}", ["a"], ["b"], nodes, opsets))
    return net([helper.make_node("F0", ["x"], ["y"], domain="local")], functions=tuple(functions))


def doubled_calls() -> bytes:
    """Functions of which each calls the next one twice: inference looks into each call."""
    return call_chain(40, calls=2)


def relu(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target])


def many_dims(count: int, *, as_weight: bool) -> bytes:
    """A tensor of many dimensions: a weight, or the input."""
    if as_weight:
        weight = TensorProto(dims=[7] * count, data_type=FLOAT, name="w", raw_data=b"")
        return net([helper.make_node("Add", ["x", "w"], ["y"])], (weight,))
    graph = helper.make_graph(
        [relu("x", "y")],
        "net",
        [helper.make_tensor_value_info("x", FLOAT, [7] * count)],
        [helper.make_empty_tensor_value_info("y")],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def nested_bodies(depth: int) -> bytes:
    """An If in an If; protobuf's own classes stop at 100 messages."""
    info = message(12, _info("y").SerializeToString())
    graph = Wrapped(message(1, message(1, b"x") + message(2, b"y") + message(4, b"Relu")) + info)
    for _ in range(depth):
        graph.wrap(6, before=message(1, b"then_branch"))
        graph.wrap(5, before=message(1, b"yes") + message(2, b"y") + message(4, b"If"))
        graph.wrap(1, after=info)
    yes = numpy_helper.from_array(np.array(True), "yes").SerializeToString()
    graph.after.append(message(5, yes) + message(11, _info("x").SerializeToString()))
    return b"\x08\x08" + message(7, graph.tobytes()) + message(8, b"\x10\x11")


def nested_type(depth: int) -> bytes:
    """An input that is a sequence of sequences."""
    type = Wrapped(message(1, b"\x08\x01"))
    for _ in range(depth):
        type.wrap(1)
        type.wrap(4)
    info = message(1, b"x") + message(2, type.tobytes())
    node = message(1, b"x") + message(2, b"y") + message(4, b"Identity")
    graph = message(1, node) + message(11, info) + message(12, message(1, b"y"))
    return b"\x08\x08" + message(7, graph) + message(8, b"\x10\x11")


def message(number: int, payload: bytes) -> bytes:
    """A field of a protobuf message."""
    return varint(number << 3 | BYTES) + varint(len(payload)) + payload


class Wrapped:
    """A protobuf message that becomes a field of another, again and again, without copies."""

    def __init__(self, payload: bytes) -> None:
        self.before: list[bytes] = []
        self.after = [payload]
        self.size = len(payload)

    def wrap(self, number: int, before: bytes = b"", after: bytes = b"") -> None:
        """The message becomes field `number`, between other fields."""
        head = before + varint(number << 3 | BYTES) + varint(self.size)
        self.before.append(head)
        self.after.append(after)
        self.size += len(head) + len(after)

    def tobytes(self) -> bytes:
        return b"".join((*reversed(self.before), *self.after))


def long_names(length: int, branches: int = 20) -> bytes:
    """Values and nodes with long names, and pending branches, so that reasons name them."""
    nodes = [helper.make_node("Relu", ["x"], ["a" * length], "n" * length)]
    nodes += [
        helper.make_node("Relu", ["x" if not i else f"h{i - 1}"], [f"h{i}"], f"{i}" * 50)
        for i in range(branches)
    ]
    return net([*nodes, helper.make_node("Add", [f"h{branches - 1}", "a" * length], ["y"])])


def external(**entries: str) -> bytes:
    """A weight that lies where `entries` say."""
    weight = TensorProto(dims=[2, 4], data_type=FLOAT, name="w", data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        weight.external_data.add(key=key, value=value)
    return net([helper.make_node("Add", ["x", "w"], ["y"])], (weight,))


def subgraph_chain(depth: int, path: Path, *, resource: bool = False) -> Path:
    """A TFLite model whose subgraphs call the next one; `resource`: and hand a variable on."""
    sketch = Sketch()
    for level in range(depth):
        sketch.subgraph(f"level{level}")
        x = sketch.input("x", (1, 2))
        operands = [x]
        if resource and level:
            operands.append(sketch.input("variable", (), "resource"))
        elif resource:
            handle = sketch.tensor("variable", (), "resource")
            sketch.operator("VAR_HANDLE", [], [handle], schema.VarHandleOptionsT(sharedName="v"))
            operands.append(handle)
        if level + 1 < depth:
            y = sketch.then(
                "CALL", operands, "y", (1, 2), options=schema.CallOptionsT(subgraph=level + 1)
            )
        else:
            y = sketch.then("ABS", [x], "y", (1, 2), options=schema.AbsOptionsT())
        sketch.graph.outputs.append(y)
    return sketch.save(path)


def external_buffer(name: str, path: Path) -> Path:
    """A TFLite model with a weight in another file."""
    sketch = Sketch()
    sketch.model.externalBufferGroups = [schema.ExternalBufferGroupT(name=name)]
    sketch.model.externalBuffers = [schema.ExternalBufferT(id=1, group=0, offset=0, length=8)]
    sketch.subgraph("main")
    x = sketch.input("x", (1, 2))
    w = sketch.tensor("w", (1, 2), externalBuffer=1)
    sketch.graph.outputs.append(
        sketch.then("ADD", [x, w], "y", (1, 2), options=schema.AddOptionsT())
    )
    return sketch.save(path)


def huge_dims(path: Path) -> Path:
    """A TFLite model whose tensors have the largest dimensions that the format can say."""
    sketch = Sketch()
    sketch.subgraph("main")
    sketch.chain("a", "b", "y", shape=(2**31 - 1,) * 8)
    return sketch.save(path)


def nested_text(depth: int) -> str:
    """A node with a body with a node with a body."""
    head = "graph @main(%x: f32[1]) -> (%x) {\n"
    return head + "test.op() with { graph @g() {\n" * depth + "} }\n" * depth + "}\n"


def nested_list(depth: int) -> str:
    return f"graph @main(%x: f32[1]) -> (%x) {{\n  test.op() {{a={'[' * depth}{']' * depth}}}\n}}\n"
