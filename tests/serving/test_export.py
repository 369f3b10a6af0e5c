"""Exported bundles on the engines they are for: clients get what one process computes."""

import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from engines import ENGINES, Running, skip_without
from google.protobuf import text_format
from stateful import counting_model
from tritonclient.grpc import InferenceServerClient, InferInput, model_config_pb2
from tritonclient.utils import InferenceServerException

import irsplit
import irsplit.runtime
from irsplit.base.errors import BundleError, EngineError, SessionLostError
from irsplit.cli import main
from irsplit.export import export_bundle
from irsplit.runtime.run.engines import Accelerator, EngineOptions

KSERVE_API = "serving.kserve.io/v1beta1"
DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"


@pytest.fixture(scope="module")
def lone_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its device cannot finish alone: every answer is the server's."""
    folder = tmp_path_factory.mktemp("bundles") / "digits"
    irsplit.compile_model(DIGITS / "digits.onnx", folder, ["bottleneck/relu"])
    return folder


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    irsplit.compile_model(counting_model(folder / "counter.tflite"), folder / "counter", ["cut"])
    return folder / "counter"


@pytest.fixture(scope="module", params=list(ENGINES))
def engine(request, lone_bundle, tmp_path_factory) -> Iterator[Running]:
    skip_without(request.param)
    with ENGINES[request.param][1](
        {"digits": lone_bundle}, tmp_path_factory.mktemp("engine")
    ) as running:
        yield running


def test_our_client_gets_what_one_process_computes(engine, lone_bundle, calls):
    local = irsplit.LocalSession(lone_bundle)
    for url in engine.urls.values():
        with irsplit.runtime.connect(
            url, lone_bundle, name="digits", timeout_s=30, checked=engine.checked
        ) as session:
            for call in calls["onnx"][:8]:
                answer = session.infer(call)
                assert (answer.path, answer.attempts) == ("server", 1)
                np.testing.assert_array_equal(answer.outputs["logits"], local.run(call)["logits"])


def test_stock_client_is_answered_and_refused(engine, lone_bundle, calls):
    frame = bytes(irsplit.DeviceSession(lone_bundle).start(calls["onnx"][0]))
    with InferenceServerClient(engine.urls["grpc"].removeprefix("grpc://")) as client:
        expected = irsplit.LocalSession(lone_bundle).run(calls["onnx"][0])["logits"]
        np.testing.assert_array_equal(
            client.infer("digits", [_tensor(frame)]).as_numpy("logits"), expected
        )
        metadata = client.get_model_metadata("digits")
        assert metadata.name == "digits"
        with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*(?s:.*)CRC"):
            client.infer("digits", [_tensor(frame[:-1] + bytes([frame[-1] ^ 1]))])


def _tensor(frame: bytes) -> InferInput:
    tensor = InferInput("frame", [len(frame)], "UINT8")
    tensor.set_data_from_numpy(np.frombuffer(frame, np.uint8))
    return tensor


def test_triton_keeps_sessions_and_runs_tflite(tflite_bundle, counter, calls, tmp_path):
    skip_without("triton")
    with ENGINES["triton"][1]({"digits": tflite_bundle, "counter": counter}, tmp_path) as triton:
        url = triton.urls["grpc"]
        local = irsplit.LocalSession(tflite_bundle)
        with irsplit.runtime.connect(url, tflite_bundle, timeout_s=30, checked=False) as session:
            answer = session.infer(calls["tflite"][0])
            assert answer.path == "server"
            np.testing.assert_array_equal(
                answer.outputs["logits"], local.run(calls["tflite"][0])["logits"]
            )
        one = {"x": np.ones((1, 2), np.float32)}
        local = irsplit.LocalSession(counter)
        expected = [next(iter(local.run(one).values())) for _ in range(3)]
        with (
            irsplit.runtime.connect(url, counter, timeout_s=30, checked=False) as first,
            irsplit.runtime.connect(url, counter, timeout_s=30, checked=False) as second,
        ):
            found = [
                [next(iter(session.infer(one).outputs.values())) for _ in range(3)]
                for session in (first, second)
            ]
            np.testing.assert_array_equal(found, [expected, expected])
            next(first._stream._steps)  # a step that the server has not seen
            with pytest.raises(SessionLostError):
                first.infer(one)


