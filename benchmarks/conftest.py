"""The benchmark suite: `pytest benchmarks --benchmark-only`; `benchmarks.page` makes the page.

A group holds what does the same job: ours, other tools where they are installed, and a yardstick
that no tool can beat, such as copying the bytes. Every result is checked before it is timed. The
scripts beside the suite go deeper.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For models that are made once; gone at the end, because they are large."""
    path = tmp_path_factory.mktemp("models")
    yield path
    shutil.rmtree(path)
