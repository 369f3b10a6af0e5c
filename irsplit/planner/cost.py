"""The cost table: what every stage and tensor of a model costs on a device, a server and a link.

All figures are integers: nanoseconds, nanojoules, microwatts, bytes, bits per second. Two runs over
the same table therefore give the same plan, digit for digit. The table knows nothing of the IR: a
stage is any set of nodes that stays together, a tensor any value that one stage makes and others
read. Stages need not form a chain.

A solver does not read the table itself but its columns (`Columns`): the terms (terms.py) of every
stage on either side, and of every option to send a tensor.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property
from itertools import chain

import numpy as np

from irsplit.base.errors import PlanError
from irsplit.base.reading import reading, record
from irsplit.planner.terms import TERMS, Ints, Mask
from irsplit.profiles.model import NO_MESSAGE, Link, Message

FORMAT = "irsplit-cost-table/1"
_MOST_LOAD = 1_000_000
"""Percent: a server ten thousand times as slow as an idle one."""


class Placement(StrEnum):
    """Where a stage runs."""

    DEVICE = "device"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage costs on either side.

    Attributes:
        name: A name for messages.
        device_ns: Nanoseconds on the device.
        server_ns: Nanoseconds on an idle server.
        device_nj: Battery energy on the device.
        weight_bytes: Device memory that stays as long as the device side is loaded.
        working_bytes: Device memory that is needed only while the stage runs.
        pin: The side on which the stage must run; None if either will do.
    """

    name: str
    device_ns: int
    server_ns: int
    device_nj: int = 0
    weight_bytes: int = 0
    working_bytes: int = 0
    pin: Placement | None = None


@dataclass(frozen=True, slots=True)
class TransferOption:
    """One way to send a tensor: its codec, its bytes, and the time to encode and decode it."""

    codec: str
    size_bytes: int
    encode_ns: int = 0
    decode_ns: int = 0


@dataclass(frozen=True, slots=True)
class CostTensor:
    """A value that crosses at most once in each direction, however many stages read it.

    Attributes:
        name: Its name in the model.
        producer: The stage that makes it; None for a graph input, which starts on the device.
        consumers: The stages that read it, ascending, all after the producer.
        up: The options to send it to the server; empty if it cannot be sent.
        down: The options to send it to the device; empty if it cannot be sent.
        output: Whether it is a graph output, which must reach the device.
        preview: Options that change a graph input, such as a picture as JPEG. Only the baseline
            `server only, compressed input` uses them.
    """

    name: str
    producer: int | None
    consumers: tuple[int, ...]
    up: tuple[TransferOption, ...]
    down: tuple[TransferOption, ...]
    output: bool = False
    preview: tuple[TransferOption, ...] = ()


