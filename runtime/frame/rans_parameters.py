"""The trained model of static-rans, as descriptors carry it (FORMAT.md, "static-rans")."""

import struct
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FLAT = 0xFF
"""The channel axis of a model that takes the tensor as one channel."""
MAX_CHANNELS = 1 << 16
ESCAPE = 256
"""The index of the escape in the frequencies of a table."""
PREDICTORS = ("none", "shared", "linear", "med")
"""Predictors by their number in the format."""

_KINDS = ("bytes", "float", "integer")
_HEAD = struct.Struct("<BBBBBBBBHBBI")
"""Channel axis, form, table bits, log2 of the lanes, bins, levels, tables, kind of elements,
classes, initial prediction, reserved field, channels."""
_ELEMENTS = struct.Struct("<BBBBIq")
"""keep, tail, zero, reserved field, top, base."""


@dataclass(frozen=True, slots=True)
class Elements:
    """How an element becomes a symbol of one byte and remaining bits.

    bytes: the symbol is the element itself; i8 is shifted so that symbols rise with the values. No
        symbol is special.
    float: symbols rise with the value. `zero` is +0.0, positive values lie above it and negative
        ones below, by exponent and `keep` bits of the mantissa, counted from `base`. The low `tail`
        bits of the mantissa are always zero. `top`, unless it is 0, is the bit pattern of one value
        with a symbol of its own, 254.
    integer: the symbol is (x - base) >> keep, and the low `keep` bits remain.

    For floats and integers, symbol 255 announces a whole element among the remaining bits.
    """

    kind: str = "bytes"
    keep: int = 0
    tail: int = 0
    zero: int = 0
    top: int = 0
    base: int = 0


@dataclass(frozen=True)
class RansModel:
    """The trained model of one tensor. Arrays are as in the descriptor.

    Attributes:
        channel_axis: The tensor's axis of channels, or FLAT.
        channels: The size of that axis, or 1.
        elements: How elements become symbols.
        predictor: One of PREDICTORS: how a symbol is predicted from its neighbours.
        residual: Whether the difference from the prediction is coded instead of the symbol.
        initial: The prediction where there are no neighbours.
        table_bits: Frequencies of a table sum to 2^table_bits.
        lanes: States of the entropy coder that take turns.
        activity: Rising thresholds of the activity around a pixel. There is one level more than
            thresholds.
        bins: Rising thresholds of the prediction. There is one bin more than thresholds.
        weights: [channels or 1, 4] of west, north, north-west and north-east in 1/64; empty for
            predictors without weights.
        references: [channels, 2] earlier channels of the same pixel, from the second group of lanes
            on; empty without.
        reference_weights: [channels, 2] in 1/64.
        classes: [channels] class of every channel.
        contexts: [classes, levels, bins] table of every context.
        frequencies: [tables, 257] of every symbol, and last of the escape.
    """

    channel_axis: int
    channels: int
    elements: Elements
    predictor: str
    residual: bool
    initial: int
    table_bits: int
    lanes: int
    activity: tuple[int, ...]
    bins: tuple[int, ...]
    weights: NDArray[np.int8] = field(repr=False)
    references: NDArray[np.uint16] = field(repr=False)
    reference_weights: NDArray[np.int8] = field(repr=False)
    classes: NDArray[np.uint8] = field(repr=False)
    contexts: NDArray[np.uint8] = field(repr=False)
    frequencies: NDArray[np.uint16] = field(repr=False)

    @property
    def levels(self) -> int:
        """Levels of activity."""
        return len(self.activity) + 1

    @property
    def bin_count(self) -> int:
        """Bins of the prediction."""
        return len(self.bins) + 1

    @property
    def has_references(self) -> bool:
        """Whether channels are predicted from earlier ones of the same pixel too."""
        return self.references.size > 0

    @cached_property
    def table_of(self) -> NDArray[np.uint8]:
        """[levels, bins, channels] table of every context, classes expanded to channels."""
        return np.ascontiguousarray(self.contexts[self.classes].transpose(1, 2, 0))

    @staticmethod
    def from_bytes(data: bytes) -> "RansModel":
        """The inverse of `to_bytes`.

        Raises:
            ValueError: The bytes are no model. The C core refuses the same ones.
        """
        return _unpack(data)

    def to_bytes(self) -> bytes:
        """The model as the parameters of a tensor."""
        e = self.elements
        form = self.residual | PREDICTORS.index(self.predictor) << 1 | self.has_references << 3
        head = _HEAD.pack(
            self.channel_axis,
            form,
            self.table_bits,
            self.lanes.bit_length() - 1,
            self.bin_count,
            self.levels,
            len(self.frequencies),
            _KINDS.index(e.kind),
            len(self.contexts),
            self.initial,
            0,
            self.channels,
        )
        fields = [
            head,
            _ELEMENTS.pack(e.keep, e.tail, e.zero, 0, e.top, e.base),
            np.array(self.activity, "<u4").tobytes(),
            np.array(self.bins, np.uint8).tobytes(),
            self.weights.tobytes(),
        ]
        if self.has_references:
            fields.append(self.references[self.lanes :].astype("<u2").tobytes())
            fields.append(self.reference_weights[self.lanes :].tobytes())

        # Classes and contexts are all zero when there is one class or one table.
        if len(self.contexts) > 1:
            fields.append(self.classes.tobytes())
        if len(self.frequencies) > 1:
            fields.append(self.contexts.tobytes())
        fields.append(_pack_frequencies(self.frequencies, self.table_bits))
        return b"".join(fields)


