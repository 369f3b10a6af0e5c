"""The committed example: accurate, the same in every format, and as its own code has it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from dataset import CALIBRATION, load_splits, model_input
from export_onnx import onnx_bytes, parameters_of
from export_tflite import tflite_bytes, tflite_int8_bytes
from network import LAYERS, Parameters, activations, forward, initial_parameters, loss_and_gradients
from train import SEED

FOLDER = Path(__file__).parent.parent / "examples" / "digits"
MODELS = ("digits.onnx", "digits.tflite", "digits_int8.tflite")
SIZE_LIMIT = 1_000_000
ACCURACY = 0.975
# Engines sum a convolution in another order than numpy: 2e-5 seen on logits of up to 30.
LOGIT_TOLERANCE = 1e-4

Floats = NDArray[np.float32]


def run_onnx(path: Path, images: Floats) -> Floats:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": images.transpose(0, 3, 1, 2)})[0]


def run_tflite(path: Path, images: Floats) -> Floats:
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(source["index"], stored(images, source))
    interpreter.invoke()
    return real(interpreter.get_tensor(result["index"]), result)


def stored(images: Floats, details: dict) -> NDArray[np.generic]:
    scale, zero_point = details["quantization"]
    return images if scale == 0 else np.rint(images / scale + zero_point).astype(details["dtype"])


def real(values: NDArray[np.generic], details: dict) -> Floats:
    scale, zero_point = details["quantization"]
    return values if scale == 0 else (values.astype(np.float32) - zero_point) * scale


RUNNERS: dict[str, Callable[[Path, Floats], Floats]] = {".onnx": run_onnx, ".tflite": run_tflite}


@pytest.fixture(scope="module")
def held_out() -> tuple[Floats, NDArray[np.uint8]]:
    with np.load(FOLDER / "test_images.npz") as samples:
        return model_input(samples["images"]), samples["labels"]


@pytest.fixture(scope="module")
def parameters() -> Parameters:
    return parameters_of(onnx.load(FOLDER / "digits.onnx"))


@pytest.mark.parametrize("name", MODELS)
def test_stock_engine_reads_held_out_digits(name: str, held_out):
    images, labels = held_out
    logits = RUNNERS[Path(name).suffix](FOLDER / name, images)
    assert (logits.argmax(axis=1) == labels).mean() >= ACCURACY


@pytest.mark.parametrize("name", ["digits.onnx", "digits.tflite"])
def test_float_models_compute_what_the_numpy_network_computes(name: str, held_out, parameters):
    images, _ = held_out
    logits = RUNNERS[Path(name).suffix](FOLDER / name, images)
    np.testing.assert_allclose(logits, forward(parameters, images), rtol=0, atol=LOGIT_TOLERANCE)


def test_export_of_the_committed_weights_gives_the_committed_files(parameters):
    with np.load(FOLDER / "calibration_images.npz") as samples:
        calibration = model_input(samples["images"])
    assert onnx_bytes(parameters) == (FOLDER / "digits.onnx").read_bytes()
    assert tflite_bytes(parameters) == (FOLDER / "digits.tflite").read_bytes()
    assert (
        tflite_int8_bytes(parameters, calibration) == (FOLDER / "digits_int8.tflite").read_bytes()
    )


def test_committed_images_are_the_ones_the_training_never_saw():
    train, held_out = load_splits(SEED)
    with np.load(FOLDER / "test_images.npz") as samples:
        np.testing.assert_array_equal(samples["images"], held_out.images)
        np.testing.assert_array_equal(samples["labels"], held_out.labels)
    with np.load(FOLDER / "calibration_images.npz") as samples:
        np.testing.assert_array_equal(samples["images"], train.images[:CALIBRATION])


def test_models_are_small():
    assert sum((FOLDER / name).stat().st_size for name in MODELS) < SIZE_LIMIT


def test_layers_have_readable_names_shared_by_both_formats():
    graph = onnx.load(FOLDER / "digits.onnx").graph
    assert all(node.name for node in graph.node)
    onnx_tensors = {"image", *(name for node in graph.node for name in node.output)}
    layers = {layer.name for layer in LAYERS}
    assert {name.split("/")[0] for name in onnx_tensors} == layers - {"head"} | {
        "image",
        "flatten",
        "logits",
    }
    for name in ("digits.tflite", "digits_int8.tflite"):
        subgraph = read_tflite(name).Subgraphs(0)
        produced = {
            subgraph.Operators(index).Outputs(0) for index in range(subgraph.OperatorsLength())
        }
        assert {subgraph.Tensors(tensor).Name().decode() for tensor in produced} <= onnx_tensors


def test_only_the_bottleneck_is_smaller_than_the_image(parameters, held_out):
    sizes = {name: value.nbytes for name, value in activations(parameters, held_out[0][:1]).items()}
    smaller = {name for name, size in sizes.items() if size < sizes["image"]}
    assert smaller == {"bottleneck/relu", "logits"}


@pytest.mark.parametrize("name", ["digits.tflite", "digits_int8.tflite"])
def test_tflite_buffers_are_aligned(name: str):
    model = read_tflite(name)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    addresses = [data_offset(buffer) for buffer in buffers if not buffer.DataIsNone()]
    assert len(addresses) > len(LAYERS)
    assert {address % 16 for address in addresses} == {0}


def test_gradients_match_finite_differences():
    generator = np.random.default_rng(1)
    # In double precision, away from the residual blocks' zero start, where gradients vanish.
    start = initial_parameters(generator)
    point = {name: value + generator.normal(0, 0.05, value.shape) for name, value in start.items()}
    images, labels = generator.random((3, 16, 16, 1)), np.array([3, 1, 4])
    _, gradients = loss_and_gradients(point, images, labels)
    assert gradients.keys() == point.keys()
    for name, gradient in gradients.items():
        place = tuple(generator.integers(0, gradient.shape))
        assert gradient[place] == pytest.approx(
            slope(point, name, place, images, labels), rel=1e-3, abs=1e-7
        ), name


def slope(
    point: dict, name: str, place: tuple[int, ...], images: NDArray, labels: NDArray
) -> float:
    """Central difference of the loss along one parameter."""
    step = 1e-6
    losses = []
    for sign in (1, -1):
        moved = point[name].copy()
        moved[place] += sign * step
        losses.append(loss_and_gradients({**point, name: moved}, images, labels)[0])
    return (losses[0] - losses[1]) / (2 * step)


def read_tflite(name: str) -> schema.Model:
    return schema.Model.GetRootAs((FOLDER / name).read_bytes(), 0)


def data_offset(buffer: schema.Buffer) -> int:
    """Where in the file the bytes of a buffer start."""
    table = buffer._tab
    return table.Vector(table.Offset(4))
