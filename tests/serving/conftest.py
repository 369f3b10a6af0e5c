"""Bundles of the example and servers on loopback, shared by the serving tests."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import irsplit
from irsplit.runtime.serving.server import logs

DIGITS = Path(__file__).parent.parent.parent / "examples" / "digits"

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "onnx"
    irsplit.compile_model(DIGITS / "digits.onnx", folder, ["bottleneck/relu"], autonomous=True)
    return folder


@pytest.fixture(scope="session")
def tflite_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tflite"
    irsplit.compile_model(DIGITS / "digits.tflite", folder, ["bottleneck/relu"], autonomous=True)
    return folder


@pytest.fixture(scope="session")
def calls() -> dict[str, list[Arrays]]:
    """Inputs of 32 calls, by format."""
    pixels = (np.load(DIGITS / "test_images.npz")["images"][:32] / 255).astype(np.float32)
    axes = {"onnx": 1, "tflite": -1}
    return {
        name: [{"image": np.expand_dims(image, (0, axis))} for image in pixels]
        for name, axis in axes.items()
    }


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)


@pytest.fixture
def server_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[logging.LogRecord]]:
    """What servers of this process log meanwhile, whether a command configured the log or not.

    All of it: what the test before caused was logged a moment ago.
    """
    monkeypatch.setattr(logs, "_PERIOD_S", 0.0)
    records, logger = _Records(), logging.getLogger("irsplit.serve")
    logger.addHandler(records)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield records.found
    logger.setLevel(level)
    logger.removeHandler(records)
