"""Inputs and sizes from words of a user: NAME=FILE, SYMBOL=N, TENSOR=N or TENSOR.AXIS=N."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from irsplit.base.errors import EngineError
from irsplit.engines.inputs import load_input
from irsplit.passes.analysis.dims import parse_sizes
from irsplit.runtime.bundle.manifest import Manifest, TensorInfo

Sizes = Sequence[str] | Mapping[str, int]
"""Sizes as words, or by "<tensor>.<axis>"."""


def parse_inputs(words: Sequence[str], infos: Sequence[TensorInfo]) -> dict[str, NDArray[Any]]:
    """The arrays of one call, by input name.

    Args:
        words: NAME=FILE or NAME=NUMBER.
        infos: The inputs of the model.

    Raises:
        EngineError: A word names no input, or what it names does not fit.
    """
    by_name = {info.name: info for info in infos}
    inputs: dict[str, NDArray[Any]] = {}
    for word in words:
        # Tensor names may hold '=' themselves: the longest name that fits is meant.
        names = [name for name in by_name if word.startswith(f"{name}=")]
        if not names:
            raise EngineError(
                f"'{word}' is for no input",
                remedy=f"give NAME=FILE with one of the inputs {', '.join(by_name)}",
            )
        name = max(names, key=len)
        inputs[name] = load_input(word[len(name) + 1 :], by_name[name])
    return inputs


def input_sizes(sizes: Sizes, infos: Sequence[TensorInfo], manifest: Manifest) -> dict[str, int]:
    """Sizes of open dimensions of some inputs of a bundle, by "<input>.<axis>".

    Args:
        sizes: As words, or already by "<input>.<axis>".
        infos: The inputs.
        manifest: The bundle's, which knows the symbols.

    Raises:
        PassError: A word is no NAME=N, or names no open dimension.
    """
    if isinstance(sizes, Mapping):
        return dict(sizes)
    return tensor_sizes(sizes, {info.name: info.shape or () for info in infos}, manifest)


def tensor_sizes(
    words: Sequence[str], shapes: Mapping[str, Sequence[int | None]], manifest: Manifest
) -> dict[str, int]:
    """The same for any tensors of a bundle, given their shapes by name."""
    symbols: dict[str, str] = manifest.raw.get("symbols", {})
    open_dims: list[tuple[str, str]] = []
    for name, shape in shapes.items():
        open_dims += [(name, f"{name}.{axis}") for axis, dim in enumerate(shape) if dim is None]

    # Errors list tensors and their dimensions first, in order of their names, and symbols last.
    names: dict[str, None] = {}
    for pair in sorted(open_dims):
        names.update(dict.fromkeys(pair))
    names.update((symbols[dim], None) for _, dim in open_dims if dim in symbols)
    by_name = parse_sizes(words, names)

    sizes: dict[str, int] = {}
    for tensor, dim in open_dims:
        for name in (dim, tensor, symbols.get(dim, dim)):
            if name in by_name:
                sizes[dim] = by_name[name]
                break
    return sizes
