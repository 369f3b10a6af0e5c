"""Segments: each is a model that a stock engine opens, has what it uses and nothing else, and in
sequence they compute the bits of the whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from irsplit.base.errors import ModelError, UnsupportedError
from irsplit.dialects.base import WriteOptions
from irsplit.dialects.onnx import ONNX
from irsplit.ir import Model, engine_graph, verify
from irsplit.passes.analysis.cuts import find_cuts, schedule
from irsplit.passes.partition import split
from stock_engines import open_model, same_bits

Array = NDArray[Any]
FLOAT = TensorProto.FLOAT


def info(name: str, shape: Sequence[int | str] = (2, 3), dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str, values: object, dtype: type[np.generic] = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    domains: Sequence[str] = (),
    **fields: Any,
) -> onnx.ModelProto:
    """From x: f32[2,3] to y, unless given otherwise."""
    graph = helper.make_graph(nodes, "net", inputs or [info("x")], outputs or [info("y")], weights)
    imports = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, **{"ir_version": 8, **fields})


def feed(model: onnx.ModelProto) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    defaults = {tensor.name for tensor in model.graph.initializer}
    found: dict[str, Array] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.name not in defaults:
            shape = [dim.dim_value or 2 for dim in kind.shape.dim]
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            found[value.name] = (rng.standard_normal(shape) * 4).astype(dtype)
    return found


def parts(path: Path, max_tensors: int = 1, cut: str | None = None) -> list[tuple[str, Model]]:
    """For every legal cut, or the one at this tensor: what crosses, and the model as segments."""
    found: list[tuple[str, Model]] = []
    for index in range(len(find_cuts(ONNX.read(path).entry, max_tensors))):
        model = ONNX.read(path)
        plan = schedule(model.entry)
        chosen = find_cuts(plan, max_tensors)[index]
        name = "+".join(value.name for value in chosen.tensors)
        if chosen.legal and cut in (None, name):
            model.graphs[:1] = split(plan, [chosen], ("device", "server"))
            verify(model)
            found.append((name, model))
    return found


def written(model: Model, folder: Path, options: WriteOptions = WriteOptions()) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [
        ONNX.write(model, engine_graph(graph), folder / f"{graph.name}.onnx", options)[0]
        for graph in model.segments
    ]


def chain(paths: Sequence[Path], values: Mapping[str, Array]) -> dict[str, Array]:
    known = dict(values)
    for path in paths:
        engine = open_model(path)
        known.update(
            zip(engine.outputs, engine.run([known[name] for name in engine.inputs]), strict=True)
        )
    return known


def check(
    proto: onnx.ModelProto,
    folder: Path,
    max_tensors: int = 1,
    options: WriteOptions = WriteOptions(),
) -> dict[str, list[onnx.ModelProto]]:
    """Split at every legal cut and compare with the whole; the halves by what crosses."""
    source = folder / "source.onnx"
    source.write_bytes(proto.SerializeToString())
    values = feed(proto)
    whole = chain([source], values)
    halves: dict[str, list[onnx.ModelProto]] = {}
    for name, model in parts(source, max_tensors):
        paths = written(model, folder / "halves", options)
        result = chain(paths, values)
        outputs = [value.name for value in proto.graph.output]
        assert same_bits(
            [result[output] for output in outputs], [whole[output] for output in outputs]
        ), name
        halves[name] = [onnx.load(path) for path in paths]
    return halves


def names(tensors: Any) -> list[str]:
    return [tensor.name for tensor in tensors]


def test_each_half_has_the_weights_and_types_that_it_uses(tmp_path: Path):
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("Add", ["g", "b"], ["y"]),
    ]
    proto = model_of(nodes, [weight("a", [1, 2, 3]), weight("b", [4, 5, 6]), weight("unused", [0])])
    proto.graph.value_info.extend([info("h"), info("g")])

    device, server = check(proto, tmp_path)["h"]

    assert (names(device.graph.initializer), names(server.graph.initializer)) == (["a"], ["b"])
    assert (names(device.graph.value_info), names(server.graph.value_info)) == ([], ["g"])
    assert device.graph.output[0] == server.graph.input[0] == info("h")


def test_a_body_keeps_what_it_captures_on_its_side(tmp_path: Path):
    """`early` is read only inside the branches, one of them nested, with the same inner name."""
    inner = helper.make_graph(
        [helper.make_node("Add", ["early", "w"], ["t"])], "inner", [], [info("t")]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["early"], ["o"])], "other", [], [info("o")]
    )
    nested = helper.make_node("If", ["c"], ["t"], then_branch=inner, else_branch=other)
    branches = [
        helper.make_graph([nested], "then", [], [info("t")]),
        helper.make_graph([helper.make_node("Neg", ["early"], ["t"])], "else", [], [info("t")]),
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["early"]),
        helper.make_node("If", ["c"], ["late"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Neg", ["late"], ["y"]),
    ]
    proto = model_of(nodes, [weight("w", 2.0), weight("c", True, np.bool_)])

    halves = check(proto, tmp_path)

    assert names(halves["early"][1].graph.initializer) == ["w", "c"]
    assert names(halves["early"][0].graph.initializer) == []
    assert names(halves["late"][1].graph.initializer) == []


def local(name: str, nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], nodes, imports)


def test_functions_follow_their_calls(tmp_path: Path):
    """Through other functions and out of bodies; a name is a function only in its domain."""
    functions = [
        local("Inner", [helper.make_node("Neg", ["a"], ["b"])]),
        local("Outer", [helper.make_node("Inner", ["a"], ["b"], domain="local")]),
        local("Relu", [helper.make_node("Abs", ["a"], ["b"])]),
        local("Unused", [helper.make_node("Exp", ["a"], ["b"])]),
    ]
    branches = [
        helper.make_graph([helper.make_node(op, ["h"], [op], domain=domain)], op, [], [info(op)])
        for op, domain in (("Outer", "local"), ("Relu", ""))
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["h"], domain="local"),
        helper.make_node("If", ["c"], ["g"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("Relu", ["g"], ["y"]),
    ]
    proto = model_of(
        nodes,
        [weight("c", True, np.bool_)],
        functions=functions,
        domains=["local", "com.microsoft"],
    )

    halves = check(proto, tmp_path)

    def used(half: onnx.ModelProto) -> tuple[list[str], list[str]]:
        return names(half.functions), [entry.domain for entry in half.opset_import]

    assert [used(half) for half in halves["h"]] == [
        (["Relu"], ["", "local"]),
        (["Inner", "Outer"], ["", "local"]),
    ]
    assert used(halves["g"][1]) == ([], [""])


def test_old_models_list_initializers_as_inputs_and_new_ones_keep_defaults(tmp_path: Path):
    nodes = [helper.make_node("Mul", ["x", "a"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    weights = [weight("a", [1, 2, 3]), weight("b", [4, 5, 6])]
    for version in (3, 8):
        proto = model_of(
            nodes, weights, [info("x"), info("a", [3]), info("b", [3])], ir_version=version
        )
        proto.opset_import[0].version = 8

        device, server = check(proto, tmp_path)["h"]

        assert names(device.graph.input) == ["x", "a"]
        assert sorted(names(server.graph.input)) == ["b", "h"]
        assert names(server.graph.initializer) == ["b"]


def test_absent_operands_and_unused_results(tmp_path: Path):
    nodes = [
        helper.make_node("Clip", ["x", "", "top"], ["h"]),
        helper.make_node("GRU", ["h", "w", "r", "", "", "start"], ["", "g"], hidden_size=2),
        helper.make_node("Neg", ["g"], ["y"]),
    ]
    weights = [weight("top", 1.5), weight("w", np.ones((1, 6, 3))), weight("r", np.ones((1, 6, 2)))]
    start = weight("start", np.ones((1, 1, 2)))
    proto = model_of(nodes, [*weights, start], [info("x", [2, 1, 3])], [info("y", [1, 1, 2])])

    assert set(check(proto, tmp_path)) == {"h", "g"}


def test_outputs_of_the_near_half_and_weights_as_outputs(tmp_path: Path):
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    proto = model_of(nodes, [weight("w", [1, 2])], outputs=[info("y"), info("h"), info("w", [2])])

    device, server = check(proto, tmp_path)["h"]

    assert names(device.graph.output) == ["h"]
    assert names(server.graph.output) == ["y", "w"]


def test_a_quantized_boundary_keeps_its_parameters(tmp_path: Path):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Neg", ["d"], ["y"]),
    ]
    proto = model_of(nodes, [weight("s", 0.05), weight("z", 3, np.int8)])

    device, server = check(proto, tmp_path)["q"]

    assert device.graph.output[0].type.tensor_type.elem_type == TensorProto.INT8
    assert names(device.graph.initializer) == names(server.graph.initializer) == ["s", "z"]


def test_quantization_annotations_follow_their_tensor_and_bring_their_parameters(tmp_path: Path):
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]
    proto = model_of(nodes, [weight("h_scale", 0.1)])
    annotation = proto.graph.quantization_annotation.add(tensor_name="h")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="h_scale")
    proto.graph.quantization_annotation.add(tensor_name="y")

    device, server = check(proto, tmp_path)["h"]

    assert [entry.tensor_name for entry in device.graph.quantization_annotation] == ["h"]
    assert [entry.tensor_name for entry in server.graph.quantization_annotation] == ["h", "y"]
    assert names(device.graph.initializer) == names(server.graph.initializer) == ["h_scale"]


def test_metadata_travels_and_training_information_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first, second = (
        helper.make_node("Relu", ["x"], ["h"], "one"),
        helper.make_node("Neg", ["h"], ["y"], "two"),
    )
    first.metadata_props.add(key="origin", value="here")
    second.doc_string = "the last one"
    proto = model_of([first, second])
    proto.metadata_props.add(key="author", value="somebody")
    proto.training_info.add().algorithm.name = "descent"

    device, server = check(proto, tmp_path)["h"]

    assert device.graph.node[0] == first
    assert server.graph.node[0] == second
    for half in (device, server):
        assert [entry.value for entry in half.metadata_props] == ["somebody"]
        assert not half.training_info
    assert "training information stays with the whole model" in caplog.text


def test_what_onnx_does_not_know_yet_rides_along(tmp_path: Path):
    """Fields of a future schema, in a node and in the model; protobuf calls them unknown."""
    future = b"\xfa\x3f\x03new"  # field 1023, three bytes
    first, second = helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Neg", ["h"], ["y"])
    first.MergeFromString(future)
    proto = model_of([first, second])
    proto.MergeFromString(future)

    device, server = check(proto, tmp_path)["h"]

    assert device.graph.node[0].SerializeToString() == first.SerializeToString()
    assert future in server.SerializeToString()


def test_nodes_out_of_order_are_sorted_in_segments(tmp_path: Path):
    nodes = [
        helper.make_node("Neg", ["g"], ["y"]),
        helper.make_node("Abs", ["h"], ["g"]),
        helper.make_node("Relu", ["x"], ["h"]),
    ]

    device, server = check(model_of(nodes), tmp_path)["h"]

    assert [node.op_type for node in (*device.graph.node, *server.graph.node)] == [
        "Relu",
        "Abs",
        "Neg",
    ]


def test_sparse_weights(tmp_path: Path):
    sparse = helper.make_sparse_tensor(
        weight("w", [2.0, 3.0]), weight("places", [1, 5], np.int64), [2, 3]
    )
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Add", ["h", "w"], ["y"])]
    proto = model_of(nodes)
    proto.graph.sparse_initializer.append(sparse)

    device, server = check(proto, tmp_path)["h"]

    assert not device.graph.sparse_initializer
    assert server.graph.sparse_initializer[0] == sparse
    read = ONNX.read(tmp_path / "source.onnx")
    assert ONNX.array(read.entry.constants[0]).tolist() == [[0, 2, 0], [0, 0, 3]]


DTYPES = [
    (TensorProto.FLOAT, [1.5, -2.0, 0.0]),
    (TensorProto.DOUBLE, [1.5, -2.0, 0.0]),
    (TensorProto.FLOAT16, [1.5, -2.0, 0.0]),
    (TensorProto.BFLOAT16, [1.5, -2.0, 0.0]),
    (TensorProto.FLOAT8E4M3FN, [1.5, -2.0, 0.0]),
    (TensorProto.INT8, [1, -2, 3]),
    (TensorProto.UINT8, [1, 2, 255]),
    (TensorProto.INT4, [1, -2, 3]),
    (TensorProto.UINT4, [1, 2, 15]),
    (TensorProto.INT64, [1, -(2**62), 3]),
    (TensorProto.UINT64, [1, 2**63, 3]),
    (TensorProto.BOOL, [True, False, True]),
    (TensorProto.STRING, ["one", "two", "drei"]),
    (TensorProto.COMPLEX64, [1 + 2j, 3j, 0j]),
]


@pytest.mark.parametrize(
    ("dtype", "values"), DTYPES, ids=[TensorProto.DataType.Name(dtype) for dtype, _ in DTYPES]
)
@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_elements_of_any_type_and_storage(dtype: int, values: list[Any], raw: bool, tmp_path: Path):
    tensor = helper.make_tensor("w", dtype, [3], values)
    if raw and dtype != TensorProto.STRING:
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor), "w")
    proto = model_of(
        [helper.make_node("Relu", ["x"], ["y"])],
        [tensor],
        outputs=[info("y"), info("w", [3], dtype)],
    )
    source = tmp_path / "source.onnx"
    source.write_bytes(proto.SerializeToString())
    read = ONNX.read(source)

    ONNX.write(read, read.entry, tmp_path / "out.onnx")

    assert (tmp_path / "out.onnx").read_bytes() == source.read_bytes()
    expected = numpy_helper.to_array(tensor)
    found = ONNX.array(read.entry.constants[0])
    assert (
        found.tobytes() == expected.tobytes()
        if dtype != TensorProto.STRING
        else found.tolist() == expected.tolist()
    )


def external(folder: Path) -> onnx.ModelProto:
    """Two weights in one file, in reverse order with a gap, the third in a folder below."""
    (folder / "sub").mkdir()
    first, second, third = (np.full((2, 3), value, np.float32) for value in (1, 2, 3))
    (folder / "weights.bin").write_bytes(second.tobytes() + bytes(7) + first.tobytes())
    (folder / "sub" / "more.bin").write_bytes(bytes(3) + third.tobytes() + bytes(5))
    weights: list[onnx.TensorProto] = []
    for name, location, offset in (
        ("a", "weights.bin", 31),
        ("b", "weights.bin", 0),
        ("c", "sub/more.bin", 3),
    ):
        tensor = TensorProto(
            name=name, data_type=FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value=location)
        tensor.external_data.add(key="offset", value=str(offset))
        tensor.external_data.add(key="length", value="24")
        weights.append(tensor)
    nodes = [
        helper.make_node("Mul", ["x", "a"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["g"]),
        helper.make_node("Sub", ["g", "c"], ["y"]),
    ]
    return model_of(nodes, weights)


def test_external_weights_come_inline_when_they_fit(tmp_path: Path):
    halves = check(external(tmp_path), tmp_path)

    assert list(halves) == ["h", "g"]
    assert all(
        tensor.HasField("raw_data") for half in halves["h"] for tensor in half.graph.initializer
    )
    assert sorted(path.name for path in (tmp_path / "halves").iterdir()) == [
        "device.onnx",
        "server.onnx",
    ]


@pytest.mark.parametrize("in_body", [False, True])
def test_constant_nodes_may_have_their_elements_in_other_files(in_body: bool, tmp_path: Path):
    """Weights of the graph are copied or shared, like initializers; those of a body are copied."""
    proto = external(tmp_path)
    first, second, third = proto.graph.initializer
    third.name = ""
    last = [
        helper.make_node("Constant", [], ["c"], value=third),
        helper.make_node("Sub", ["g", "c"], ["y"]),
    ]
    if in_body:
        last[1].output[0] = "inner"
        body = helper.make_graph(last, "body", [], [info("inner")])
        last = [helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)]
    nodes = [helper.make_node("Constant", [], ["b"], value=second), *proto.graph.node[:2], *last]
    source = tmp_path / "source.onnx"
    source.write_bytes(
        model_of(nodes, [first, numpy_helper.from_array(np.array(True), "yes")]).SerializeToString()
    )
    external_data_helper.load_external_data_for_model(proto, str(tmp_path))
    third.name = "c"
    (tmp_path / "plain.onnx").write_bytes(proto.SerializeToString())
    expected = chain([tmp_path / "plain.onnx"], feed(proto))["y"]

    cuts = parts(source)

    assert [name for name, _ in cuts] == ["h", "g"]
    for name, model in cuts:
        assert same_bits([chain(written(model, tmp_path / name), feed(proto))["y"]], [expected])
        if not in_body:  # engines refuse linked files of bodies
            shared = written(model, tmp_path / f"{name}_shared", WriteOptions(share_weights=True))
            assert same_bits([chain(shared, feed(proto))["y"]], [expected])
            assert (tmp_path / f"{name}_shared" / "sub" / "more.bin").samefile(
                tmp_path / "sub" / "more.bin"
            )


def test_weights_go_beside_the_model_over_the_limit(tmp_path: Path):
    """Large ones once each and aligned, small ones (shapes that engines want to see) never."""
    big = np.arange(64 * 1024, dtype=np.float32).reshape(256, 256)
    nodes = [
        helper.make_node("MatMul", ["x", "big"], ["h"]),
        helper.make_node("MatMul", ["h", "same"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["y"]),
    ]
    weights = [weight("big", big), weight("same", big), weight("shape", [512], np.int64)]
    proto = model_of(nodes, weights, [info("x", [2, 256])], [info("y", [512])])
    (tmp_path / "s").mkdir()
    source = tmp_path / "s" / "source.onnx"
    source.write_bytes(proto.SerializeToString())
    (_, model), *_ = parts(source, cut="g")

    paths = written(model, tmp_path / "halves", WriteOptions(external_over=1000))

    data = tmp_path / "halves" / "device.onnx.data"
    stored = onnx.load(paths[0], load_external_data=False).graph.initializer
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in stored]
    assert [place["location"] for place in places] == ["device.onnx.data"] * 2
    assert [int(place["offset"]) % 4096 for place in places] == [0, 0]
    assert data.stat().st_size == 2 * big.nbytes
    assert not (tmp_path / "halves" / "server.onnx.data").exists()
    values = feed(proto)
    assert same_bits([chain(paths, values)["y"]], [chain([source], values)["y"]])


def test_shared_weights_are_not_copied(tmp_path: Path):
    (tmp_path / "s").mkdir()
    proto = external(tmp_path / "s")
    source = tmp_path / "s" / "source.onnx"
    source.write_bytes(proto.SerializeToString())
    (_, model), *_ = parts(source, cut="h")

    paths = written(model, tmp_path / "halves", WriteOptions(share_weights=True))

    assert same_bits([chain(paths, feed(proto))["y"]], [chain([source], feed(proto))["y"]])
    for name in ("weights.bin", "sub/more.bin"):
        assert (tmp_path / "halves" / name).samefile(source.with_name("weights.bin").parent / name)
    assert {path.name for path in (tmp_path / "halves").iterdir()} == {
        "device.onnx",
        "server.onnx",
        "weights.bin",
        "sub",
    }


def test_data_files_of_the_source_are_never_overwritten(tmp_path: Path):
    proto = external(tmp_path)
    source = tmp_path / "source.onnx"
    source.write_bytes(proto.SerializeToString())
    read = ONNX.read(source)

    with pytest.raises(
        UnsupportedError, match="cannot overwrite the file that the model is read from"
    ):
        ONNX.write(read, read.entry, tmp_path / "weights.bin")


def test_bodies_nested_too_deep_are_refused(tmp_path: Path):
    """As protobuf itself does; without a limit, Python's stack would decide."""
    graph = b"\x12\x01g"
    for _ in range(300):
        attribute = b"\x0a\x04body\x32" + onnx_length(graph) + graph + b"\xa0\x01\x05"
        node = b"\x22\x01F\x2a" + onnx_length(attribute) + attribute
        graph = b"\x12\x01g\x0a" + onnx_length(node) + node
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x08\x3a" + onnx_length(graph) + graph)

    with pytest.raises(ModelError, match="nested deeper than 100"):
        ONNX.read(path)


def onnx_length(data: bytes) -> bytes:
    """The length of a field as protobuf spells it."""
    length, out = len(data), b""
    while length > 127:
        out += bytes([length & 127 | 128])
        length >>= 7
    return out + bytes([length])


def test_the_same_model_gives_the_same_bytes(tmp_path: Path):
    proto = external(tmp_path)
    (tmp_path / "source.onnx").write_bytes(proto.SerializeToString())
    contents: list[list[bytes]] = []
    for attempt in ("one", "two"):
        (_, model), *_ = parts(tmp_path / "source.onnx", cut="h")
        contents.append([path.read_bytes() for path in written(model, tmp_path / attempt)])

    assert contents[0] == contents[1]
