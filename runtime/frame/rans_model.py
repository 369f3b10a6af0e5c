"""The static-rans model: what the trainer finds at compile time and the descriptor carries (FORMAT.md, "static-rans").

Also the part of coding that is the same in both directions and in training: geometry, prediction, contexts. Everything
works on symbols, one byte an element, in pixel order: [images, height, width, channels].
"""

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
Wide = NDArray[np.int32]

FLAT = 0xFF
MAX_CHANNELS = 1 << 16
WEIGHT_BITS = 6
ESCAPE = 256  # index of the escape in a table's frequencies

PREDICTORS = ("none", "shared", "linear", "med")
_HEAD = struct.Struct("<BBBBBBBBHBBI")
_ELEMENTS = struct.Struct("<BBBBIq")


@dataclass(frozen=True, slots=True)
class Elements:
    """How an element becomes a symbol and remaining bits; symbol 255 announces a whole element among the bits.

    bytes: the element itself, i8 shifted to be monotone; no symbol is special.
    float: symbols rise with the value: `zero` is +0.0, above it positive values, below it negative ones, by exponent
        and `keep` mantissa bits counted from `base`; `tail` low mantissa bits are always zero; `top`, unless 0, is the
        bit pattern of one value with a symbol of its own, 254.
    integer: symbol (x - base) >> keep, remaining bits the low `keep` of x - base.
    """

    kind: str = "bytes"
    keep: int = 0
    tail: int = 0
    zero: int = 0
    top: int = 0
    base: int = 0


_KINDS = ("bytes", "float", "integer")


class Geometry(NamedTuple):
    """Symbols of a tensor in pixel order; `planar` when the tensor has its channels before height and width."""

    images: int
    height: int
    width: int
    channels: int
    planar: bool


def geometry(shape: tuple[int, ...], channel_axis: int) -> Geometry:
    """Channels last: the axes before are width, height, images. Channels before: the last axis is the width and the
    ones between are the height. FLAT: one channel, the last axes are height and width."""
    if channel_axis == FLAT:
        shape, channel_axis = (*shape, 1), len(shape)
    before, channels, inner = shape[:channel_axis], shape[channel_axis], shape[channel_axis + 1 :]
    if inner:
        return Geometry(int(np.prod(before)), int(np.prod(inner[:-1])), inner[-1], channels, True)
    width = before[-1] if before else 1
    height = before[-2] if len(before) > 1 else 1
    return Geometry(int(np.prod(before[:-2])), height, width, channels, False)


@dataclass(frozen=True)
class RansModel:
    """One tensor's trained model. Arrays are as in the descriptor; `frequencies` is [tables, 257], escape last."""

    channel_axis: int
    channels: int
    elements: Elements
    predictor: str
    residual: bool
    initial: int
    table_bits: int
    lanes: int
    activity: tuple[int, ...]
    """Rising thresholds of the activity of a pixel's surroundings; one level more than thresholds."""
    bins: tuple[int, ...]
    """Rising thresholds of the prediction; one bin more than thresholds."""
    weights: NDArray[np.int8] = field(repr=False)
    """[channels or 1, 4] of W, N, NW, NE in 1/64; empty for the other predictors."""
    references: NDArray[np.uint16] = field(repr=False)
    """[channels, 2] earlier channels of the pixel, from the second group of lanes on; empty without."""
    reference_weights: NDArray[np.int8] = field(repr=False)
    """[channels, 2] in 1/64."""
    classes: NDArray[np.uint8] = field(repr=False)
    """[channels] class of every channel."""
    contexts: NDArray[np.uint8] = field(repr=False)
    """[classes, levels, bins] table of every context."""
    frequencies: NDArray[np.uint16] = field(repr=False)

    @property
    def levels(self) -> int:
        return len(self.activity) + 1

    @property
    def bin_count(self) -> int:
        return len(self.bins) + 1

    @property
    def has_references(self) -> bool:
        return self.references.size > 0

    @cached_property
    def table_of(self) -> NDArray[np.uint8]:
        """[levels, bins, channels] table of every context, channels expanded."""
        return np.ascontiguousarray(self.contexts[self.classes].transpose(1, 2, 0))

    @staticmethod
    def from_bytes(data: bytes) -> "RansModel":
        """The inverse of `to_bytes`. Raises ValueError for anything that the C core refuses."""
        return _unpack(data)

    def to_bytes(self) -> bytes:
        e = self.elements
        form = self.residual | PREDICTORS.index(self.predictor) << 1 | self.has_references << 3
        head = _HEAD.pack(
            self.channel_axis, form, self.table_bits, self.lanes.bit_length() - 1, self.bin_count, self.levels,
            len(self.frequencies), _KINDS.index(e.kind), len(self.contexts), self.initial, 0, self.channels,
        )  # fmt: skip
        parts = [
            head,
            _ELEMENTS.pack(e.keep, e.tail, e.zero, 0, e.top, e.base),
            np.array(self.activity, "<u4").tobytes(),
            np.array(self.bins, np.uint8).tobytes(),
            self.weights.tobytes(),
        ]
        if self.has_references:
            parts += [
                self.references[self.lanes :].astype("<u2").tobytes(),
                self.reference_weights[self.lanes :].tobytes(),
            ]
        if len(self.contexts) > 1:
            parts.append(self.classes.tobytes())
        if len(self.frequencies) > 1:
            parts.append(self.contexts.tobytes())
        return b"".join([*parts, _pack_frequencies(self.frequencies, self.table_bits)])


