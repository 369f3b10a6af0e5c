"""Inputs of a model as words of the command line."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from irsplit.base.errors import EngineError
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import load_input
from irsplit.passes.analysis.dims import given_sizes, parse_sizes
from irsplit.runtime.bundle.manifest import TensorInfo


def add_dims(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar="INPUT[.AXIS]=N",
        help="size of a dimension that may vary, for inputs that are made up; default 1, or what the engine takes",
    )


def model_dims(words: Sequence[str], path: Path) -> dict[str, int]:
    """Sizes of open dimensions of a model file's inputs, which have symbols too, by "<input>.<axis>"."""
    return given_sizes(words, dialect_of(path).read(path).entry) if words else {}


def bundle_dims(words: Sequence[str], infos: Sequence[TensorInfo]) -> dict[str, int]:
    """Sizes of dimensions that may vary of a bundle's inputs, whose symbols it does not have."""
    free = sorted(
        (info.name, axis)
        for info in infos
        for axis, dim in enumerate(info.shape or ())
        if dim is None
    )
    names = dict.fromkeys(name for name, _ in free)
    return parse_sizes(words, [*names, *(f"{name}.{axis}" for name, axis in free)])


def parse_inputs(words: Sequence[str], infos: Sequence[TensorInfo]) -> dict[str, NDArray[Any]]:
    """The arrays of one call from NAME=FILE or NAME=NUMBER words. Raises EngineError for what is unknown or unfit."""
    known = {info.name: info for info in infos}
    inputs: dict[str, NDArray[Any]] = {}
    for word in words:
        # Tensor names may hold '=': the longest known name that fits wins.
        name = max((name for name in known if word.startswith(f"{name}=")), key=len, default=None)
        if name is None:
            raise EngineError(
                f"--input {word}: give NAME=FILE with one of the inputs {', '.join(known)}"
            )
        inputs[name] = load_input(word[len(name) + 1 :], known[name])
    return inputs