@dataclass(frozen=True)
class CostTable:
    """Stages in topological order, the tensors between them, and what prices a placement.

    Attributes:
        name: A name for messages.
        stages: The stages; a tensor's producer and consumers are indices of them.
        tensors: The tensors.
        link: The link between device and server.
        active_uw: Power of the device while it computes.
        idle_uw: Power of the device while it waits.
        server_load_percent: Scales the server's times: 100 is an idle server, 300 one on which
            everything takes three times as long.
        message: The fixed cost of a round trip.

    Raises:
        PlanError: An index or a figure is impossible.

    Example:
        >>> from irsplit.planner import plan
        >>> from irsplit.profiles import link
        >>> raw = (TransferOption("raw", 1000),)
        >>> stages = (StageCost("a", 5_000, 50), StageCost("b", 9_000_000, 90))
        >>> tensors = (CostTensor("x", None, (0,), raw, raw), CostTensor("t", 0, (1,), raw, raw))
        >>> plan(CostTable("two", stages, tensors, link("5g"))).value > 0
        True
    """

    name: str
    stages: tuple[StageCost, ...]
    tensors: tuple[CostTensor, ...]
    link: Link
    active_uw: int = 0
    idle_uw: int = 0
    server_load_percent: int = 100
    message: Message = NO_MESSAGE

    def __post_init__(self) -> None:
        where = f"cost table {self.name!r}"
        if not self.stages:
            raise PlanError(f"{where} has no stages; a plan needs at least one")

        for value, field in ((self.active_uw, "active_uw"), (self.idle_uw, "idle_uw")):
            if value < 0:
                raise PlanError(f"{where}: {field} is {value}; it must not be negative")
        if not 0 < self.server_load_percent <= _MOST_LOAD:
            raise PlanError(f"{where}: server_load_percent must be positive, at most {_MOST_LOAD}")
        if min(asdict(self.message).values()) < 0:
            raise PlanError(f"{where} has a negative cost: {self.message}")

        for tensor in self.tensors:
            self._check_tensor(tensor)
        for stage in self.stages:
            self._check_stage(stage)

    def _check_stage(self, stage: StageCost) -> None:
        figures = (
            stage.device_ns,
            stage.server_ns,
            stage.device_nj,
            stage.weight_bytes,
            stage.working_bytes,
        )
        if min(figures) < 0:
            raise PlanError(
                f"cost table {self.name!r}: stage {stage.name!r} has a negative cost: {stage}"
            )

    def _check_tensor(self, tensor: CostTensor) -> None:
        where = f"cost table {self.name!r}: tensor {tensor.name!r}"
        count = len(self.stages)
        producer = -1 if tensor.producer is None else tensor.producer
        consumers = tensor.consumers

        # Stages are in topological order: whoever reads a tensor comes after its producer.
        if consumers and not producer < min(consumers) <= max(consumers) < count:
            raise PlanError(
                f"{where} is read by stages {consumers} but made by {tensor.producer}; "
                "sort the stages"
            )
        if producer >= count:
            raise PlanError(f"{where} is made by stage {producer} of {count}")

        for option in (*tensor.up, *tensor.down, *tensor.preview):
            if min(option.size_bytes, option.encode_ns, option.decode_ns) < 0:
                raise PlanError(f"{where} has a negative cost: {option}")

    @cached_property
    def columns(self) -> "Columns":
        """The table as arrays. Raises PlanError if a figure does not fit into 64 bits."""
        try:
            return _columns(self)
        except OverflowError as error:
            raise PlanError(
                "the model moves more than 2^63 bytes, or takes as many nanoseconds; check the "
                "dimensions of its tensors"
            ) from error

    @property
    def knows_energy(self) -> bool:
        """Whether the device's power is known; if not, energy is that of the radio alone."""
        return bool(self.active_uw) or any(stage.device_nj for stage in self.stages)

    def with_link(self, link: Link) -> "CostTable":
        """The same table over another link."""
        return replace(self, link=link)

    def with_load(self, server_load_percent: int) -> "CostTable":
        """The same table with another load of the server."""
        return replace(self, server_load_percent=server_load_percent)


@dataclass(frozen=True, slots=True)
class CostColumns:
    """The transfer options of all tensors in one direction, as columns.

    Attributes:
        ptr: Options `ptr[t] .. ptr[t + 1]` belong to tensor t.
        terms: One row per term, one column per option.
        origin: The index of each option in the full table, from which a search may drop options.
    """

    ptr: Ints
    terms: Ints
    origin: Ints

    def keep(self, kept: Mask) -> "CostColumns":
        """Only the options that the mask keeps."""
        counts = np.concatenate([[0], np.cumsum(kept)])
        return CostColumns(counts[self.ptr], self.terms[:, kept], self.origin[kept])

    def in_table(self, choice: Ints) -> Ints:
        """The same choice of one option per tensor, as indices of the full table."""
        return np.where(choice >= 0, np.append(self.origin, -1)[choice], -1)

    def fold(self, weights: Ints) -> tuple[Ints, Ints]:
        """Find the cheapest option of every tensor; the first one of several that cost the same.

        Args:
            weights: One weight per term.

        Returns:
            The cost and the option of every tensor; both are -1 if the tensor has no option.
        """
        count = len(self.ptr) - 1
        cost, choice = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
        filled = np.flatnonzero(self.ptr[:-1] < self.ptr[1:])
        if not filled.size:
            return cost, choice

        # Minima per tensor, then the first position at which each minimum is attained.
        priced = weights @ self.terms
        start = self.ptr[:-1][filled]
        cheapest = np.minimum.reduceat(priced, start)
        width = (self.ptr[1:] - self.ptr[:-1])[filled]
        positions = np.where(
            priced == np.repeat(cheapest, width), np.arange(priced.size), priced.size
        )
        cost[filled], choice[filled] = cheapest, np.minimum.reduceat(positions, start)
        return cost, choice


