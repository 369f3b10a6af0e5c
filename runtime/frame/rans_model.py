"""What coding in both directions and training share of static-rans (FORMAT.md, "static-rans").

It is the geometry of a tensor, the prediction of its symbols, and the contexts that choose the
table of each symbol. All of it works on symbols, one byte for each element, in pixel order:
[images, height, width, channels].
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.rans_parameters import (
    ESCAPE,
    FLAT,
    MAX_CHANNELS,
    PREDICTORS,
    Elements,
    RansModel,
)

__all__ = [
    "ESCAPE",
    "FLAT",
    "MAX_CHANNELS",
    "PREDICTORS",
    "WEIGHT_BITS",
    "Elements",
    "Geometry",
    "ModelledChunk",
    "Neighbours",
    "RansModel",
    "Symbols",
    "Wide",
    "geometry",
    "model_chunk",
    "neighbours",
    "predict",
    "refine",
    "surroundings",
]

Symbols = NDArray[np.uint8]
Wide = NDArray[np.int32]

WEIGHT_BITS = 6
"""Weights of a prediction count 1/2^WEIGHT_BITS."""
_HALF = 1 << (WEIGHT_BITS - 1)
"""Added before the weights are shifted out, to round to nearest."""


class Geometry(NamedTuple):
    """The sizes of a tensor in pixel order.

    `planar` says that the tensor has its channels before height and width.
    """

    images: int
    height: int
    width: int
    channels: int
    planar: bool


def geometry(shape: tuple[int, ...], channel_axis: int) -> Geometry:
    """Read a shape as images of pixels.

    When channels are last, the axes before them are width, height and images, from the last one on.
    When channels come before, the last axis is the width and the axes between are the height.

    Args:
        shape: The tensor's shape.
        channel_axis: Its axis of channels. FLAT takes the tensor as one channel, whose last axes
            are height and width.
    """
    if channel_axis == FLAT:
        shape, channel_axis = (*shape, 1), len(shape)

    before, channels, inner = shape[:channel_axis], shape[channel_axis], shape[channel_axis + 1 :]
    if inner:
        return Geometry(int(np.prod(before)), int(np.prod(inner[:-1])), inner[-1], channels, True)

    width = before[-1] if before else 1
    height = before[-2] if len(before) > 1 else 1
    return Geometry(int(np.prod(before[:-2])), height, width, channels, False)


class Neighbours(NamedTuple):
    """Symbols of the pixels around every pixel, arrays [..., channels]."""

    west: Wide
    north: Wide
    north_west: Wide
    north_east: Wide


def neighbours(values: NDArray[np.integer], first: int, geo: Geometry, initial: int) -> Neighbours:
    """The neighbours of every pixel of a chunk.

    Pixels before the chunk are missing. Where west is missing it is north; where north is missing
    it is west; where both are, they are `initial`. Where north-west or north-east is missing it is
    north.

    Args:
        values: The chunk, [pixels, channels].
        first: The index of its first pixel in the tensor.
        geo: The tensor's geometry.
        initial: What stands for both when neither west nor north exists.
    """
    local = np.arange(len(values))
    index = first + local
    x, y = index % geo.width, index // geo.width % geo.height
    has_west = (x > 0) & (local > 0)
    has_north = (y > 0) & (local >= geo.width)
    wide = values.astype(np.int32)

    def at(offset: int, exists: NDArray[np.bool_], otherwise: Wide) -> Wide:
        """The pixels `offset` before, where they exist."""
        return np.where(exists[:, None], wide[np.where(exists, local - offset, 0)], otherwise)

    west = at(1, has_west, at(geo.width, has_north, np.full_like(wide, initial)))
    north = at(geo.width, has_north, west)
    north_west = at(geo.width + 1, has_north & (x > 0) & (local > geo.width), north)
    north_east = at(geo.width - 1, has_north & (x < geo.width - 1), north)
    return Neighbours(west, north, north_west, north_east)


def predict(model: RansModel, near: Neighbours) -> Wide:
    """Predict every symbol from the neighbours in its own channel.

    "med" is the median of west, north and west + north - north-west; the weighted predictors round
    to the nearest symbol.
    """
    west, north, north_west, north_east = near
    if model.predictor == "none":
        return np.full_like(west, model.initial)
    if model.predictor == "med":
        return np.clip(west + north - north_west, np.minimum(west, north), np.maximum(west, north))

    w = model.weights.astype(np.int32)
    total = west * w[:, 0] + north * w[:, 1] + north_west * w[:, 2] + north_east * w[:, 3]
    return np.clip((total + _HALF) >> WEIGHT_BITS, 0, 255)


def refine(model: RansModel, prediction: Wide, residuals: Wide) -> Wide:
    """Improve a prediction by the reference channels of the same pixel.

    Args:
        model: The model.
        prediction: What `predict` gave.
        residuals: Symbols minus that prediction, right for all channels that are references.
    """
    if not model.has_references:
        return prediction
    w = model.reference_weights.astype(np.int32)
    of_references = residuals[..., model.references.astype(np.intp)]
    correction = ((of_references * w).sum(-1) + _HALF) >> WEIGHT_BITS
    return np.clip(prediction + correction, 0, 255)


def surroundings(sums: Wide, first: int, geo: Geometry) -> Wide:
    """The activity around every pixel of a chunk.

    It is the sum over its west, north and north-east pixel. A missing pixel counts as the one that
    stands for it in `neighbours`.

    Args:
        sums: [pixels] of |symbol - prediction| summed over the channels.
        first: The index of the chunk's first pixel in the tensor.
        geo: The tensor's geometry.
    """
    near = neighbours(sums[:, None], first, geo, 0)
    return (near.west + near.north + near.north_east)[:, 0]


class ModelledChunk(NamedTuple):
    """A chunk as the entropy coder sees it: symbol and table, both [pixels, channels]."""

    symbols: Symbols
    tables: NDArray[np.uint8]


def model_chunk(model: RansModel, symbols: Symbols, first: int, geo: Geometry) -> ModelledChunk:
    """Find what the entropy coder codes for every symbol of a chunk, and with which table.

    The table depends on the channel's class, on the level of the activity around the pixel, and on
    the bin of the prediction.

    Args:
        model: The model.
        symbols: The chunk, [pixels, channels].
        first: The index of its first pixel in the tensor.
        geo: The tensor's geometry.
    """
    base = predict(model, neighbours(symbols, first, geo, model.initial))
    residuals = symbols.astype(np.int32) - base
    activity = surroundings(np.abs(residuals).sum(-1), first, geo)
    levels = np.searchsorted(np.array(model.activity, np.int64), activity, "right")

    prediction = refine(model, base, residuals)
    bins = np.searchsorted(np.array(model.bins, np.int64), prediction, "right")
    tables = model.table_of[levels[:, None], bins, np.arange(model.channels)]
    coded = (symbols - prediction) & 0xFF if model.residual else symbols
    return ModelledChunk(coded.astype(np.uint8), tables)
