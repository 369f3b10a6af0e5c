"""What a profile says, in the integer units of the cost table."""

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Link:
    """A link between device and server: what the planner prices, and what an emulated link does to its packets.

    Half of `rtt_ns` passes each way, with `jitter_ns` as its standard deviation; losses and the like are shares of the
    packets. Powers are the device's radio at the full rate: alpha * rate + beta. `tail_nj` is charged once a round
    trip and is 0 unless asked for, since the published planners ignore it; `published_tail_nj` keeps the measured
    figure.
    """

    name: str
    up_bit_s: int
    down_bit_s: int
    rtt_ns: int = 0
    jitter_ns: int = 0
    loss_ppm: int = 0
    corruption_ppm: int = 0
    reordering_ppm: int = 0
    burst_bytes: int = 0
    up_uw: int = 0
    down_uw: int = 0
    tail_nj: int = 0
    published_tail_nj: int = 0

    @property
    def up_goodput_bit_s(self) -> int:
        """What is left of the rate when lost packets are sent again."""
        return max(1, self.up_bit_s * (1_000_000 - self.loss_ppm) // 1_000_000)

    @property
    def down_goodput_bit_s(self) -> int:
        return max(1, self.down_bit_s * (1_000_000 - self.loss_ppm) // 1_000_000)


@dataclass(frozen=True, slots=True)
class Message:
    """What a frame and its answer cost beside engines, codecs and the link: once a round trip.

    `device_ns` is the device's runtime around engine and encoder, `exchange_ns` the way to a server and back without a
    link: both ends' protocol, and threads that wake up. The bytes are what the protocol adds.
    """

    device_ns: int = 0
    exchange_ns: int = 0
    up_bytes: int = 0
    down_bytes: int = 0


NO_MESSAGE = Message()
"""Where nothing was measured, as in published figures."""


@dataclass(frozen=True, slots=True)
class CodecSpeed:
    """Bytes of raw tensor coded a second."""

    encode_bytes_s: int
    decode_bytes_s: int


@dataclass(frozen=True, slots=True)
class CodecEstimate:
    """What a codec does to boundary tensors on average: how many times smaller, by element type, and its speed."""

    ratios: dict[str, Fraction]
    speed: CodecSpeed


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that runs a half: a phone or a server.

    `macs_s` is the rate of each operator class (`conv`, `depthwise`, `matmul`), `bytes_s` the rate at which all other
    operators move their inputs and outputs, `overhead_ns` the fixed time of an operator. `memory_bytes` 0: unknown.
    """

    name: str
    macs_s: dict[str, int]
    bytes_s: int
    overhead_ns: int = 0
    active_uw: int = 0
    idle_uw: int = 0
    memory_bytes: int = 0
    codecs: dict[str, CodecSpeed] = field(default_factory=dict)

    def time_ns(self, operator_class: str, macs: int, moved_bytes: int) -> int:
        """Estimated time of one operator: its MACs at the rate of its class, or its bytes if it has no MACs."""
        rate = self.macs_s.get(operator_class)
        work = macs * 10**9 // rate if rate and macs else moved_bytes * 10**9 // self.bytes_s
        return self.overhead_ns + work

    def energy_nj(self, time_ns: int) -> int:
        """Battery energy of computing: 1 uW over 1 ns is 1e-6 nJ."""
        return self.active_uw * time_ns // 10**6