@dataclass(frozen=True, slots=True)
class Columns:
    """The table as arrays, which the solvers add up.

    Attributes:
        device: Terms of every stage on the device: one row per term, one column per stage.
        server: Terms of every stage on the server.
        up: Transfer options to the server.
        down: Transfer options to the device.
        round_trip: Terms of one round trip, beside those of the tensors in it.
        producer: The stage that makes each tensor; -1 for a graph input.
        consumer_ptr: Entries `consumer_ptr[t] .. consumer_ptr[t + 1]` of `consumer` read tensor t.
        consumer: Stages that read tensors.
        output: Whether each tensor is a graph output.
        pinned_device: Whether each stage must run on the device.
        pinned_server: Whether each stage must run on the server.
    """

    device: Ints
    server: Ints
    up: CostColumns
    down: CostColumns
    round_trip: Ints
    producer: Ints
    consumer_ptr: Ints
    consumer: Ints
    output: Mask
    pinned_device: Mask
    pinned_server: Mask

    def edges(self) -> tuple[Ints, Ints]:
        """All pairs of a producing and a reading stage, as two arrays; graph inputs have none."""
        producer = np.repeat(self.producer, np.diff(self.consumer_ptr))
        inner = producer >= 0
        return producer[inner], self.consumer[inner]


