"""The cost table: what every node group and every tensor of one model costs on one device, server and link.

All figures are integers: nanoseconds, nanojoules, microwatts, bytes, bits per second. Two runs over the same table
therefore give the same plan, digit for digit. The table knows nothing of the IR: a group is any set of nodes that
stays together, a tensor any value that one group makes and others read.

A cost is a sum of *terms* (`TERMS`); a *metric* is a sum of terms (`METRICS`). Both are data, so that the solvers,
the report and the tests read the same definition.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from irsplit.base.errors import PlanError
from irsplit.base.reading import reading, record
from irsplit.profiles.model import NO_MESSAGE, Link, Message

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

FORMAT = "irsplit-cost-table/1"
_MOST_LOAD = 1_000_000
"""Percent: a server ten thousand times as slow as an idle one."""


class Placement(StrEnum):
    DEVICE = "device"
    SERVER = "server"


TERMS = (
    "device_ns",  # groups on the device
    "device_codec_ns",  # encoding before an upload, decoding after a download
    "uplink_ns",
    "server_ns",  # groups on the server, times its load
    "server_codec_ns",
    "downlink_ns",
    "message_ns",  # fixed time of every round trip, beside that of the device's runtime, which is coding
    "compute_nj",  # battery: device groups
    "codec_nj",
    "radio_up_nj",
    "radio_down_nj",
    "idle_nj",  # battery while the server works or a message is on its way
    "tail_nj",  # radio promotion and tail, once a round trip
    "up_bytes",
    "down_bytes",
    "weight_bytes",  # of the device's groups
    "working_bytes",  # the largest working set of one device group: a maximum, not a sum
)

METRICS: dict[str, tuple[str, ...]] = {
    "latency": (
        "device_ns",
        "device_codec_ns",
        "uplink_ns",
        "server_ns",
        "server_codec_ns",
        "downlink_ns",
        "message_ns",
    ),
    "energy": ("compute_nj", "codec_nj", "radio_up_nj", "radio_down_nj", "idle_nj", "tail_nj"),
    "bytes": ("up_bytes", "down_bytes"),
    "memory": ("weight_bytes", "working_bytes"),
    "server": ("server_ns", "server_codec_ns"),
    "device": ("device_ns", "device_codec_ns"),
    "uplink": ("uplink_ns",),
    "downlink": ("downlink_ns",),
}
UNITS = {"latency": "ns", "energy": "nJ", "bytes": "bytes", "memory": "bytes"}
STAGES = ("device", "uplink", "server", "downlink")  # of a pipeline; its period is the slowest one


def unit(metric: str) -> str:
    return UNITS.get(metric, "ns")


def metric_terms(weights: Mapping[str, int]) -> Ints:
    """Weight of every term when the metrics are added with these weights."""
    return np.array(
        [
            sum(weight for metric, weight in weights.items() if term in METRICS[metric])
            for term in TERMS
        ],
        dtype=np.int64,
    )


@dataclass(frozen=True, slots=True)
class StageCost:
    """Nodes that stay together. `working_bytes` is live only while the group runs; weights stay as long as the half."""

    name: str
    device_ns: int
    server_ns: int
    device_nj: int = 0
    weight_bytes: int = 0
    working_bytes: int = 0
    pin: Placement | None = None


@dataclass(frozen=True, slots=True)
class TransferOption:
    """One way to put a tensor on the wire: its size there, and the time to code it at the sender and the receiver."""

    codec: str
    size_bytes: int
    encode_ns: int = 0
    decode_ns: int = 0


@dataclass(frozen=True, slots=True)
class CostTensor:
    """A value, paid at most once per direction, however many groups read it.

    `producer` None means a graph input, which starts on the device. A graph output (`output`) is wanted on the
    device. `up` and `down` hold the ways it may cross; an empty tuple means it cannot. `preview` holds ways to send
    a graph input that change it (a picture as JPEG): only the baseline `server, compressed input` may use them.
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
    """Groups in topological order, the tensors between them, and the link and powers that price a placement.

    `server_load_percent` scales the server's times: 100 is an idle server, 300 one on which everything takes three
    times as long. Raises PlanError when an index or a figure is impossible.
    """

    name: str
    groups: tuple[StageCost, ...]
    tensors: tuple[CostTensor, ...]
    link: Link
    active_uw: int = 0
    idle_uw: int = 0
    server_load_percent: int = 100
    message: Message = NO_MESSAGE

    def __post_init__(self) -> None:
        if not self.groups:
            raise PlanError(f"cost table {self.name!r} has no groups; a plan needs at least one")
        for value, what in ((self.active_uw, "active_uw"), (self.idle_uw, "idle_uw")):
            if value < 0:
                raise PlanError(
                    f"cost table {self.name!r}: {what} is {value}; it must not be negative"
                )
        if not 0 < self.server_load_percent <= _MOST_LOAD:
            raise PlanError(
                f"cost table {self.name!r}: server_load_percent must be positive, at most {_MOST_LOAD}"
            )
        if min(asdict(self.message).values()) < 0:
            raise PlanError(f"cost table {self.name!r} has a negative cost: {self.message}")
        for tensor in self.tensors:
            self._check_tensor(tensor)
        for group in self.groups:
            figures = (
                group.device_ns,
                group.server_ns,
                group.device_nj,
                group.weight_bytes,
                group.working_bytes,
            )
            if min(figures) < 0:
                raise PlanError(
                    f"cost table {self.name!r}: group {group.name!r} has a negative cost: {group}"
                )

    def _check_tensor(self, tensor: CostTensor) -> None:
        where = f"cost table {self.name!r}: tensor {tensor.name!r}"
        first = -1 if tensor.producer is None else tensor.producer
        if tensor.consumers and not first < min(tensor.consumers) <= max(tensor.consumers) < len(
            self.groups
        ):
            raise PlanError(
                f"{where} is read by groups {tensor.consumers} but made by {tensor.producer}; sort the groups"
            )
        if first >= len(self.groups):
            raise PlanError(f"{where} is made by group {first} of {len(self.groups)}")
        for coded in (*tensor.up, *tensor.down, *tensor.preview):
            if min(coded.size_bytes, coded.encode_ns, coded.decode_ns) < 0:
                raise PlanError(f"{where} has a negative cost: {coded}")

    @cached_property
    def columns(self) -> "Columns":
        try:
            return _columns(self)
        except OverflowError as error:
            what = "the model moves more than 2^63 bytes, or takes as many nanoseconds"
            raise PlanError(f"{what}; check the dimensions of its tensors") from error

    @property
    def knows_energy(self) -> bool:
        """Whether the device's power is known; without it, energy is that of the radio alone."""
        return bool(self.active_uw) or any(group.device_nj for group in self.groups)

    def with_link(self, link: Link) -> "CostTable":
        return replace(self, link=link)

    def with_load(self, server_load_percent: int) -> "CostTable":
        return replace(self, server_load_percent=server_load_percent)


