"""Types of values: tensors with element type, shape and quantization; everything else is opaque."""

from dataclasses import dataclass, field
from math import prod

from irsplit.base.dtypes import DType

Dim = int | str | None
"""A dimension: a number, a symbol that equals itself wherever it appears, or unknown."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """Affine quantization: real = scale * (stored - zero_point), per tensor or along `axis`.

    One scale and one zero point per channel of `axis`; a single pair with `axis` None for the whole tensor.
    """

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type, shape (None: not even the rank is known) and quantization of a tensor.

    `assumed` is a shape without open dimensions that estimates count with. It is no part of the type: types that
    differ in nothing else are equal, no writer looks at it, and what is legal does not depend on it.
    """

    dtype: DType
    shape: tuple[Dim, ...] | None
    quantization: Quantization | None = None
    assumed: tuple[int, ...] | None = field(default=None, compare=False)

    @property
    def is_static(self) -> bool:
        return self.shape is not None and all(isinstance(dim, int) for dim in self.shape)

    @property
    def estimated_shape(self) -> tuple[int, ...] | None:
        """The shape to estimate with: the assumed ones, else the known, with 1 for every open dimension; None without
        a rank."""
        if self.assumed is not None or self.shape is None:
            return self.assumed
        return tuple(dim if isinstance(dim, int) else 1 for dim in self.shape)

    @property
    def estimated_bytes(self) -> int:
        """Bytes of the tensor in its `estimated_shape`, packed; 0 when it or the element size is unknown."""
        dims = self.shape if self.assumed is None else self.assumed
        if dims is None:
            return 0
        bits = self.dtype.bits
        for dim in (
            dims
        ):  # asked for a million times of a large graph, so without making `estimated_shape`
            if isinstance(dim, int):
                bits *= dim
        return (bits + 7) // 8

    def elements(self, unknown: int | None = None) -> int | None:
        """Number of elements; a symbolic or unknown dimension counts as `unknown`, None when that is None."""
        if self.shape is None:
            return unknown
        dims = [dim if isinstance(dim, int) else unknown for dim in self.shape]
        known = [dim for dim in dims if dim is not None]
        return prod(known) if len(known) == len(dims) else None

    def size_bytes(self, unknown: int | None = None) -> int | None:
        """Bytes of the tensor, packed; None when a dimension or the element size is unknown."""
        elements = self.elements(unknown)
        if elements is None or not self.dtype.bits:
            return None
        return (elements * self.dtype.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class OpaqueType:
    """A type that irsplit carries but does not look into: sequence, optional, map; `text` is for people."""

    text: str


Type = TensorType | OpaqueType