def _scaled(values: Ints, factor: int, divisor: int, *, round_up: bool = False) -> Ints:
    """values * factor / divisor, exactly, rounded down (or up)."""
    largest = int(values.max(initial=0)) * factor

    # Python's integers take over where 64 bits could overflow.
    exact = values if largest < 1 << 62 else values.astype(object)
    quotient = -(-exact * factor // divisor) if round_up else exact * factor // divisor
    return quotient.astype(np.int64)


def energy_nj(power_uw: int, times_ns: Ints) -> Ints:
    """Energy of a constant power: 1 uW over 1 ns is 1e-6 nJ."""
    return _scaled(times_ns, power_uw, 1_000_000)


def link_ns(sizes_bytes: Ints, rate_bit_s: int) -> Ints:
    """Time on the wire, rounded up.

    Source: TU = D / B of CollabDNN and JointDNN; protocol overhead is in the rate.
    """
    return _scaled(sizes_bytes, 8_000_000_000, rate_bit_s, round_up=True)


def upload_terms(table: CostTable, options: Sequence[TransferOption]) -> Ints:
    """Terms of tensors sent from the device to the server, one column per option."""
    size, encode, decode = _figures(options)
    on_wire = link_ns(size, table.link.up_goodput_bit_s)

    # The device encodes and sends; it idles while the server decodes.
    decode = _scaled(decode, table.server_load_percent, 100)
    return _matrix(
        len(options),
        device_codec_ns=encode,
        uplink_ns=on_wire,
        server_codec_ns=decode,
        codec_nj=energy_nj(table.active_uw, encode),
        radio_up_nj=energy_nj(table.link.up_uw, on_wire),
        idle_nj=energy_nj(table.idle_uw, decode),
        up_bytes=size,
    )


def download_terms(table: CostTable, options: Sequence[TransferOption]) -> Ints:
    """Terms of tensors sent from the server to the device, one column per option."""
    size, encode, decode = _figures(options)
    on_wire = link_ns(size, table.link.down_goodput_bit_s)

    # The device idles while the server encodes; then it receives and decodes.
    encode = _scaled(encode, table.server_load_percent, 100)
    return _matrix(
        len(options),
        server_codec_ns=encode,
        downlink_ns=on_wire,
        device_codec_ns=decode,
        idle_nj=energy_nj(table.idle_uw, encode),
        radio_down_nj=energy_nj(table.link.down_uw, on_wire),
        codec_nj=energy_nj(table.active_uw, decode),
        down_bytes=size,
    )


def round_trip_terms(table: CostTable) -> Ints:
    """Terms of one frame to the server and one back, without those of the tensors in them."""
    message, link, one = table.message, table.link, np.ones(1, dtype=np.int64)
    waited = one * (link.rtt_ns + message.exchange_ns)
    up, down = one * message.up_bytes, one * message.down_bytes
    up_ns = link_ns(up, link.up_goodput_bit_s)
    down_ns = link_ns(down, link.down_goodput_bit_s)

    return _matrix(
        1,
        message_ns=waited,
        device_codec_ns=one * message.device_ns,
        uplink_ns=up_ns,
        downlink_ns=down_ns,
        codec_nj=energy_nj(table.active_uw, one * message.device_ns),
        radio_up_nj=energy_nj(link.up_uw, up_ns),
        radio_down_nj=energy_nj(link.down_uw, down_ns),
        idle_nj=energy_nj(table.idle_uw, waited),
        tail_nj=one * link.tail_nj,
        up_bytes=up,
        down_bytes=down,
    )[:, 0]


def _figures(options: Sequence[TransferOption]) -> tuple[Ints, Ints, Ints]:
    """Bytes, encoding times and decoding times of options, as arrays."""
    count = len(options)
    size = np.fromiter((option.size_bytes for option in options), np.int64, count)
    encode = np.fromiter((option.encode_ns for option in options), np.int64, count)
    decode = np.fromiter((option.decode_ns for option in options), np.int64, count)
    return size, encode, decode


def _matrix(count: int, **rows: Ints) -> Ints:
    """One row per term and `count` columns; the terms that are not named are 0."""
    matrix = np.zeros((len(TERMS), count), dtype=np.int64)
    for term, values in rows.items():
        matrix[TERMS.index(term)] = values
    return matrix


def _columns(table: CostTable) -> Columns:
    stages, tensors = table.stages, table.tensors

    def column(name: str) -> Ints:
        return np.fromiter((getattr(stage, name) for stage in stages), np.int64, len(stages))

    device = _matrix(
        len(stages),
        device_ns=column("device_ns"),
        compute_nj=column("device_nj"),
        weight_bytes=column("weight_bytes"),
        working_bytes=column("working_bytes"),
    )

    # A load slows the server down, so the device idles longer too.
    served = _scaled(column("server_ns"), table.server_load_percent, 100)
    server = _matrix(len(stages), server_ns=served, idle_nj=energy_nj(table.idle_uw, served))

    producers = [-1 if tensor.producer is None else tensor.producer for tensor in tensors]
    consumers = [*chain.from_iterable(tensor.consumers for tensor in tensors)]
    counts = np.array([len(tensor.consumers) for tensor in tensors], dtype=np.int64)
    return Columns(
        device=device,
        server=server,
        up=_cost_columns([tensor.up for tensor in tensors], table, upload_terms),
        down=_cost_columns([tensor.down for tensor in tensors], table, download_terms),
        round_trip=round_trip_terms(table),
        producer=np.array(producers, dtype=np.int64),
        consumer_ptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        consumer=np.array(consumers, dtype=np.int64),
        output=np.array([tensor.output for tensor in tensors], dtype=np.bool_),
        pinned_device=np.array([stage.pin is Placement.DEVICE for stage in stages], dtype=np.bool_),
        pinned_server=np.array([stage.pin is Placement.SERVER for stage in stages], dtype=np.bool_),
    )


def _cost_columns(
    options: Sequence[tuple[TransferOption, ...]],
    table: CostTable,
    terms: Callable[[CostTable, Sequence[TransferOption]], Ints],
) -> CostColumns:
    """The options of all tensors in one direction, priced by `terms`."""
    ptr = np.cumsum([0, *map(len, options)], dtype=np.int64)
    matrix = terms(table, [*chain.from_iterable(options)])
    return CostColumns(ptr, matrix, np.arange(matrix.shape[1]))


def to_json(table: CostTable) -> str:
    """The table as text that `from_json` reads back to an equal table; keys in a fixed order."""
    data = asdict(table)

    # Format 1 calls the stages groups.
    fields = {"groups" if key == "stages" else key: value for key, value in data.items()}
    return json.dumps({"format": FORMAT, **fields}, indent=1)


def from_json(text: str, source: str = "cost table") -> CostTable:
    """Read a table that `to_json` wrote.

    Args:
        text: The JSON text.
        source: What to call it in messages, such as a file name.

    Raises:
        PlanError: The text is not a table of this format.
    """
    with reading(source, "not a cost table", "write it again with this version", PlanError):
        data = json.loads(text)
        if data.pop("format", None) != FORMAT:
            raise PlanError(f"{source}: this is not {FORMAT}; write it again with this version")
        data["stages"] = data.pop("groups")
        return record(CostTable, data)
