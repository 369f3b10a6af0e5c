"""What a picture would cost if it were sent as one: the baseline that many published splits lose to."""

import io
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from irsplit.base.lazy import LazyModule
from irsplit.engines.execute import Inputs
from irsplit.profiles.measured import MeasuredTransfer

if TYPE_CHECKING:
    from PIL import Image
else:
    Image = LazyModule("PIL.Image")

# Name, Pillow's format, its options.
FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("webp-lossless", "WEBP", {"lossless": True}),
    ("jpeg-q95", "JPEG", {"quality": 95}),
    ("jpeg-q75", "JPEG", {"quality": 75}),
)


def measure_picture(array: NDArray[Any]) -> tuple[MeasuredTransfer, ...]:
    """Size and times of an input in picture formats; none when it does not look like one picture.

    JPEG changes the input, and so does rounding floats to 8 bits: this is for comparison only.
    """
    pixels = _pixels(array)
    if pixels is None:
        return ()
    found: list[MeasuredTransfer] = []
    for name, format, options in FORMATS:
        file = io.BytesIO()
        start = time.perf_counter_ns()
        Image.fromarray(pixels).save(file, format, **options)
        encoded = time.perf_counter_ns()
        Image.open(io.BytesIO(file.getvalue())).load()
        found.append(
            MeasuredTransfer(name, file.tell(), encoded - start, time.perf_counter_ns() - encoded)
        )
    return tuple(found)


def picture_sizes(call: Inputs) -> dict[str, tuple[MeasuredTransfer, ...]]:
    """`measure_picture` of those inputs of a call that look like one, by name."""
    found = {name: measure_picture(np.asarray(array)) for name, array in call.items()}
    return {name: ways for name, ways in found.items() if ways}


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """Height x width (x 3) of 8 bits, from NHWC or NCHW of one picture; floats are stretched over their range."""
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or min(array.shape) not in (1, 3) or array.dtype.kind not in "fiu":
        return None
    if array.shape[-1] not in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.shape[-1] not in (1, 3) or min(array.shape[:2]) < 8:
        return None
    if array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    wide = array.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    return np.ascontiguousarray(
        np.rint((wide - low) * (255 / max(high - low, 1e-30))).astype(np.uint8)
    )