def _golomb(value: int, order: int) -> str:
    """An exponential Golomb code as digits, the most significant bit first."""
    digits = bin(value + (1 << order))[2:]
    return "0" * (len(digits) - 1 - order) + digits


def _pack_frequencies(frequencies: NDArray[np.uint16], table_bits: int) -> bytes:
    """Pack tables one after another.

    In a table, the length of a run of absent symbols takes turns with the frequencies of the
    symbols behind it. A frequency of 0 ends those and begins the next run.
    """
    digits: list[str] = []
    for table in frequencies[:, :ESCAPE].tolist():
        position = 0
        while position < ESCAPE:
            present = next((i for i in range(position, ESCAPE) if table[i]), ESCAPE)
            digits.append(_golomb(present - position, 0))
            position = present
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
    """Takes Golomb codes off packed frequencies."""

    def __init__(self, data: bytes) -> None:
        self._text = "".join(f"{byte:08b}" for byte in data)
        self._position = 0

    def golomb(self, order: int) -> int:
        """The next exponential Golomb code of this order."""
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
        """The digits that are not taken."""
        return self._text[self._position :]


def _unpack_frequencies(data: bytes, tables: int, table_bits: int) -> NDArray[np.uint16]:
    """The inverse of `_pack_frequencies`. What a table lacks to its sum belongs to the escape."""
    bits = _Bits(data)
    frequencies = np.zeros((tables, 257), np.uint16)
    for table in frequencies:
        total = _unpack_table(bits, table, 1 << table_bits)
        table[ESCAPE] = (1 << table_bits) - total
    if len(bits.left) >= 8 or "1" in bits.left:
        raise ValueError("bytes left over after the tables of static-rans")
    return frequencies


def _unpack_table(bits: _Bits, table: NDArray[np.uint16], whole: int) -> int:
    """Fill one table.

    Args:
        bits: The packed frequencies, at the beginning of the table.
        table: Zeros.
        whole: What the frequencies and the escape sum to.

    Returns:
        The sum of the frequencies, without the escape.
    """
    position, total = 0, 0
    while position < ESCAPE:
        position += bits.golomb(0)

        while position < ESCAPE:
            frequency = bits.golomb(3)
            total += frequency
            if total > whole or frequency >= whole:
                raise ValueError("a frequency table of static-rans sums to too much")
            table[position] = frequency
            position += 1
            if frequency == 0:
                break

    # The escape may be left out only where every symbol is present.
    needs_escape = bool(np.any(table[:ESCAPE] == 0))
    if position > ESCAPE or total == 0 or (total == whole and needs_escape):
        raise ValueError("a frequency table of static-rans leaves no room for the escape")
    return total


