"""The static-rans codec in numpy: a chunk of symbols to a payload and back, as in FORMAT.md.

The entropy coder is rANS with several states, which take turns: channel c of a pixel belongs to
lane c mod lanes. A state is in [2^15, 2^31). To encode a symbol, a state that would leave that
range gives away its low 16 bits as a word; then the symbol is put in. Decoding takes symbols out in
the opposite order, and takes words back whenever a state falls below the range. So the encoder goes
through the symbols backwards.

A payload is the final states, the words in the order in which decoding takes them, and the escaped
symbols from the end backwards.
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
"""The lowest state."""


def encode_chunk(model: RansModel, symbols: Symbols, first: int, geo: Geometry) -> bytes:
    """Encode a chunk.

    Args:
        model: The tensor's model.
        symbols: The chunk, [pixels, channels].
        first: The index of its first pixel in the tensor.
        geo: The tensor's geometry.
    """
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
        # A symbol without a frequency is written out, behind an escape.
        if frequencies[table][symbol] == 0:
            escapes.append(symbol)
            symbol = ESCAPE
        frequency = frequencies[table][symbol]

        # Make room first: the symbol multiplies the state by 2^bits / frequency.
        state = states[lane]
        if state >= frequency << (31 - bits):
            words.append(state & 0xFFFF)
            state >>= 16
        states[lane] = (state // frequency << bits) + state % frequency + starts[table][symbol]

    payload = np.array(states, "<u4").tobytes() + np.array(words[::-1], "<u2").tobytes()
    return payload + bytes(escapes)


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
        """The next word."""
        self._front += 2
        if self._front > self._back:
            raise StatusError(Status.CORRUPT)
        return int.from_bytes(self._payload[self._front - 2 : self._front], "little")

    def escape(self) -> int:
        """The next escaped symbol."""
        self._back -= 1
        if self._front > self._back:
            raise StatusError(Status.CORRUPT)
        return self._payload[self._back]

    @property
    def complete(self) -> bool:
        """Whether everything is taken, and every state is back where encoding began."""
        return self._front == self._back and all(state == _LOW for state in self.states)


class _Tables:
    """The tables of a model as decoding reads them.

    Attributes:
        frequencies: By table and symbol.
        starts: First slot, by table and symbol.
        symbols: Symbol, by table and slot.
        bits: Each table has 2^bits slots.
    """

    def __init__(self, model: RansModel) -> None:
        self.frequencies: list[list[int]] = model.frequencies.tolist()
        self.starts: list[list[int]] = _starts(model).tolist()
        self.symbols = [np.repeat(np.arange(257), table).tolist() for table in model.frequencies]
        self.bits = model.table_bits


def _decode_symbol(tables: _Tables, table: int, lane: int, stream: _Stream) -> int:
    """Take one symbol out of the state of a lane."""
    state = stream.states[lane]
    slot = state & (1 << tables.bits) - 1
    symbol = tables.symbols[table][slot]

    frequency, start = tables.frequencies[table][symbol], tables.starts[table][symbol]
    state = frequency * (state >> tables.bits) + slot - start
    if state < _LOW:
        state = state << 16 | stream.word()
    stream.states[lane] = state
    return stream.escape() if symbol == ESCAPE else symbol


def decode_chunk(
    model: RansModel, payload: memoryview, count: int, first: int, geo: Geometry
) -> Symbols:
    """The inverse of `encode_chunk`.

    Args:
        model: The tensor's model.
        payload: The encoded chunk.
        count: How many pixels it has.
        first: The index of its first pixel in the tensor.
        geo: The tensor's geometry.

    Returns:
        [count, channels].

    Raises:
        StatusError: The payload is CORRUPT.
    """
    stream, tables = _Stream(payload, model.lanes), _Tables(model)
    thresholds = np.array(model.activity, np.int64)
    symbols = np.zeros((count, model.channels), np.uint8)
    sums = np.zeros(count, np.int64)

    # Pixel by pixel, because every prediction needs the pixels before.
    for pixel in range(count):
        places = _places(pixel, first, geo)
        near = Neighbours(*(_row(model, symbols, place) for place in places))
        base = predict(model, near)

        west, north, _, north_east = places
        around = sum(int(sums[place]) for place in (west, north, north_east) if place is not None)
        level = int(np.searchsorted(thresholds, around, "right"))
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
    """Decode the channels of one pixel into `pixel`.

    The references of a group of lanes are channels of the groups before, so predictions are refined
    group by group.
    """
    thresholds = np.array(model.bins, np.int64)
    residuals = np.zeros(model.channels, np.int32)
    for group in range(0, model.channels, model.lanes):
        prediction = refine(model, base, residuals)
        bins = np.searchsorted(thresholds, prediction, "right")
        for channel in range(group, min(group + model.lanes, model.channels)):
            table = int(model.table_of[level, bins[channel], channel])
            symbol = _decode_symbol(tables, table, channel - group, stream)
            pixel[channel] = (symbol + prediction[channel]) & 0xFF if model.residual else symbol
            residuals[channel] = int(pixel[channel]) - base[channel]


def _row(model: RansModel, symbols: Symbols, place: int | None) -> NDArray[np.int32]:
    """The symbols of one pixel; the initial prediction for None."""
    if place is None:
        return np.full(model.channels, model.initial, np.int32)
    return symbols[place].astype(np.int32)


def _places(
    pixel: int, first: int, geo: Geometry
) -> tuple[int | None, int | None, int | None, int | None]:
    """Pixels within the chunk that stand for west, north, north-west and north-east.

    The rules for missing ones are those of `neighbours`; None means that neither west nor north
    exists.
    """
    x, y = (first + pixel) % geo.width, (first + pixel) // geo.width % geo.height
    has_west = x > 0 and pixel > 0
    if y == 0 or pixel < geo.width:
        only = pixel - 1 if has_west else None
        return only, only, only, only

    north = pixel - geo.width
    west = pixel - 1 if has_west else north
    north_west = north - 1 if x > 0 and pixel > geo.width else north
    north_east = north + 1 if x < geo.width - 1 else north
    return west, north, north_west, north_east
