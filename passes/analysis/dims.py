"""Dimensions that a model leaves open, and the words that say how large they are.

A word is SYMBOL=N, INPUT=N or INPUT.AXIS=N: the size of every dimension with that symbol, of all
open dimensions of an input, or of one of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from irsplit.base.errors import PassError
from irsplit.ir import Graph, TensorType, Value, required_inputs


@dataclass(frozen=True, slots=True)
class OpenDim:
    """An open dimension of a value; `symbol` is None when it has no name of its own."""

    value: Value
    axis: int
    symbol: str | None

    @property
    def name(self) -> str:
        """The most exact name: "<value>.<axis>"."""
        return f"{self.value.name}.{self.axis}"

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called in a word, the most exact name first."""
        symbol = (self.symbol,) if self.symbol else ()
        return (self.name, self.value.name, *symbol)

    def size(self, sizes: Mapping[str, int]) -> int | None:
        """Return its size by the most exact name in `sizes`; None when none of them is its own."""
        return next((sizes[name] for name in self.names if name in sizes), None)


def open_dims(values: Iterable[Value]) -> Iterator[OpenDim]:
    """Yield the open dimensions of values, in order of values and axes."""
    for value in values:
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        for axis, dim in enumerate(shape or ()):
            if not isinstance(dim, int):
                yield OpenDim(value, axis, dim)


def parse_dims(words: Sequence[str], dims: Iterable[OpenDim]) -> dict[str, int]:
    """Parse words about some open dimensions.

    Args:
        words: NAME=N each, with one of the names of an open dimension.
        dims: The dimensions that the words may be about.

    Returns:
        The sizes by name.

    Raises:
        PassError: A word is not of this form, or none of the dimensions has its name.
    """
    names: dict[str, None] = {}
    for dim in dims:
        names.update(dict.fromkeys(dim.names))
    return parse_sizes(words, names)


def parse_sizes(words: Sequence[str], known: Iterable[str]) -> dict[str, int]:
    """Parse words where only the names of dimensions are at hand; see `parse_dims`.

    Args:
        words: NAME=N each.
        known: The names that words may have, which errors list in their order.
    """
    names = list(known)
    sizes: dict[str, int] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if not name or not number.isdecimal():
            raise PassError(f"dim '{word}': give SYMBOL=N, INPUT=N or INPUT.AXIS=N with a number N")
        if name not in names:
            listed = ", ".join(names) or "none"
            raise PassError(f"dim '{word}': no input has that dimension; those that vary: {listed}")

        sizes[name] = int(number)
    return sizes


def symbols_of(values: Iterable[Value]) -> dict[str, str]:
    """Return the symbols of open dimensions by "<value>.<axis>"; those without one are left out."""
    return {dim.name: dim.symbol for dim in open_dims(values) if dim.symbol is not None}


def given_sizes(words: Sequence[str], graph: Graph) -> dict[str, int]:
    """Return the sizes that words give to the open dimensions of a graph's inputs.

    Args:
        words: As `parse_dims` takes them.
        graph: The graph whose inputs are looked at.

    Returns:
        The sizes by "<input>.<axis>"; dimensions that no word is about are left out.
    """
    dims = list(open_dims(required_inputs(graph)))
    by_name = parse_dims(words, dims)
    sizes: dict[str, int] = {}
    for dim in dims:
        size = dim.size(by_name)
        if size is not None:
            sizes[dim.name] = size
    return sizes


def sizes_of_call(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Return words that give open dimensions the sizes they have in one call.

    Args:
        graph: The graph whose inputs are looked at.
        shapes: The shapes of the call's inputs by name.

    Returns:
        "<input>.<axis>=N" for each open dimension. Nothing where only first dimensions of inputs
        are open: these are mostly a batch, and count as 1.
    """
    if not unsized(graph):
        return ()

    dims = (dim for dim in open_dims(required_inputs(graph)) if dim.value.name in shapes)
    return tuple(f"{dim.name}={shapes[dim.value.name][dim.axis]}" for dim in dims)


def unsized(graph: Graph) -> list[str]:
    """Return the open dimensions of the graph's inputs about which nothing is assumed, by name.

    First dimensions are left out, because they are mostly a batch. Estimates count all others as
    1, and mean little where there are any.
    """
    unassumed: list[Value] = []
    for value in required_inputs(graph):
        if isinstance(value.type, TensorType) and not value.type.assumed:
            unassumed.append(value)
    return [dim.name for dim in open_dims(unassumed) if dim.axis]


def unsized_note(graph: Graph) -> str:
    """Return what to tell of estimates where `unsized` names dimensions; else an empty text."""
    names = ", ".join(unsized(graph))
    if not names:
        return ""
    return f"{names} are open and count as 1 in all estimates; say how large they are with --dim"