class _Fields:
    """Takes arrays off the parameters; ValueError when they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, dtype: str, count: int) -> NDArray[np.generic]:
        """The next `count` elements."""
        size = np.dtype(dtype).itemsize * count
        data = self._data[self._offset : self._offset + size]
        if len(data) != size:
            raise ValueError("the parameters of static-rans end too early")
        self._offset += size
        return np.frombuffer(data, dtype)

    def rest(self) -> bytes:
        """Everything that is not taken."""
        return self._data[self._offset :]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"static-rans model: {what}")


@dataclass(frozen=True, slots=True)
class _Head:
    """The fixed fields, in the order of `_HEAD`."""

    axis: int
    form: int
    table_bits: int
    lanes_log2: int
    bins: int
    levels: int
    tables: int
    kind: int
    classes: int
    initial: int
    reserved: int
    channels: int

    @property
    def lanes(self) -> int:
        return 1 << self.lanes_log2

    @property
    def predictor(self) -> str:
        return PREDICTORS[self.form >> 1 & 3]

    def check(self) -> None:
        """Raise ValueError for fields out of range.

        The limits are those of the C core, which has room for so much.
        """
        _require(self.form < 16 and self.reserved == 0, "unknown flags")
        _require(
            8 <= self.table_bits <= 11 and self.lanes_log2 <= 5, "table bits or lanes out of range"
        )
        _require(
            1 <= self.bins <= 16 and 1 <= self.levels <= 8 and 1 <= self.tables <= 64,
            "bins, levels or tables out of range",
        )
        _require(
            self.kind < len(_KINDS) and 1 <= self.channels <= MAX_CHANNELS,
            "elements or channels out of range",
        )
        _require(1 <= self.classes <= min(self.channels, 256), "classes out of range")
        _require(self.axis != FLAT or self.channels == 1, "several channels in flat geometry")


def _unpack(data: bytes) -> RansModel:
    """The inverse of `RansModel.to_bytes`, field by field."""
    fields = _Fields(data)
    head = _Head(*_HEAD.unpack(fields.take("u1", _HEAD.size).tobytes()))
    elements_data = fields.take("u1", _ELEMENTS.size).tobytes()
    head.check()
    elements = _unpack_elements(elements_data, _KINDS[head.kind])

    # As wide integers, so that differences of unsigned ones can be negative.
    activity = fields.take("<u4", head.levels - 1).astype(np.int64)
    bins = fields.take("u1", head.bins - 1).astype(np.int64)
    rising = bool(np.all(np.diff(activity) > 0)) and bool(np.all(np.diff(bins) > 0))
    _require(rising, "thresholds do not rise")

    weights = _unpack_weights(fields, head)
    references, reference_weights = _unpack_references(fields, head)
    classes, contexts = _unpack_contexts(fields, head)
    return RansModel(
        channel_axis=head.axis,
        channels=head.channels,
        elements=elements,
        predictor=head.predictor,
        residual=bool(head.form & 1),
        initial=head.initial,
        table_bits=head.table_bits,
        lanes=head.lanes,
        activity=tuple(activity.tolist()),
        bins=tuple(bins.tolist()),
        weights=weights,
        references=references,
        reference_weights=reference_weights,
        classes=classes,
        contexts=contexts,
        frequencies=_unpack_frequencies(fields.rest(), head.tables, head.table_bits),
    )


def _unpack_elements(data: bytes, kind: str) -> Elements:
    keep, tail, zero, reserved, top, base = _ELEMENTS.unpack(data)
    _require(reserved == 0, "unknown flags")

    # Fields that a kind does not use must be zero.
    unused_fields = {"bytes": (keep, tail, zero, top, base), "integer": (tail, zero, top)}
    in_range = kind != "integer" or keep <= 32
    _require(in_range and not any(unused_fields.get(kind, ())), "bits of elements out of range")
    return Elements(kind, keep, tail, zero, top, base)


def _unpack_weights(fields: _Fields, head: _Head) -> NDArray[np.int8]:
    rows = {"none": 0, "med": 0, "shared": 1, "linear": head.channels}[head.predictor]

    weights = fields.take("i1", 4 * rows).reshape(rows, 4).astype(np.int8)
    # The weights of west and north, and those of the other two, sum to at most 2 (128/64).
    sums = np.abs(weights.astype(np.int32)).reshape(rows, 2, 2).sum(2)
    _require(bool(np.all(sums <= 128)), "weights above 2")
    return weights


def _unpack_references(fields: _Fields, head: _Head) -> tuple[NDArray[np.uint16], NDArray[np.int8]]:
    """References and their weights, zeros for the channels of the first group of lanes."""
    if not head.form & 8:
        return np.zeros((0, 2), np.uint16), np.zeros((0, 2), np.int8)
    channels, lanes = head.channels, head.lanes

    _require(channels > lanes, "references without a second group of channels")

    later = channels - lanes
    references = np.zeros((channels, 2), np.uint16)
    weights = np.zeros((channels, 2), np.int8)
    references[lanes:] = fields.take("<u2", 2 * later).reshape(later, 2)
    weights[lanes:] = fields.take("i1", 2 * later).reshape(later, 2)

    first_of_group = np.arange(channels) // lanes * lanes
    earlier = references[lanes:] < first_of_group[lanes:, None]
    _require(bool(np.all(earlier)), "a reference is not an earlier channel")
    return references, weights


def _unpack_contexts(fields: _Fields, head: _Head) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Class of every channel, and table of every context."""
    classes = np.zeros(head.channels, np.uint8)
    if head.classes > 1:
        classes = fields.take("u1", head.channels).astype(np.uint8)

    shape = head.classes, head.levels, head.bins
    contexts = np.zeros(shape, np.uint8)
    if head.tables > 1:
        contexts = fields.take("u1", contexts.size).astype(np.uint8).reshape(shape)

    exist = bool(np.all(classes < head.classes)) and bool(np.all(contexts < head.tables))
    _require(exist, "a class or table does not exist")
    return classes, contexts
