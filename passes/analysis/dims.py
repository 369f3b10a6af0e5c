"""Dimensions that a model leaves open, and the words that say how large they are: SYMBOL=N, INPUT=N, INPUT.AXIS=N."""

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
        return f"{self.value.name}.{self.axis}"

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called in a word, the most exact first."""
        return (self.name, self.value.name, *((self.symbol,) if self.symbol else ()))

    def size(self, given: Mapping[str, int]) -> int | None:
        """Its size by the words; None when none is about it."""
        return next((given[name] for name in self.names if name in given), None)


def open_dims(values: Iterable[Value]) -> Iterator[OpenDim]:
    for value in values:
        shape = value.type.shape if isinstance(value.type, TensorType) else None
        for axis, dim in enumerate(shape or ()):
            if not isinstance(dim, int):
                yield OpenDim(value, axis, dim)


def parse_dims(words: Sequence[str], dims: Iterable[OpenDim]) -> dict[str, int]:
    """Sizes by name. Raises PassError for a word that is no NAME=N, or with a name that none of the dimensions has."""
    return parse_sizes(words, dict.fromkeys(name for dim in dims for name in dim.names))


def symbols_of(values: Iterable[Value]) -> dict[str, str]:
    """The symbols of open dimensions by "<value>.<axis>"; those without one are left out."""
    return {dim.name: dim.symbol for dim in open_dims(values) if dim.symbol is not None}


def parse_sizes(words: Sequence[str], known: Iterable[str]) -> dict[str, int]:
    """The same where only the names of dimensions are known, which errors list in their order."""
    known = list(known)
    sizes: dict[str, int] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        if not name or not number.isdecimal():
            raise PassError(f"dim '{word}': give SYMBOL=N, INPUT=N or INPUT.AXIS=N with a number N")
        if name not in known:
            listed = ", ".join(known) or "none"
            raise PassError(f"dim '{word}': no input has that dimension; those that vary: {listed}")
        sizes[name] = int(number)
    return sizes


def given_sizes(words: Sequence[str], graph: Graph) -> dict[str, int]:
    """Sizes of open dimensions of the graph's inputs by "<input>.<axis>", from words as `parse_dims` takes them."""
    dims = list(open_dims(required_inputs(graph)))
    given = parse_dims(words, dims)
    return {dim.name: size for dim in dims for size in [dim.size(given)] if size is not None}


def sizes_of_call(graph: Graph, shapes: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """Words "<input>.<axis>=N" for the open dimensions of the graph's inputs, from the shapes of one call by input.

    None where only the first dimension of inputs, mostly a batch, is open: that counts as 1.
    """
    if not unsized(graph):
        return ()
    given = (dim for dim in open_dims(required_inputs(graph)) if dim.value.name in shapes)
    return tuple(f"{dim.name}={shapes[dim.value.name][dim.axis]}" for dim in given)


def unsized(graph: Graph) -> list[str]:
    """Open dimensions of the graph's inputs about which nothing is assumed, the first of each, mostly a batch, apart.

    Estimates count them as 1, and mean little where there are any.
    """
    dims = open_dims(
        value
        for value in required_inputs(graph)
        if isinstance(value.type, TensorType) and not value.type.assumed
    )
    return [dim.name for dim in dims if dim.axis]


def unsized_note(graph: Graph) -> str:
    """What there is to say of estimates where `unsized` names dimensions; else nothing."""
    left = ", ".join(unsized(graph))
    return (
        left
        and f"{left} are open and count as 1 in all estimates; say how large they are with --dim"
    )
