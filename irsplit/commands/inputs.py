"""Inputs of a model as words of the command line."""

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from irsplit.base.errors import EngineError
from irsplit.commands.arguments import DIM, DIM_NAMES
from irsplit.dialects.registry import dialect_of
from irsplit.engines.inputs import load_input
from irsplit.passes.analysis.dims import given_sizes, parse_sizes
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo


def add_dims(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--dim",
        action="append",
        default=[],
        metavar=DIM,
        help=f"size of an open dimension, where inputs are made up; {DIM_NAMES}; default 1, or what the engine takes",
    )


def model_dims(words: Sequence[str], path: Path) -> dict[str, int]:
    """Sizes of open dimensions of a model file's inputs, which have symbols too, by "<input>.<axis>"."""
    return given_sizes(words, dialect_of(path).read(path).entry) if words else {}


def bundle_dims(
    words: Sequence[str], infos: Sequence[TensorInfo], manifest: Manifest
) -> dict[str, int]:
    """Sizes of open dimensions of a bundle's inputs by "<input>.<axis>"; the manifest has their symbols."""
    return tensor_dims(words, {info.name: info.shape or () for info in infos}, manifest)


def tensor_dims(
    words: Sequence[str], shapes: Mapping[str, Sequence[int | None]], manifest: Manifest
) -> dict[str, int]:
    """The same for any tensors of a bundle, by name."""
    symbols: dict[str, str] = manifest.raw.get("symbols", {})
    free = [
        (name, f"{name}.{axis}")
        for name, shape in shapes.items()
        for axis, dim in enumerate(shape)
        if dim is None
    ]
    own = [symbols[dim] for _, dim in free if dim in symbols]
    given = parse_sizes(
        words, dict.fromkeys((*(name for pair in sorted(free) for name in pair), *own))
    )
    sizes: dict[str, int] = {}
    for tensor, dim in free:
        names = [name for name in (dim, tensor, symbols.get(dim, dim)) if name in given]
        if names:
            sizes[dim] = given[names[0]]
    return sizes


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