@dataclass(frozen=True, slots=True)
class CostColumns:
    """The ways of all tensors in one direction: option `ptr[t] .. ptr[t + 1]` belongs to tensor t; a row per term.

    `origin` is the place of each option in the full table, which a search may have thinned out.
    """

    ptr: Ints
    terms: Ints
    origin: Ints

    def keep(self, kept: Mask) -> "CostColumns":
        """Only some of the ways."""
        counts = np.concatenate([[0], np.cumsum(kept)])
        return CostColumns(counts[self.ptr], self.terms[:, kept], self.origin[kept])

    def in_table(self, choice: Ints) -> Ints:
        """The same choice of ways, counted in the full table."""
        return np.where(choice >= 0, np.append(self.origin, -1)[choice], -1)

    def fold(self, weights: Ints) -> tuple[Ints, Ints]:
        """Cheapest way of every tensor under weights per term: (cost, option); -1 where a tensor cannot cross."""
        count = len(self.ptr) - 1
        cost, choice = np.full(count, -1, dtype=np.int64), np.full(count, -1, dtype=np.int64)
        filled = np.flatnonzero(self.ptr[:-1] < self.ptr[1:])
        if not filled.size:
            return cost, choice
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
    """The table as arrays, one row per term: what a solver adds up."""

    device: Ints
    server: Ints
    up: CostColumns
    down: CostColumns
    round_trip: Ints
    producer: Ints  # -1: graph input
    consumer_ptr: Ints
    consumer: Ints
    output: Mask
    pinned_device: Mask
    pinned_server: Mask


