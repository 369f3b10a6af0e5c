"""What it costs to send an input as a picture: the baseline that many published splits lose to."""

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

FORMATS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("webp-lossless", "WEBP", {"lossless": True}),
    ("jpeg-q95", "JPEG", {"quality": 95}),
    ("jpeg-q75", "JPEG", {"quality": 75}),
)
"""Picture formats to measure: name, Pillow's name of the format, its options."""

_SMALLEST_SIDE = 8
"""Fewer rows or columns are no picture."""


def measure_picture(array: NDArray[Any]) -> tuple[MeasuredTransfer, ...]:
    """Measure an input in several picture formats.

    JPEG changes the input, and so does rounding floats to 8 bits: the result is for comparison.

    Args:
        array: One input of one inference.

    Returns:
        Size and times for each format; nothing if the array does not look like one picture.
    """
    pixels = _pixels(array)
    if pixels is None:
        return ()

    transfers: list[MeasuredTransfer] = []
    for name, format, options in FORMATS:
        file = io.BytesIO()
        start = time.perf_counter_ns()
        Image.fromarray(pixels).save(file, format, **options)
        encoded = time.perf_counter_ns()

        Image.open(io.BytesIO(file.getvalue())).load()
        decoded = time.perf_counter_ns()
        transfers.append(MeasuredTransfer(name, file.tell(), encoded - start, decoded - encoded))
    return tuple(transfers)


def picture_sizes(inputs: Inputs) -> dict[str, tuple[MeasuredTransfer, ...]]:
    """Measure those inputs of one inference that look like a picture, by name."""
    by_name = {name: measure_picture(np.asarray(array)) for name, array in inputs.items()}
    return {name: transfers for name, transfers in by_name.items() if transfers}


def _pixels(array: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The 8-bit pixels of an array that looks like one picture, else None.

    Accepts NHWC, NCHW, HWC and CHW with 1 or 3 channels. Returns height x width, with three
    channels behind if there are three. Floats and wide integers are stretched over their range.
    """
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        return None

    # Channels come last in pictures.
    if array.shape[-1] not in (1, 3):
        array = np.moveaxis(array, 0, -1)
    if array.shape[-1] not in (1, 3) or min(array.shape[:2]) < _SMALLEST_SIDE:
        return None

    if array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    return _stretched(array)


def _stretched(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Map the array's range to 0..255."""
    wide = array.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    scale = 255 / max(high - low, 1e-30)
    return np.ascontiguousarray(np.rint((wide - low) * scale).astype(np.uint8))
