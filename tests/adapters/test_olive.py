"""The Olive passes, run by `olive run` with the package config that our command writes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from irsplit.adapters.metadata import check_segment, received_boundary, sent_boundary

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("olive") is None,
    reason="OLIVE IS NOT INSTALLED: pip install 'irsplit[test-olive]'",
)

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "examples" / "digits"


def olive(folder: Path, passes: dict[str, dict[str, object]]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "OLIVE_DISABLE_TELEMETRY": "1",
    }

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", *map(str, words)]
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    assert run("irsplit", "olive-config", "-o", folder / "package.json").returncode == 0
    workflow = {
        "input_model": {"type": "OnnxModel", "model_path": str(DIGITS / "digits.onnx")},
        "passes": passes,
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "evaluate_input_model": False,
    }
    (folder / "workflow.json").write_text(json.dumps(workflow))
    return run(
        "olive",
        "run",
        "--config",
        folder / "workflow.json",
        "--package-config",
        folder / "package.json",
    )


SPLIT = {"type": "IrsplitSplit", "cuts": ["bottleneck/relu"]}


def test_a_composite_model(tmp_path: Path) -> None:
    done = olive(tmp_path, {"split": SPLIT, "check": {"type": "IrsplitCheck"}})
    assert done.returncode == 0, done.stdout + done.stderr
    found = {
        check_segment(path)["irsplit.segment"]: path for path in (tmp_path / "out").rglob("*.onnx")
    }
    assert set(found) == {"device", "server"}, done.stdout + done.stderr
    device, server = found["device"], found["server"]
    assert sent_boundary(check_segment(device)) == received_boundary(check_segment(server))
    image = np.load(DIGITS / "test_images.npz")["images"][:1, None].astype(np.float32) / 255
    middle = onnxruntime.InferenceSession(device).run(None, {"image": image})[0]
    logits = onnxruntime.InferenceSession(server).run(None, {"bottleneck/relu": middle})[0]
    whole = onnxruntime.InferenceSession(DIGITS / "digits.onnx").run(None, {"image": image})[0]
    np.testing.assert_allclose(logits, whole, rtol=1e-5, atol=1e-5)


def test_a_later_pass_that_changes_what_crosses(tmp_path: Path) -> None:
    half = {"type": "OnnxFloatToFloat16", "keep_io_types": False}
    done = olive(tmp_path, {"split": SPLIT, "half": half, "check": {"type": "IrsplitCheck"}})
    assert (
        "as f32, but the segment gives f16: a pass after the split changed it"
        in done.stdout + done.stderr
    )