def _times_over(values: Ints, factor: int, divisor: int, *, up: bool = False) -> Ints:
    """values * factor / divisor, exactly, rounded down (or up)."""
    largest = int(values.max(initial=0)) * factor
    exact = values if largest < 1 << 62 else values.astype(object)
    return (-(-exact * factor // divisor) if up else exact * factor // divisor).astype(np.int64)


def energy_nj(power_uw: int, times_ns: Ints) -> Ints:
    """Energy of a constant power: 1 uW over 1 ns is 1e-6 nJ."""
    return _times_over(times_ns, power_uw, 1_000_000)


def link_ns(sizes_bytes: Ints, rate_bit_s: int) -> Ints:
    """Time on the wire, rounded up. Source: TU = D / B of CollabDNN and JointDNN; protocol overhead is in the rate."""
    return _times_over(sizes_bytes, 8_000_000_000, rate_bit_s, up=True)


def upload_terms(table: CostTable, ways: Sequence[TransferOption]) -> Ints:
    """Terms of tensors sent from the device to the server, a column each."""
    size, encode, decode = _coded(ways)
    on_wire = link_ns(size, table.link.up_goodput_bit_s)
    decode = _times_over(decode, table.server_load_percent, 100)
    return _matrix(
        len(ways),
        device_codec_ns=encode,
        uplink_ns=on_wire,
        server_codec_ns=decode,
        codec_nj=energy_nj(table.active_uw, encode),
        radio_up_nj=energy_nj(table.link.up_uw, on_wire),
        idle_nj=energy_nj(table.idle_uw, decode),
        up_bytes=size,
    )


def download_terms(table: CostTable, ways: Sequence[TransferOption]) -> Ints:
    """Terms of tensors sent from the server to the device, a column each."""
    size, encode, decode = _coded(ways)
    on_wire = link_ns(size, table.link.down_goodput_bit_s)
    encode = _times_over(encode, table.server_load_percent, 100)
    return _matrix(
        len(ways),
        server_codec_ns=encode,
        downlink_ns=on_wire,
        device_codec_ns=decode,
        idle_nj=energy_nj(table.idle_uw, encode),
        radio_down_nj=energy_nj(table.link.down_uw, on_wire),
        codec_nj=energy_nj(table.active_uw, decode),
        down_bytes=size,
    )


def round_trip_terms(table: CostTable) -> Ints:
    """Terms of one visit to the server, a frame up and a frame down, beside those of the tensors in them."""
    message, one = table.message, np.ones(1, dtype=np.int64)
    waited = one * (table.link.rtt_ns + message.exchange_ns)
    up, down = one * message.up_bytes, one * message.down_bytes
    up_ns, down_ns = (
        link_ns(up, table.link.up_goodput_bit_s),
        link_ns(down, table.link.down_goodput_bit_s),
    )
    return _matrix(
        1,
        message_ns=waited,
        device_codec_ns=one * message.device_ns,
        uplink_ns=up_ns,
        downlink_ns=down_ns,
        codec_nj=energy_nj(table.active_uw, one * message.device_ns),
        radio_up_nj=energy_nj(table.link.up_uw, up_ns),
        radio_down_nj=energy_nj(table.link.down_uw, down_ns),
        idle_nj=energy_nj(table.idle_uw, waited),
        tail_nj=one * table.link.tail_nj,
        up_bytes=up,
        down_bytes=down,
    )[:, 0]


def _coded(ways: Sequence[TransferOption]) -> tuple[Ints, Ints, Ints]:
    size, encode, decode = (
        np.fromiter((getattr(way, name) for way in ways), np.int64, len(ways))
        for name in ("size_bytes", "encode_ns", "decode_ns")
    )
    return size, encode, decode


def _matrix(count: int, **rows: Ints) -> Ints:
    """One row per term; the terms that are not given are 0."""
    matrix = np.zeros((len(TERMS), count), dtype=np.int64)
    for term, values in rows.items():
        matrix[TERMS.index(term)] = values
    return matrix


def _column(groups: Sequence[StageCost], name: str) -> Ints:
    return np.fromiter((getattr(group, name) for group in groups), np.int64, len(groups))


def _columns(table: CostTable) -> Columns:
    groups, tensors = table.groups, table.tensors
    served = _times_over(_column(groups, "server_ns"), table.server_load_percent, 100)
    ends = np.fromiter((len(tensor.consumers) for tensor in tensors), np.int64, len(tensors))
    return Columns(
        device=_matrix(
            len(groups),
            device_ns=_column(groups, "device_ns"),
            compute_nj=_column(groups, "device_nj"),
            weight_bytes=_column(groups, "weight_bytes"),
            working_bytes=_column(groups, "working_bytes"),
        ),
        server=_matrix(len(groups), server_ns=served, idle_nj=energy_nj(table.idle_uw, served)),
        up=_crossings([tensor.up for tensor in tensors], lambda ways: upload_terms(table, ways)),
        down=_crossings(
            [tensor.down for tensor in tensors], lambda ways: download_terms(table, ways)
        ),
        round_trip=round_trip_terms(table),
        producer=np.array(
            [-1 if t.producer is None else t.producer for t in tensors], dtype=np.int64
        ),
        consumer_ptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(ends)]),
        consumer=np.array([c for t in tensors for c in t.consumers], dtype=np.int64),
        output=np.array([t.output for t in tensors], dtype=np.bool_),
        pinned_device=np.array([g.pin is Placement.DEVICE for g in groups], dtype=np.bool_),
        pinned_server=np.array([g.pin is Placement.SERVER for g in groups], dtype=np.bool_),
    )


def _crossings(
    ways: Sequence[tuple[TransferOption, ...]], terms: Callable[[Sequence[TransferOption]], Ints]
) -> CostColumns:
    ptr = np.cumsum([0, *map(len, ways)], dtype=np.int64)
    matrix = terms([coded for options in ways for coded in options])
    return CostColumns(ptr, matrix, np.arange(matrix.shape[1]))


def to_json(table: CostTable) -> str:
    """The table as text that `from_json` reads back to an equal table; keys in a fixed order."""
    return json.dumps({"format": FORMAT, **asdict(table)}, indent=1)


def from_json(text: str, source: str = "cost table") -> CostTable:
    """Raises PlanError, naming `source`, when the text is not a table of this format."""
    with reading(source, "not a cost table", "write it again with this version", PlanError):
        data = json.loads(text)
        if data.pop("format", None) != FORMAT:
            raise PlanError(f"{source}: this is not {FORMAT}; write it again with this version")
        return record(CostTable, data)
