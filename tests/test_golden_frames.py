"""Frames of each format version, decoded for ever: files are added, never regenerated."""

from pathlib import Path

import numpy as np
import pytest

from framing import decoded, engines
from irsplit.runtime.frame.descriptor import FrameSchema

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*/*.irsf"))


def test_there_are_golden_frames() -> None:
    assert len(GOLDEN) >= 10


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_frame(path: Path) -> None:
    boundary = FrameSchema.from_bytes(path.with_suffix(".irsd").read_bytes())
    with np.load(path.with_suffix(".npz")) as file:
        expected = [file[f"t{index}"].tobytes() for index in range(len(boundary.tensors))]
    for engine in engines(boundary):
        assert decoded(engine, boundary, path.read_bytes()) == expected
