"""A bundle, a packed side and a patch that release 0.1.0 wrote still run, whatever comes after.

The files are never regenerated. `small` is an ONNX model with an open batch, cut behind its first
layer, quantized to 8 bits and coded by static-rans; `digits-int8` is a TFLite model. The `.npz`
beside a bundle has what 0.1.0 made of one call: inputs, frame, and outputs.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import irsplit
from irsplit.runtime.bundle.patch import apply_delta

GOLDEN = Path(__file__).parent / "golden" / "release-0.1.0"
Arrays = dict[str, NDArray[Any]]


def recorded(name: str) -> tuple[Arrays, bytes, Arrays]:
    """Inputs, frame and outputs of the call that 0.1.0 ran."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    inputs, outputs = (
        {key.removeprefix(kind): array for key, array in arrays.items() if key.startswith(kind)}
        for kind in ("input.", "output.")
    )
    return inputs, arrays["frame"].tobytes(), outputs


def assert_close(outputs: Arrays, expected: Arrays) -> None:
    """Other releases of an engine may round differently: by a little, or by one integer."""
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        tolerance = 1e-3 if array.dtype == np.float32 else 1
        np.testing.assert_allclose(
            outputs[name].astype(np.float64), array.astype(np.float64), atol=tolerance
        )


@pytest.mark.parametrize("name", ["small", "digits-int8"])
def test_a_bundle_of_the_release_runs(name: str) -> None:
    inputs, frame, outputs = recorded(name)
    assert_close(irsplit.ServerSession(GOLDEN / name).resume(frame), outputs)
    made = irsplit.DeviceSession(GOLDEN / name).start(inputs)
    assert_close(irsplit.ServerSession(GOLDEN / name).resume(made), outputs)


def test_packed_sides_of_the_release_run() -> None:
    inputs, frame, outputs = recorded("small")
    server = irsplit.ServerSession(GOLDEN / "small.server.irsb")
    assert_close(server.resume(frame), outputs)
    made = irsplit.DeviceSession(GOLDEN / "small.device.irsb").start(inputs)
    assert_close(server.resume(made), outputs)


def test_a_patch_of_the_release_makes_the_build_that_the_release_made(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "small", tmp_path / "old")
    apply_delta(tmp_path / "old", GOLDEN / "small.irsp", tmp_path / "new")
    manifest = (tmp_path / "new" / "manifest.json").read_bytes()
    assert manifest == (GOLDEN / "small-new.manifest.json").read_bytes()

    inputs, frame, outputs = recorded("small-new")
    assert_close(irsplit.ServerSession(tmp_path / "new").resume(frame), outputs)
    assert_close(irsplit.LocalSession(tmp_path / "new").run(inputs), outputs)