def _golomb(value: int, order: int) -> str:
    """Exponential Golomb code, most significant bit first."""
    value += 1 << order
    digits = bin(value)[2:]
    return "0" * (len(digits) - 1 - order) + digits


def _pack_frequencies(frequencies: NDArray[np.uint16], table_bits: int) -> bytes:
    """Tables one after another: runs of absent symbols and frequencies take turns, a run first."""
    digits: list[str] = []
    for table in frequencies[:, :ESCAPE].tolist():
        position = 0
        while position < ESCAPE:
            run = next((i for i in range(position, ESCAPE) if table[i]), ESCAPE) - position
            digits.append(_golomb(run, 0))
            position += run
            while position < ESCAPE:
                digits.append(_golomb(table[position], 3))
                position += 1
                if table[position - 1] == 0:
                    break
    text = "".join(digits)
    text += "0" * (-len(text) % 8)
    assert table_bits <= 11
    return int(text, 2).to_bytes(len(text) // 8, "big") if text else b""


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._text = "".join(f"{byte:08b}" for byte in data)
        self._position = 0

    def golomb(self, order: int) -> int:
        one = self._text.find("1", self._position)
        length = one - self._position + 1 + order
        self._position = one
        digits = self._text[self._position : self._position + length]
        if one < 0 or len(digits) != length or length > 16:
            raise ValueError("a frequency table of static-rans is cut off")
        self._position += length
        return int(digits, 2) - (1 << order)

    @property
    def left(self) -> str:
        return self._text[self._position :]


def _unpack_frequencies(data: bytes, tables: int, table_bits: int) -> NDArray[np.uint16]:
    bits = _Bits(data)
    frequencies = np.zeros((tables, 257), np.uint16)
    for table in frequencies:
        position, total = 0, 0
        while position < ESCAPE:
            position += bits.golomb(0)
            while position < ESCAPE:
                frequency = bits.golomb(3)
                total += frequency
                if total > 1 << table_bits or frequency >= 1 << table_bits:
                    raise ValueError("a frequency table of static-rans sums to too much")
                table[position] = frequency
                position += 1
                if frequency == 0:
                    break
        if (
            position > ESCAPE
            or total == 0
            or (total == 1 << table_bits and np.any(table[:ESCAPE] == 0))
        ):
            raise ValueError("a frequency table of static-rans leaves no room for the escape")
        table[ESCAPE] = (1 << table_bits) - total
    if len(bits.left) >= 8 or "1" in bits.left:
        raise ValueError("bytes left over after the tables of static-rans")
    return frequencies


class _Fields:
    """Takes arrays off the parameters; ValueError when they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, dtype: str, count: int) -> NDArray[np.generic]:
        size = np.dtype(dtype).itemsize * count
        part = self._data[self._offset : self._offset + size]
        if len(part) != size:
            raise ValueError("the parameters of static-rans end too early")
        self._offset += size
        return np.frombuffer(part, dtype)

    def rest(self) -> bytes:
        return self._data[self._offset :]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"static-rans model: {what}")


def _unpack(data: bytes) -> RansModel:
    fields = _Fields(data)
    head = _HEAD.unpack(fields.take("u1", _HEAD.size).tobytes())
    (
        axis,
        form,
        table_bits,
        lanes_log2,
        bins,
        levels,
        tables,
        kind,
        classes,
        initial,
        reserved,
        channels,
    ) = head
    keep, tail, zero, reserved_too, top, base = _ELEMENTS.unpack(
        fields.take("u1", _ELEMENTS.size).tobytes()
    )
    _require(form < 16 and reserved == reserved_too == 0, "unknown flags")
    _require(8 <= table_bits <= 11 and lanes_log2 <= 5, "table bits or lanes out of range")
    _require(
        1 <= bins <= 16 and 1 <= levels <= 8 and 1 <= tables <= 64,
        "bins, levels or tables out of range",
    )
    _require(
        kind < len(_KINDS) and 1 <= channels <= MAX_CHANNELS, "elements or channels out of range"
    )
    _require(1 <= classes <= min(channels, 256), "classes out of range")
    _require(axis != FLAT or channels == 1, "several channels in flat geometry")
    _require(
        _KINDS[kind] != "bytes" or (keep, tail, zero, top, base) == (0, 0, 0, 0, 0),
        "bits of elements out of range",
    )
    _require(
        _KINDS[kind] != "integer" or (keep <= 32 and (tail, zero, top) == (0, 0, 0)),
        "bits of elements out of range",
    )
    lanes, predictor = 1 << lanes_log2, PREDICTORS[form >> 1 & 3]
    activity = fields.take("<u4", levels - 1).astype(np.int64)
    thresholds = fields.take("u1", bins - 1).astype(np.int64)
    _require(
        bool(np.all(np.diff(activity) > 0)) and bool(np.all(np.diff(thresholds) > 0)),
        "thresholds do not rise",
    )
    rows = {"none": 0, "med": 0, "shared": 1, "linear": channels}[predictor]
    weights = fields.take("i1", 4 * rows).reshape(rows, 4).astype(np.int8)
    sums = np.abs(weights.astype(np.int32)).reshape(rows, 2, 2).sum(2)
    _require(bool(np.all(sums <= 128)), "weights above 2")
    references, reference_weights = np.zeros((0, 2), np.uint16), np.zeros((0, 2), np.int8)
    if form & 8:
        _require(channels > lanes, "references without a second group of channels")
        later = channels - lanes
        references, reference_weights = (
            np.zeros((channels, 2), np.uint16),
            np.zeros((channels, 2), np.int8),
        )
        references[lanes:] = fields.take("<u2", 2 * later).reshape(later, 2)
        reference_weights[lanes:] = fields.take("i1", 2 * later).reshape(later, 2)
        first = np.arange(channels) // lanes * lanes
        _require(
            bool(np.all(references[lanes:] < first[lanes:, None])),
            "a reference is not an earlier channel",
        )
    class_of = fields.take("u1", channels) if classes > 1 else np.zeros(channels, np.uint8)
    contexts = (
        fields.take("u1", classes * levels * bins)
        if tables > 1
        else np.zeros(classes * levels * bins, np.uint8)
    )
    _require(
        bool(np.all(class_of < classes)) and bool(np.all(contexts < tables)),
        "a class or table does not exist",
    )
    return RansModel(
        axis, channels, Elements(_KINDS[kind], keep, tail, zero, top, base), predictor, bool(form & 1), initial,
        table_bits, lanes, tuple(activity.tolist()), tuple(thresholds.tolist()), weights, references, reference_weights,
        class_of.astype(np.uint8), contexts.reshape(classes, levels, bins).astype(np.uint8),
        _unpack_frequencies(fields.rest(), tables, table_bits),
    )  # fmt: skip


# ---- prediction and contexts, for any number of pixels at a time -----------------------------------------------------


class Neighbours(NamedTuple):
    """Symbols of the pixels around: arrays [..., channels]."""

    west: Wide
    north: Wide
    north_west: Wide
    north_east: Wide


def neighbours(values: NDArray[np.integer], first: int, geo: Geometry, initial: int) -> Neighbours:
    """Of every pixel of a chunk, [pixels, channels]; `first` is the index of its first pixel in the tensor.

    Pixels before the chunk are missing. West missing: north. North missing: west. Both: `initial`. North-west or
    north-east missing: north.
    """
    local = np.arange(len(values))
    index = first + local
    x, y = index % geo.width, index // geo.width % geo.height
    has_west = (x > 0) & (local > 0)
    has_north = (y > 0) & (local >= geo.width)
    wide = values.astype(np.int32)

    def at(offset: int, exists: NDArray[np.bool_], otherwise: Wide) -> Wide:
        return np.where(exists[:, None], wide[np.where(exists, local - offset, 0)], otherwise)

    west = at(1, has_west, at(geo.width, has_north, np.full_like(wide, initial)))
    north = at(geo.width, has_north, west)
    north_west = at(geo.width + 1, has_north & (x > 0) & (local > geo.width), north)
    north_east = at(geo.width - 1, has_north & (x < geo.width - 1), north)
    return Neighbours(west, north, north_west, north_east)


def predict(model: RansModel, near: Neighbours) -> Wide:
    """Prediction of every symbol from its own channel."""
    west, north, north_west, north_east = near
    if model.predictor == "none":
        return np.full_like(west, model.initial)
    if model.predictor == "med":
        return np.clip(west + north - north_west, np.minimum(west, north), np.maximum(west, north))
    w = model.weights.astype(np.int32)
    total = west * w[:, 0] + north * w[:, 1] + north_west * w[:, 2] + north_east * w[:, 3]
    return np.clip((total + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS, 0, 255)


def refine(model: RansModel, prediction: Wide, residuals: Wide) -> Wide:
    """Prediction improved by what the reference channels of the pixel are; residuals are against `predict`."""
    if not model.has_references:
        return prediction
    w = model.reference_weights.astype(np.int32)
    known = residuals[..., model.references.astype(np.intp)]
    correction = (known * w).sum(-1) + (1 << (WEIGHT_BITS - 1)) >> WEIGHT_BITS
    return np.clip(prediction + correction, 0, 255)


def surroundings(sums: Wide, first: int, geo: Geometry) -> Wide:
    """Activity around every pixel of a chunk: sums |symbol - prediction| of its west, north and north-east pixel.

    `sums` is [pixels]; a missing pixel counts like its neighbour, as in `neighbours`.
    """
    near = neighbours(sums[:, None], first, geo, 0)
    return (near.west + near.north + near.north_east)[:, 0]


class ModelledChunk(NamedTuple):
    """A chunk as the entropy coder sees it, [pixels, channels]."""

    symbols: Symbols
    tables: NDArray[np.uint8]


def model_chunk(model: RansModel, symbols: Symbols, first: int, geo: Geometry) -> ModelledChunk:
    """Symbol to code (direct or residual) and table of every symbol of a chunk [pixels, channels]."""
    base = predict(model, neighbours(symbols, first, geo, model.initial))
    residuals = symbols.astype(np.int32) - base
    levels = np.searchsorted(
        np.array(model.activity, np.int64),
        surroundings(np.abs(residuals).sum(-1), first, geo),
        "right",
    )
    prediction = refine(model, base, residuals)
    bins = np.searchsorted(np.array(model.bins, np.int64), prediction, "right")
    tables = model.table_of[levels[:, None], bins, np.arange(model.channels)]
    coded = (symbols - prediction) & 0xFF if model.residual else symbols
    return ModelledChunk(coded.astype(np.uint8), tables)
