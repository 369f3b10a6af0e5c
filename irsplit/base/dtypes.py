"""Element types: one table for all model formats, the IR text, frames and numpy."""

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from irsplit.base.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = LazyModule("numpy")


@dataclass(frozen=True, slots=True)
class DType:
    """An element type; two are equal if they have the same name.

    Attributes:
        name: The name in the IR text.
        code: The number in frames and descriptors, which never changes.
        bits: The packed size of one element; 0 if it has no fixed size.
        layout: numpy's name of the type that holds one element in memory: the type itself if numpy
            has it, the unsigned integer of the same width for bfloat16 and 8-bit floats, None for
            packed types of less than a byte and for types without numbers.
    """

    name: str
    code: int = field(compare=False)
    bits: int = field(compare=False)
    layout: str | None = field(compare=False, default=None)

    def __str__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.name.startswith(("f", "bf"))

    @property
    def framable(self) -> bool:
        """Whether frames can carry such elements: engines agree on their layout in memory."""
        return self.layout is not None

    @property
    def storage(self) -> "np.dtype[np.generic] | None":
        """`layout` as a numpy type."""
        return None if self.layout is None else _storage(self.layout)


@cache
def _storage(layout: str) -> "np.dtype[np.generic]":
    return np.dtype(layout)


F32 = DType("f32", 1, 32, "<f4")
F16 = DType("f16", 2, 16, "<f2")
F64 = DType("f64", 3, 64, "<f8")
BF16 = DType("bf16", 4, 16, "<u2")
I8 = DType("i8", 5, 8, "|i1")
I16 = DType("i16", 6, 16, "<i2")
I32 = DType("i32", 7, 32, "<i4")
I64 = DType("i64", 8, 64, "<i8")
U8 = DType("u8", 9, 8, "|u1")
U16 = DType("u16", 10, 16, "<u2")
U32 = DType("u32", 11, 32, "<u4")
U64 = DType("u64", 12, 64, "<u8")
BOOL = DType("bool", 13, 8, "|b1")
C64 = DType("c64", 14, 64, "<c8")
C128 = DType("c128", 15, 128, "<c16")
I4 = DType("i4", 16, 4)
U4 = DType("u4", 17, 4)
I2 = DType("i2", 18, 2)
U2 = DType("u2", 19, 2)
F8E4M3FN = DType("f8e4m3fn", 20, 8, "|u1")
F8E4M3FNUZ = DType("f8e4m3fnuz", 21, 8, "|u1")
F8E5M2 = DType("f8e5m2", 22, 8, "|u1")
F8E5M2FNUZ = DType("f8e5m2fnuz", 23, 8, "|u1")
F8E8M0 = DType("f8e8m0", 24, 8, "|u1")
F4E2M1 = DType("f4e2m1", 25, 4)
STR = DType("str", 26, 0)
RESOURCE = DType("resource", 27, 0)
VARIANT = DType("variant", 28, 0)

ALL: tuple[DType, ...] = (
    F32, F16, F64, BF16, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, C64, C128, I4, U4, I2, U2,
    F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F4E2M1, STR, RESOURCE, VARIANT,
)  # fmt: skip
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in ALL}
BY_CODE: dict[int, DType] = {dtype.code: dtype for dtype in ALL}
_BY_LAYOUT = {
    dtype.layout: dtype
    for dtype in ALL
    if dtype.layout is not None and dtype.name[:2] not in ("bf", "f8")
}


def from_numpy(array: "NDArray[np.generic]") -> DType | None:
    """The element type of an array in any byte order; None if model formats have no such type."""
    return _BY_LAYOUT.get(array.dtype.newbyteorder("<").str)
