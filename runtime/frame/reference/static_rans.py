"""The static-rans codec in numpy: one chunk of symbols to a payload and back, as FORMAT.md describes it.

States are in [2^15, 2^31); words have 16 bits. Channel c of a pixel belongs to lane c mod lanes. A payload is the final
states, the words in the order in which decoding takes them, and the escaped symbols from the end backwards.
"""

import numpy as np
from numpy.typing import NDArray

from irsplit.runtime.frame.rans_model import (
    ESCAPE,
    Geometry,
    Neighbours,
    RansModel,
    Symbols,
    model_chunk,
    predict,
    refine,
)
from irsplit.runtime.frame.status import Status, StatusError

_LOW = 1 << 15


def encode_chunk(model: RansModel, symbols: Symbols, first: int, geo: Geometry) -> bytes:
    """`symbols` is [pixels, channels]; `first` the index of the first pixel in the tensor."""
    coded = model_chunk(model, symbols, first, geo)
    starts = _starts(model).tolist()
    frequencies = model.frequencies.tolist()
    states = [_LOW] * model.lanes
    words: list[int] = []
    escapes = bytearray()
    bits = model.table_bits
    lanes = np.tile(np.arange(model.channels) % model.lanes, len(symbols)).tolist()
    steps = zip(coded.symbols.ravel().tolist(), coded.tables.ravel().tolist(), lanes, strict=True)
    for symbol, table, lane in reversed(list(steps)):
        if frequencies[table][symbol] == 0:
            escapes.append(symbol)
            symbol = ESCAPE
        frequency = frequencies[table][symbol]
        state = states[lane]
        if state >= frequency << (31 - bits):
            words.append(state & 0xFFFF)
            state >>= 16
        states[lane] = (state // frequency << bits) + state % frequency + starts[table][symbol]
    return (
        np.array(states, "<u4").tobytes() + np.array(words[::-1], "<u2").tobytes() + bytes(escapes)
    )


def _starts(model: RansModel) -> NDArray[np.int64]:
    """First slot of every symbol of every table, in the order 0 to 255, escape."""
    total = np.cumsum(model.frequencies.astype(np.int64), axis=1)
    return total - model.frequencies


class _Stream:
    """What decoding takes from a payload: words from the front, escaped symbols from the back."""

    def __init__(self, payload: memoryview, lanes: int) -> None:
        if len(payload) < 4 * lanes:
            raise StatusError(Status.CORRUPT)
        self.states: list[int] = np.frombuffer(payload[: 4 * lanes], "<u4").tolist()
        if not all(_LOW <= state < 1 << 31 for state in self.states):
            raise StatusError(Status.CORRUPT)
        self._payload = payload
        self._front = 4 * lanes
        self._back = len(payload)

    def word(self) -> int:
        self._front += 2
        if self._front > self._back:
            raise StatusError(Status.CORRUPT)
        return int.from_bytes(self._payload[self._front - 2 : self._front], "little")

    def escape(self) -> int:
        self._back -= 1
        if self._front > self._back:
            raise StatusError(Status.CORRUPT)
        return self._payload[self._back]

    @property
    def complete(self) -> bool:
        return self._front == self._back and all(state == _LOW for state in self.states)


class _Tables:
    """Slot to symbol, for every table."""

    def __init__(self, model: RansModel) -> None:
        self.frequencies: list[list[int]] = model.frequencies.tolist()
        self.starts: list[list[int]] = _starts(model).tolist()
        self.symbols = [np.repeat(np.arange(257), table).tolist() for table in model.frequencies]
        self.bits = model.table_bits


def _decode_symbol(tables: _Tables, table: int, lane: int, stream: _Stream) -> int:
    state = stream.states[lane]
    slot = state & (1 << tables.bits) - 1
    symbol = tables.symbols[table][slot]
    state = (
        tables.frequencies[table][symbol] * (state >> tables.bits)
        + slot
        - tables.starts[table][symbol]
    )
    if state < _LOW:
        state = state << 16 | stream.word()
    stream.states[lane] = state
    return stream.escape() if symbol == ESCAPE else symbol


def decode_chunk(
    model: RansModel, payload: memoryview, count: int, first: int, geo: Geometry
) -> Symbols:
    """The inverse of `encode_chunk`: `count` pixels, [count, channels]. Raises StatusError(CORRUPT)."""
    stream, tables = _Stream(payload, model.lanes), _Tables(model)
    symbols = np.zeros((count, model.channels), np.uint8)
    sums = np.zeros(count, np.int64)
    for pixel in range(count):
        places = _places(pixel, first, geo)
        near = Neighbours(*(_row(model, symbols, place) for place in places))
        base = predict(model, near)
        around = sum(
            int(sums[place]) for place in (places[0], places[1], places[3]) if place is not None
        )
        level = int(np.searchsorted(np.array(model.activity, np.int64), around, "right"))
        _decode_pixel(model, tables, stream, base, level, symbols[pixel])
        sums[pixel] = np.abs(symbols[pixel].astype(np.int64) - base).sum()
    if not stream.complete:
        raise StatusError(Status.CORRUPT)
    return symbols


def _decode_pixel(
    model: RansModel,
    tables: _Tables,
    stream: _Stream,
    base: NDArray[np.int32],
    level: int,
    pixel: Symbols,
) -> None:
    residuals = np.zeros(model.channels, np.int32)
    for group in range(0, model.channels, model.lanes):
        prediction = refine(model, base, residuals)
        bins = np.searchsorted(np.array(model.bins, np.int64), prediction, "right")
        for channel in range(group, min(group + model.lanes, model.channels)):
            table = int(model.table_of[level, bins[channel], channel])
            symbol = _decode_symbol(tables, table, channel - group, stream)
            pixel[channel] = (symbol + prediction[channel]) & 0xFF if model.residual else symbol
            residuals[channel] = int(pixel[channel]) - base[channel]


def _row(model: RansModel, symbols: Symbols, place: int | None) -> NDArray[np.int32]:
    if place is None:
        return np.full(model.channels, model.initial, np.int32)
    return symbols[place].astype(np.int32)


def _places(
    pixel: int, first: int, geo: Geometry
) -> tuple[int | None, int | None, int | None, int | None]:
    """Pixels within the chunk that stand for west, north, north-west and north-east, as in `neighbours`."""
    x, y = (first + pixel) % geo.width, (first + pixel) // geo.width % geo.height
    has_north = y > 0 and pixel >= geo.width
    west = pixel - 1 if x > 0 and pixel > 0 else None
    north = pixel - geo.width if has_north else west
    west = north if west is None else west
    north_west = pixel - geo.width - 1 if has_north and x > 0 and pixel > geo.width else north
    north_east = pixel - geo.width + 1 if has_north and x < geo.width - 1 else north
    return west, north, north_west, north_east
