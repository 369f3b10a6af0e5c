"""Run by `make wheel` with the environment that has the wheel alone: the package is whole and does the main job.

python tests/check_wheel.py CHECKOUT
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import irsplit
from irsplit import LocalSession
from irsplit.runtime.frame.frame import native_available
from irsplit.runtime.run.ort_operators import library

COMPILE_ONLY = {"onnx", "google", "flatbuffers", "tflite", "scipy"}
LOADED = {name.partition(".")[0] for name in sys.modules}


def main() -> None:
    assert not LOADED & COMPILE_ONLY, f"irsplit.runtime imports {LOADED & COMPILE_ONLY}"
    assert native_available(), "the wheel has no C extension"
    assert library().is_file(), "the wheel has no operators for ONNX Runtime"
    example = Path(sys.argv[1]) / "examples" / "digits"
    images = np.load(example / "test_images.npz")["images"][:20]
    for model, axis in (("digits.onnx", 1), ("digits.tflite", -1)):
        with tempfile.TemporaryDirectory() as folder:
            irsplit.compile_model(example / model, Path(folder) / "bundle")
            session = LocalSession(Path(folder) / "bundle")
            for image in images:
                pixels = np.expand_dims(image.astype(np.float32) / 255, (0, axis))
                assert session.run({"image": pixels})["logits"].shape == (1, 10)
    print(f"wheel: irsplit {irsplit.__version__} works from {Path(irsplit.__file__).parent}")


if __name__ == "__main__":
    main()
