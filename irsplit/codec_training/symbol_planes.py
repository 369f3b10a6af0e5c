"""Turn calibration samples into planes of symbols, which is what the trainer learns from."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.descriptor import TensorSpec
from irsplit.runtime.frame.rans_model import (
    MAX_CHANNELS,
    Elements,
    Geometry,
    Symbols,
    geometry,
)
from irsplit.runtime.frame.reference.elements import pixel_order, split
from irsplit.runtime.frame.reference.quantize import quantize

Array = NDArray[np.generic]

HOLD_OUT = 4
"""One of so many planes is held out to choose between candidates."""


class SymbolPlane(NamedTuple):
    """The symbols of one sample, or of some rows of it.

    Attributes:
        symbols: [pixels, channels], in the order in which they are coded.
        geometry: Images, height, width and channels of the pixels.
    """

    symbols: Symbols
    geometry: Geometry


def to_planes(
    samples: Sequence[Array], spec: TensorSpec, axis: int, elements: Elements
) -> list[SymbolPlane]:
    """Quantize samples as a frame would, and split them into symbols.

    Args:
        samples: Values of the tensor.
        spec: Type, shape and quantization of the tensor.
        axis: The axis of the channels, or FLAT.
        elements: How elements become symbols.
    """
    planes: list[SymbolPlane] = []
    for sample in samples:
        wire = sample
        if spec.quantization is not None:
            wire = quantize(spec, sample)[0].reshape(sample.shape)
        geo = geometry(sample.shape, axis)
        symbols = split(elements, spec, pixel_order(wire, geo)).symbols
        planes.append(SymbolPlane(symbols, geo))
    return planes


def channels_come_first(
    samples: Sequence[Array], spec: TensorSpec, planes: Sequence[SymbolPlane]
) -> bool:
    """Whether a tensor of three dims is [N, C, L] rather than [N, T, features].

    Neighbours in space or time differ less than neighbouring channels do. So the channels come
    first if symbols differ less along the last axis than along the second.

    Args:
        samples: Values of the tensor.
        spec: Type and shape of the tensor.
        planes: The symbols of the samples, in the order of memory.
    """
    if len(spec.shape) != 3 or not 2 <= (spec.shape[1] or 0) <= MAX_CHANNELS:
        return False

    differences = np.zeros(2)
    for sample, plane in zip(samples, planes, strict=True):
        if sample.size == 0 or sample.shape[2] == 1:
            continue
        # Channels are last, or there is one: either way, symbols are in the order of memory.
        symbols = plane.symbols.reshape(sample.shape).astype(np.int16)
        differences += [float(np.abs(np.diff(symbols, axis=axis)).mean()) for axis in (1, 2)]
    return differences[1] < differences[0]


def bands(plane: SymbolPlane) -> list[SymbolPlane]:
    """Split a single plane into bands of rows, so that one of them can be held out.

    A plane with too few rows is returned twice: it is measured on what it was trained on.
    """
    rows = plane.geometry.images * plane.geometry.height
    if rows < 2 * HOLD_OUT:
        return [plane, plane]

    width = plane.geometry.width
    cuts = [round(band * rows / HOLD_OUT) * width for band in range(HOLD_OUT + 1)]
    flat = plane.geometry._replace(images=1, height=rows)
    return [SymbolPlane(plane.symbols[start:stop], flat) for start, stop in pairwise(cuts)]


def thinned(planes: list[SymbolPlane], budget: int) -> list[SymbolPlane]:
    """Keep at most about `budget` symbols: whole rows from the middle of each plane."""
    share = budget / max(1, sum(plane.symbols.size for plane in planes))
    if share >= 1:
        return planes

    # Whole rows, so that the neighbours of each symbol are still there.
    thin: list[SymbolPlane] = []
    for symbols, geo in planes:
        rows = geo.images * geo.height
        keep = max(1, int(rows * share))
        first = (rows - keep) // 2 * geo.width
        kept = symbols[first : first + keep * geo.width]
        thin.append(SymbolPlane(kept, geo._replace(images=1, height=rows)))
    return thin


def split_held_out(planes: list[SymbolPlane]) -> tuple[list[SymbolPlane], list[SymbolPlane]]:
    """Split planes into those to fit to and those to measure on; a plane may be in the list twice.

    Returns:
        Both lists; if all planes would be held out, all are in both.
    """
    held = planes[HOLD_OUT - 1 :: HOLD_OUT] or planes[-1:]
    held_ids = {id(plane) for plane in held}
    fitted = [plane for plane in planes if id(plane) not in held_ids]
    return fitted or planes, held
