"""Sizes of updates of retrained examples: `irsplit delta`, zstd --patch-from, bsdiff and xdelta3.

    python -m benchmarks.delta [--epochs 3] [--json]

Tools that are not installed are left out, and the table says so. The example is trained on from its
weights: all layers, or the last one alone. Tools get each segment's file with its old counterpart,
ours carries the manifest and the boundary as well.
"""

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import irsplit
from irsplit.compilation.delta import write_delta
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.bundle.patch import apply_delta

DIGITS = Path(__file__).parent.parent / "examples" / "digits"
CUT = "bottleneck/relu"
RATE = 1e-4
"""Of fine-tuning; the last rate of the training itself is zero, the first 2e-3."""

TOOLS: dict[str, tuple[str, ...]] = {
    "zstd -19": ("zstd", "-q", "-f", "-19", "{new}", "-o", "{patch}"),
    "zstd -19 --patch-from": (
        "zstd",
        "-q",
        "-f",
        "-19",
        "--long=27",
        "--patch-from={old}",
        "{new}",
        "-o",
        "{patch}",
    ),
    "bsdiff": ("bsdiff", "{old}", "{new}", "{patch}"),
    "xdelta3 -9": ("xdelta3", "-q", "-f", "-9", "-e", "-s", "{old}", "{new}", "{patch}"),
}


def models(folder: Path, epochs: int) -> dict[str, Mapping[str, Path]]:
    """Files of the example by format: as it is, and trained on in all layers or in the last one."""
    sys.path.insert(0, str(DIGITS))
    train, exporter = importlib.import_module("train"), importlib.import_module("export_onnx")
    split, _ = importlib.import_module("dataset").load_splits(train.SEED)
    old = exporter.parameters_of(onnx.load(DIGITS / "digits.onnx"))
    found: dict[str, Mapping[str, Path]] = {}
    for name, chosen in (
        ("old", ()),
        ("all layers", tuple(old)),
        ("last layer", ("head/weights", "head/bias")),
    ):
        parameters = _trained_on(train, old, split, epochs if chosen else 0, chosen)
        place = folder / name.replace(" ", "-")
        place.mkdir()
        train.write_models(place, parameters, split.images[: train.CALIBRATION])
        found[name] = {
            "ONNX, f32": place / "digits.onnx",
            "TFLite, f32": place / "digits.tflite",
            "TFLite, int8": place / "digits_int8.tflite",
        }
    return found


def _trained_on(
    train: Any, old: Mapping[str, Any], split: Any, epochs: int, chosen: tuple[str, ...]
) -> dict[str, Any]:
    parameters = {name: value.copy() for name, value in old.items()}
    part = {name: parameters[name] for name in chosen}
    optimizer, generator = train.Adam(part), np.random.default_rng(1)
    for _ in range(epochs):
        order = generator.permutation(len(split.labels))
        for batch in np.array_split(order, -(-len(order) // train.BATCH)):
            images = train.model_input(train.shifted(split.images[batch], generator))
            _, gradients = train.loss_and_gradients(parameters, images, split.labels[batch])
            optimizer.step(part, {name: gradients[name] for name in chosen}, RATE)
            parameters |= part
    return parameters


def sizes(old: Path, new: Path, folder: Path) -> dict[str, int]:
    """Bytes of the update from `old` to `new` by every way; ours is applied and compared first."""
    patch = folder / "patch"
    found = {"the files": sum(path.stat().st_size for path in _segments(new))}
    ours = write_delta(old, new, patch).patch_bytes
    apply_delta(old, patch, folder / "applied")
    for path in _segments(new):
        assert (folder / "applied" / path.relative_to(new)).read_bytes() == path.read_bytes()
    for name, command in TOOLS.items():
        if shutil.which(command[0]) is None:
            print(f"{command[0].upper()} NOT INSTALLED: left out", file=sys.stderr)
            continue
        found[name] = sum(
            _tool(command, old / path.relative_to(new), path, patch) for path in _segments(new)
        )
    return found | {"irsplit delta": ours}


def _tool(command: tuple[str, ...], old: Path, new: Path, patch: Path) -> int:
    if old.read_bytes() == new.read_bytes():
        return 0
    words = [word.format(old=old, new=new, patch=patch) for word in command]
    subprocess.run(words, check=True, capture_output=True)
    return patch.stat().st_size


def _segments(bundle: Path) -> list[Path]:
    return [bundle / segment.file for segment in Manifest.load(bundle).segments]


def measure(folder: Path, epochs: int) -> dict[str, dict[str, int]]:
    made = models(folder, epochs)

    def bundles(name: str, format: str) -> Path:
        return folder / "bundles" / name / format.replace(", ", "-")

    for name, files in made.items():
        for format, path in files.items():
            irsplit.compile_model(path, bundles(name, format), [CUT], remember=False)
    found: dict[str, dict[str, int]] = {}
    for name in ("all layers", "last layer"):
        for format in made[name]:
            with tempfile.TemporaryDirectory(prefix="irsplit-") as scratch:
                found[f"{name}; {format}"] = sizes(
                    bundles("old", format), bundles(name, format), Path(scratch)
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="irsplit-") as name:
        found = measure(Path(name), arguments.epochs)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return
    columns = list(next(iter(found.values())))
    print(f"| trained on | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}", sep="\n")
    for title, row in found.items():
        print(
            f"| {title} | "
            f"{' | '.join(f'{row[column]:,}'.replace(',', ' ') for column in columns)} |"
        )


if __name__ == "__main__":
    main()
