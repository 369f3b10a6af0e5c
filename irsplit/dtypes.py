"""Element types: one table for both formats, the IR text, the frame and numpy.

`code` is the number that frames and boundary descriptors carry; it is never renumbered.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class DType:
    """An element type, equal by name.

    `bits` is the packed size of one element, 0 when it has no fixed size. `storage` is the numpy type that holds one
    element in memory: the type itself where numpy has it, the unsigned integer of the same width for bfloat16 and
    the 8-bit floats, None for packed sub-byte and non-numeric types.
    """

    name: str
    code: int = field(compare=False)
    bits: int = field(compare=False)
    storage: np.dtype[np.generic] | None = field(compare=False)

    def __str__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        return self.name.startswith(("f", "bf"))

    @property
    def framable(self) -> bool:
        """Whether a boundary may carry it: a fixed size per element, and a memory layout both engines agree on."""
        return self.storage is not None


def _dtype(name: str, code: int, bits: int, storage: DTypeLike | None = None) -> DType:
    return DType(name, code, bits, None if storage is None else np.dtype(storage).newbyteorder("<"))


F32 = _dtype("f32", 1, 32, np.float32)
F16 = _dtype("f16", 2, 16, np.float16)
F64 = _dtype("f64", 3, 64, np.float64)
BF16 = _dtype("bf16", 4, 16, np.uint16)
I8 = _dtype("i8", 5, 8, np.int8)
I16 = _dtype("i16", 6, 16, np.int16)
I32 = _dtype("i32", 7, 32, np.int32)
I64 = _dtype("i64", 8, 64, np.int64)
U8 = _dtype("u8", 9, 8, np.uint8)
U16 = _dtype("u16", 10, 16, np.uint16)
U32 = _dtype("u32", 11, 32, np.uint32)
U64 = _dtype("u64", 12, 64, np.uint64)
BOOL = _dtype("bool", 13, 8, np.bool_)
C64 = _dtype("c64", 14, 64, np.complex64)
C128 = _dtype("c128", 15, 128, np.complex128)
I4 = _dtype("i4", 16, 4)
U4 = _dtype("u4", 17, 4)
I2 = _dtype("i2", 18, 2)
U2 = _dtype("u2", 19, 2)
F8E4M3FN = _dtype("f8e4m3fn", 20, 8, np.uint8)
F8E4M3FNUZ = _dtype("f8e4m3fnuz", 21, 8, np.uint8)
F8E5M2 = _dtype("f8e5m2", 22, 8, np.uint8)
F8E5M2FNUZ = _dtype("f8e5m2fnuz", 23, 8, np.uint8)
F8E8M0 = _dtype("f8e8m0", 24, 8, np.uint8)
F4E2M1 = _dtype("f4e2m1", 25, 4)
STR = _dtype("str", 26, 0)
RESOURCE = _dtype("resource", 27, 0)
VARIANT = _dtype("variant", 28, 0)

ALL: tuple[DType, ...] = (
    F32, F16, F64, BF16, I8, I16, I32, I64, U8, U16, U32, U64, BOOL, C64, C128, I4, U4, I2, U2,
    F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, F4E2M1, STR, RESOURCE, VARIANT,
)  # fmt: skip
BY_NAME: dict[str, DType] = {dtype.name: dtype for dtype in ALL}
BY_CODE: dict[int, DType] = {dtype.code: dtype for dtype in ALL}
_BY_NUMPY = {dtype.storage: dtype for dtype in ALL if dtype.storage is not None and dtype.name[:2] not in ("bf", "f8")}


def from_numpy(array: NDArray[np.generic]) -> DType | None:
    """The element type of an array, whatever its byte order; None when the formats have no such type."""
    return _BY_NUMPY.get(array.dtype.newbyteorder("<"))
