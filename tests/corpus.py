"""The corpus of real models, for tests: where it is, its manifest, seeded inputs.

The corpus is a folder beside the project (`IRSPLIT_CORPUS`, default `../shared/models`) and not
part of it. Without it `cases` yields one skipped case that says so, and the summary of the test run
repeats it. An `IRSPLIT_CORPUS` that names no corpus is an error.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stock_engines import DELEGATE_ONLY

VARIABLE = "IRSPLIT_CORPUS"
DEFAULT = Path(__file__).parent.parent.parent / "shared" / "models"
SEED = 1234
DIGEST_LENGTH = 12

Array = NDArray[Any]

# The manifest's names of input types; a trailing q marks a quantized tensor, nothing else.
DTYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "FLOAT32": np.dtype(np.float32),
    "FLOAT16": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "BOOL": np.dtype(np.bool_),
    "STRING": np.dtype(np.object_),
}


@dataclass(frozen=True)
class Input:
    """A model input, dynamic dimensions bound by the manifest. Names may repeat or be empty."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class CorpusModel:
    """One entry of the manifest; what a test needs by name, and all of it in `entry`."""

    name: str
    path: Path
    entry: dict[str, Any]

    @property
    def format(self) -> str:
        """`onnx` or `tflite`, by the file's name."""
        return self.path.suffix[1:]

    @property
    def runs(self) -> bool:
        """Whether the stock engine runs it; why not is in `entry["run_error"]`."""
        return bool(self.entry["runs"])

    @property
    def stateful(self) -> bool:
        """Whether a second call with the same inputs gives other outputs."""
        return self.entry["repeatable"] is False

    @property
    def needs_delegate(self) -> bool:
        """Whether LiteRT runs it only through its default delegate: as an optimized engine."""
        return any(f"CUSTOM:{op}" in self.entry.get("custom_ops", ()) for op in DELEGATE_ONLY)

    @property
    def strict_cuts(self) -> tuple[str, ...]:
        """Tensors on every path from every input to every output, both of them excluded."""
        return tuple(self.entry.get("cuts", ()))

    @property
    def inputs(self) -> tuple[Input, ...]:
        """In the model's order, for models that run: the manifest binds no others' shapes."""
        bound = self.entry["bound_inputs"]
        declared = self.entry.get("inputs", ())
        return tuple(
            Input(name, DTYPES[kind.rstrip("q")], tuple(bound[name])) for name, kind, _ in declared
        )


def folder() -> Path | None:
    """The corpus, or None when nobody asked for one and none is in the default place."""
    asked = os.environ.get(VARIABLE)
    place = Path(asked) if asked else DEFAULT
    if (place / "MANIFEST.json").is_file():
        return place
    if asked:
        raise pytest.UsageError(f"{VARIABLE}={asked} is no corpus: it has no MANIFEST.json")
    return None


@cache
def load(section: str) -> tuple[CorpusModel, ...]:
    """The models of a section (`models`, `micro` or `hostile`); none without a corpus."""
    place = folder()
    if place is None:
        return ()
    entries = json.loads((place / "MANIFEST.json").read_text(encoding="utf-8"))[section]
    return tuple(CorpusModel(entry["name"], place / entry["file"], entry) for entry in entries)


def models(*sections: str) -> list[CorpusModel]:
    """The models of these sections that the stock engine runs."""
    return [model for section in sections for model in load(section) if model.runs]


def cases(chosen: Iterable[CorpusModel]) -> list[Any]:
    """For `pytest.mark.parametrize`: a case for each model, or a skipped one that says why."""
    if folder() is None:
        return [
            pytest.param(
                None,
                id="no-corpus",
                marks=pytest.mark.skip(f"no corpus at {DEFAULT}; set {VARIABLE}"),
            )
        ]
    return [pytest.param(model, id=model.name) for model in chosen]


def feeds(model: CorpusModel, calls: int = 1) -> list[list[Array]]:
    """Seeded inputs for a sequence of calls, in `model.inputs` order; the first the manifest's."""
    generator = np.random.default_rng(SEED)
    rules: dict[str, Any] = model.entry["feed"]
    return [
        [
            _values(source, {**rules.get("*", {}), **rules.get(source.name, {})}, generator)
            for source in model.inputs
        ]
        for _ in range(calls)
    ]


def digest(outputs: Sequence[object]) -> str:
    """The manifest's `output_digest`: first digits of SHA-256 over all outputs' bytes in order.

    An output that is no tensor (a sequence, an empty optional) counts by its text.
    """
    sha = hashlib.sha256()
    for output in outputs:
        sha.update(output.tobytes() if isinstance(output, np.ndarray) else str(output).encode())
    return sha.hexdigest()[:DIGEST_LENGTH]


def _values(source: Input, rule: dict[str, Any], generator: np.random.Generator) -> Array:
    """Uniform floats in [0, 1), 8-bit integers, wider ones below `max` (10); or `fill`."""
    dtype, shape = source.dtype, source.shape
    if "fill" in rule:
        return np.full(shape, rule["fill"], dtype)
    match dtype.kind:
        case "f":
            return generator.random(shape).astype(dtype)
        case "b":
            return generator.integers(0, 2, shape).astype(dtype)
        case "O":
            return np.array(
                [f"text {index}" for index in range(int(np.prod(shape)))], np.object_
            ).reshape(shape)
        case _ if dtype.itemsize == 1:
            limits = np.iinfo(dtype)
            return generator.integers(limits.min, limits.max + 1, shape).astype(dtype)
        case _:
            return generator.integers(0, rule.get("max", 10), shape).astype(dtype)
