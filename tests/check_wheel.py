"""Run by `make wheel` with the wheel alone: the package is whole and does the main job.

python tests/check_wheel.py CHECKOUT

The packages that it depends on may be those of another environment, which has more: only what the
wheel requires may be imported, in a version that it allows.
"""

import importlib.metadata
import sys
import tempfile
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

import irsplit
from irsplit import LocalSession
from irsplit.runtime.frame.frame import native_available
from irsplit.runtime.run.ort_operators import library

COMPILE_ONLY = {"onnx", "google", "flatbuffers", "tflite", "scipy"}
LOADED = {name.partition(".")[0] for name in sys.modules}
OURS = {"packaging"}
"""What this script imports and the wheel need not."""


def required(name: str = "irsplit", extras: tuple[str, ...] = ("",)) -> set[str]:
    """The distributions one requires, and theirs. AssertionError for a version not allowed."""
    found: set[str] = set()
    pending = [(name, extras)]
    while pending:
        name, extras = pending.pop()
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            marker = requirement.marker
            if marker is not None and not any(
                marker.evaluate({"extra": extra}) for extra in extras
            ):
                continue
            version = importlib.metadata.version(requirement.name)
            assert requirement.specifier.contains(version, prereleases=True), (
                f"{name} requires {text}, not {version}"
            )
            if requirement.name not in found:
                found.add(requirement.name)
                pending.append((requirement.name, ("", *requirement.extras)))
    return found


def undeclared() -> set[str]:
    """Imported modules that are of no distribution that the wheel requires."""
    origins = importlib.metadata.packages_distributions()
    allowed = {_normal(name) for name in required()} | {"irsplit"}
    loaded = {name.partition(".")[0] for name in sys.modules} & origins.keys()
    return {
        name
        for name in loaded - OURS
        if not {_normal(origin) for origin in origins[name]} & allowed
    }


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def main() -> None:
    assert Path(irsplit.__file__).is_relative_to(sys.prefix), (
        f"{irsplit.__file__} is not of the wheel"
    )
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
    assert not undeclared(), (
        f"the wheel imports {', '.join(sorted(undeclared()))}, and does not require it"
    )
    print(f"wheel: irsplit {irsplit.__version__} works from {Path(irsplit.__file__).parent}")


if __name__ == "__main__":
    main()
