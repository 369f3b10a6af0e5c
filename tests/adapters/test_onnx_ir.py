"""onnx-ir passes in a real PassManager, on models of files and of torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irsplit
from irsplit.adapters.metadata import check_segment, received_boundary, sent_boundary
from irsplit.base.errors import BundleError, IrsplitError
from irsplit.runtime.bundle.manifest import Manifest

onnx_ir: Any = pytest.importorskip(
    "onnx_ir", reason="ONNX-IR IS NOT INSTALLED: pip install 'irsplit[test]'"
)
common: Any = pytest.importorskip("onnx_ir.passes.common")
from irsplit.adapters.onnx_ir import SegmentPass, SplitPass  # noqa: E402  (needs onnx_ir)

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.load(DIGITS / "test_images.npz")["images"][:2, None, None].astype(np.float32) / 255


def test_in_a_pass_manager(tmp_path: Path, images: np.ndarray) -> None:
    model = onnx_ir.load(DIGITS / "digits.onnx")
    split = SplitPass(tmp_path / "bundle", ["bottleneck/relu"], name="digits")
    result = onnx_ir.passes.PassManager([common.CommonSubexpressionEliminationPass(), split])(model)
    assert result.model is model
    assert split.compiled is not None
    assert split.compiled.manifest.name == "digits"
    onnx_ir.save(model, tmp_path / "digits.onnx")
    outcome = irsplit.verify_bundle(
        tmp_path / "bundle", tmp_path / "digits.onnx", calls=[{"image": images[0]}]
    )
    assert outcome.bit_equal


def test_segments_carry_their_boundary(tmp_path: Path) -> None:
    model = onnx_ir.load(DIGITS / "digits.onnx")
    for place in ("device", "server"):
        result = onnx_ir.passes.PassManager(
            [SegmentPass(place), common.CommonSubexpressionEliminationPass()]
        )(model)
        assert result.modified
        assert result.model is not model
        onnx_ir.save(result.model, tmp_path / f"{place}.onnx")
    device, server = (check_segment(tmp_path / f"{place}.onnx") for place in ("device", "server"))
    assert device["irsplit.bundle"] == server["irsplit.bundle"]
    assert sent_boundary(device) == received_boundary(server)
    assert received_boundary(device) is sent_boundary(server) is None
    assert len(list(model.graph)) == len(list(onnx_ir.load(DIGITS / "digits.onnx").graph))


def test_a_changed_type_is_found(tmp_path: Path) -> None:
    segment = SegmentPass("device")(onnx_ir.load(DIGITS / "digits.onnx")).model
    segment.graph.outputs[0].dtype = onnx_ir.DataType.FLOAT16
    onnx_ir.save(segment, tmp_path / "device.onnx")
    with pytest.raises(
        BundleError, match=r"'bottleneck/relu' crosses .* as f32, but the segment gives f16"
    ):
        check_segment(tmp_path / "device.onnx")
    with pytest.raises(BundleError, match="is no segment"):
        check_segment(DIGITS / "digits.onnx")


def test_weights_in_files_of_their_own(tmp_path: Path) -> None:
    onnx_ir.save(
        onnx_ir.load(DIGITS / "digits.onnx"),
        tmp_path / "outside.onnx",
        external_data="outside.data",
    )
    model = onnx_ir.load(tmp_path / "outside.onnx")
    SplitPass(tmp_path / "bundle", ["bottleneck/relu"])(model)
    inside = irsplit.compile_model(DIGITS / "digits.onnx", tmp_path / "inside", ["bottleneck/relu"])
    calls = {"image": np.zeros((1, 1, 16, 16), np.float32)}
    for folder in (tmp_path / "bundle", inside.manifest.folder):
        assert irsplit.LocalSession(folder).run(calls)["logits"].shape == (1, 10)


def test_a_refusal_keeps_its_reason(tmp_path: Path) -> None:
    model = onnx_ir.load(DIGITS / "digits.onnx")
    manager = onnx_ir.passes.PassManager([SplitPass(tmp_path / "bundle", ["block1/a/relu"])])
    with pytest.raises(onnx_ir.passes.PassError) as caught:
        manager(model)
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, IrsplitError):
        cause = cause.__cause__
    assert "%down/relu is pending" in str(cause)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.filterwarnings(
    "ignore:.*LeafSpec:FutureWarning"
)  # torch 2.13 warns of itself while it exports
def test_a_torch_export(tmp_path: Path) -> None:
    torch: Any = pytest.importorskip(
        "torch", reason="TORCH IS NOT INSTALLED: pip install 'irsplit[test-torch]'"
    )
    pytest.importorskip(
        "onnxscript", reason="ONNXSCRIPT IS NOT INSTALLED: pip install 'irsplit[test-torch]'"
    )

    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
            self.inner = torch.nn.Conv2d(8, 8, 3, padding=1)
            self.head = torch.nn.Linear(8 * 64, 10)

        def forward(self, x: Any) -> Any:
            x = torch.relu(self.stem(x))
            x = torch.relu(x + self.inner(x))
            return self.head(x.flatten(1))

    torch.manual_seed(0)
    network, image = Residual().eval(), torch.rand(1, 1, 16, 16)
    program = torch.onnx.export(
        network, (image,), dynamo=True, input_names=["image"], output_names=["logits"]
    )
    split = SplitPass(tmp_path / "bundle", max_tensors=1, cuts=(_after(program.model, "Add"),))
    onnx_ir.passes.PassManager([common.CommonSubexpressionEliminationPass(), split])(program.model)
    manifest = Manifest.load(tmp_path / "bundle")
    assert [info.name for info in manifest.inputs] == ["image"]
    onnx_ir.save(program.model, tmp_path / "whole.onnx")
    outcome = irsplit.verify_bundle(
        tmp_path / "bundle", tmp_path / "whole.onnx", calls=[{"image": image.numpy()}]
    )
    assert outcome.bit_equal
    found = irsplit.LocalSession(tmp_path / "bundle").run({"image": image.numpy()})["logits"]
    np.testing.assert_allclose(found, network(image).detach().numpy(), rtol=1e-4, atol=1e-5)


def _after(model: Any, op: str) -> str:
    """The result of the first operator of that type: the join of the residual branch."""
    return next(node.outputs[0].name for node in model.graph if node.op_type == op)