def test_triton_reads_the_configuration(counter, lone_bundle, tmp_path):
    for bundle, count in ((lone_bundle, 4), (counter, 1)):
        model = export_bundle(bundle, "triton", tmp_path)
        config = text_format.Parse(
            (model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
        )
        assert (config.name, config.backend, config.max_batch_size) == (model.name, "python", 0)
        assert [(t.name, t.data_type, list(t.dims)) for t in config.input] == [
            ("frame", model_config_pb2.TYPE_UINT8, [-1])
        ]
        assert [group.count for group in config.instance_group] == [count]
    config = text_format.Parse(
        (tmp_path / "digits" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    assert [(t.name, t.data_type, list(t.dims)) for t in config.output] == [
        ("logits", model_config_pb2.TYPE_FP32, [-1, 10])
    ]


UNKNOWN_FIELDS = """
import sys
import kserve, kubernetes.client, yaml

service = yaml.safe_load(sys.stdin)
predictor = service["spec"]["predictor"]
(container,) = predictor["containers"]
kinds = [
    (service, kserve.V1beta1InferenceService),
    (service["spec"], kserve.V1beta1InferenceServiceSpec),
    (predictor, kserve.V1beta1PredictorSpec),
    (container, kubernetes.client.V1Container),
    (container["ports"][0], kubernetes.client.V1ContainerPort),
]
known = [(found, kind.attribute_map.values()) for found, kind in kinds]
print([field for found, fields in known for field in found if field not in fields])
print(*(service[key] for key in ("apiVersion", "kind", "metadata")), end=" ")
print(container["args"], container["image"])
"""


def test_kserve_knows_every_field_of_the_service(lone_bundle, tmp_path):
    skip_without("kserve")
    folder = export_bundle(
        lone_bundle, "kserve", tmp_path / "service", image="registry.example/digits:1"
    )
    text = (folder / "inference_service.yaml").read_text()
    # A process of its own: KServe's and Triton's clients register the same protobuf messages.
    command = [sys.executable, "-c", UNKNOWN_FIELDS]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.stdout.splitlines() == [
        "[]",
        (
            f"{KSERVE_API} InferenceService {{'name': 'digits'}} ['--model_name=digits'] "
            "registry.example/digits:1"
        ),
    ], done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("name", list(ENGINES))
def test_export_has_the_servers_side_and_replaces_an_older_one(name, lone_bundle, tmp_path, capsys):
    words = ["export", str(lone_bundle), "--to", name, "-o", str(tmp_path / "out")]
    assert main(words) == 0
    assert "bundle/server/model.onnx" in capsys.readouterr().out
    first = contents(tmp_path / "out")
    assert not any("device" in path for path in first)
    assert main(words) == 0
    assert contents(tmp_path / "out") == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("engine", "changes", "message"),
    [
        ("mlserver", {}, "unknown engine 'mlserver'; engines: ray-serve, triton, kserve"),
        ("kserve", {"name": "Digits_1"}, "cannot be the name of a Kubernetes service"),
        ("triton", {"name": "a/b"}, "cannot be the name of a Triton model"),
        ("triton", {"name": ".."}, "cannot be the name of a Triton model"),
        ("ray-serve", {"replicas": 0}, "give at least 1"),
    ],
)
def test_what_an_engine_does_not_take_is_refused(engine, changes, message, lone_bundle, tmp_path):
    with pytest.raises(BundleError, match=message):
        export_bundle(lone_bundle, engine, tmp_path / "out", **changes)
    assert not list(tmp_path.iterdir())


def test_other_files_are_not_replaced(lone_bundle, tmp_path):
    (tmp_path / "mine").write_text("text")
    with pytest.raises(BundleError, match="holds other files"):
        export_bundle(lone_bundle, "kserve", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_accelerators_and_threads_are_in_a_file_that_the_engine_reads(
    lone_bundle, tmp_path, monkeypatch, capsys
):
    words = ["export", str(lone_bundle), "--to", "triton", "-o", str(tmp_path), "--threads", "2"]
    assert main([*words, "--provider", "quantum,device_id=0"]) == 0
    version = tmp_path / "digits" / "1"
    asked = EngineOptions(threads=2, providers=(Accelerator("quantum", (("device_id", "0"),)),))
    assert EngineOptions.load(version / "engine.json") == asked
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("pb_utils"))
    model = runpy.run_path(str(version / "model.py"))["TritonPythonModel"]()
    with pytest.raises(EngineError, match="no provider 'quantum'"):
        model.initialize({"model_name": "digits"})
    (version / "engine.json").write_text('{"thread": 1}')
    with pytest.raises(
        EngineError,
        match=r"engine.json: no options of an engine .*'thread'.*; give \{\"threads\": 1",
    ):
        model.initialize({"model_name": "digits"})
    assert main([*words, "--delegate", "libedgetpu.so.1"]) == 2
    assert "is for LiteRT, and this runs on onnxruntime" in capsys.readouterr().err


def test_bundle_without_a_servers_side_is_refused(tmp_path):
    irsplit.compile_model(
        DIGITS / "digits.onnx", tmp_path / "b", ["bottleneck/relu"], places=("device", "device")
    )
    with pytest.raises(BundleError, match="no segment runs on the server"):
        export_bundle(tmp_path / "b", "triton", tmp_path / "out")
