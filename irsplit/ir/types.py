"""Types of values: tensors with element type, shape and quantization; all others are opaque."""

from dataclasses import dataclass, field
from math import prod

from irsplit.base.dtypes import DType

Dim = int | str | None
"""A dimension: a number, a symbol (equal to itself wherever it appears), or None for unknown."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantization: real = scale * (stored - zero_point).

    Attributes:
        scale: One scale for each channel of `axis`, or a single one for the whole tensor.
        zero_point: As many zero points as scales.
        axis: The dimension of the channels; None for the whole tensor.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorType:
    """The type of a tensor.

    Attributes:
        dtype: The element type.
        shape: The dimensions; None if not even their number is known.
        quantization: The affine quantization of the elements, if there is one.
        assumed: A shape without open dimensions for estimates. It is not part of the type: types
            that differ in it alone are equal, writers ignore it, and it never makes a cut legal.
    """

    dtype: DType
    shape: tuple[Dim, ...] | None
    quantization: Quantization | None = None
    assumed: tuple[int, ...] | None = field(default=None, compare=False)

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return self.shape is not None and all(isinstance(dim, int) for dim in self.shape)

    @property
    def estimated_shape(self) -> tuple[int, ...] | None:
        """The shape to estimate with; None if not even the rank is known.

        It is the assumed shape if there is one, and otherwise the shape with 1 for every open
        dimension.
        """
        if self.assumed is not None or self.shape is None:
            return self.assumed
        return tuple(dim if isinstance(dim, int) else 1 for dim in self.shape)

    @property
    def estimated_bytes(self) -> int:
        """Bytes of the packed tensor in its `estimated_shape`; 0 if that or the size of an element
        is not known."""
        dims = self.shape if self.assumed is None else self.assumed
        if dims is None:
            return 0

        # Large graphs ask a million times, so this does without the tuple of `estimated_shape`.
        bits = self.dtype.bits
        for dim in dims:
            if isinstance(dim, int):
                bits *= dim
        return (bits + 7) // 8

    def elements(self, unknown: int | None = None) -> int | None:
        """The number of elements.

        Args:
            unknown: What a symbolic or unknown dimension, or an unknown rank, counts as.

        Returns:
            The number, or None if it depends on an unknown dimension and `unknown` is None.
        """
        if self.shape is None:
            return unknown
        dims = [dim if isinstance(dim, int) else unknown for dim in self.shape]
        sizes = [dim for dim in dims if dim is not None]
        return prod(sizes) if len(sizes) == len(dims) else None

    def size_bytes(self, unknown: int | None = None) -> int | None:
        """Bytes of the packed tensor; None if the number or the size of its elements is unknown.

        Args:
            unknown: As for `elements`.
        """
        elements = self.elements(unknown)
        if elements is None or not self.dtype.bits:
            return None
        return (elements * self.dtype.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class OpaqueType:
    """A type that irsplit carries but does not look into: a sequence, an optional, a map.

    `text` is the type in words for people.
    """

    text: str


Type = TensorType | OpaqueType
