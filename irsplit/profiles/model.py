"""What a profile says, in the integer units of the cost table."""

from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Link:
    """A link between device and server, which the planner prices and an emulation imitates.

    Losses, corruption and reordering are shares of the packets, in parts per million.

    Attributes:
        name: The name of its profile.
        up_bit_s: Rate to the server.
        down_bit_s: Rate to the device.
        rtt_ns: Round-trip time, of which one half passes in each direction.
        jitter_ns: The standard deviation of that half.
        loss_ppm: Packets that are lost.
        corruption_ppm: Packets that arrive damaged.
        reordering_ppm: Packets that arrive out of order.
        burst_bytes: Bytes that pass at once before the rate applies.
        up_uw: Power of the device's radio while it sends at the full rate, alpha * rate + beta.
        down_uw: The same while it receives.
        tail_nj: Energy of promotion and tail, charged once a round trip. It is 0 unless asked for,
            since the published planners ignore it.
        published_tail_nj: The measured figure for it.
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
        """What is left of the rate to the server when lost packets are sent again."""
        return max(1, self.up_bit_s * (1_000_000 - self.loss_ppm) // 1_000_000)

    @property
    def down_goodput_bit_s(self) -> int:
        """What is left of the rate to the device when lost packets are sent again."""
        return max(1, self.down_bit_s * (1_000_000 - self.loss_ppm) // 1_000_000)


@dataclass(frozen=True, slots=True)
class Message:
    """What one frame and its answer cost beside engines, codecs and the link.

    Attributes:
        device_ns: The device's runtime around engine and encoder.
        exchange_ns: The way to a server and back without a link: the protocol on both ends, and
            threads that wake up.
        up_bytes: What the protocol adds to the frame.
        down_bytes: What the protocol adds to the answer.
    """

    device_ns: int = 0
    exchange_ns: int = 0
    up_bytes: int = 0
    down_bytes: int = 0


NO_MESSAGE = Message()
"""For plans where nothing was measured, as with published figures."""


@dataclass(frozen=True, slots=True)
class CodecSpeed:
    """The speed of a codec, in bytes of raw tensor per second."""

    encode_bytes_s: int
    decode_bytes_s: int


@dataclass(frozen=True, slots=True)
class CodecEstimate:
    """What a codec does to boundary tensors on average.

    Attributes:
        ratios: How many times smaller tensors become, by element type.
        speed: How fast it is.
    """

    ratios: dict[str, Fraction]
    speed: CodecSpeed


@dataclass(frozen=True, slots=True)
class Device:
    """A machine that runs one side: a phone or a server.

    Attributes:
        name: The name of its profile.
        macs_s: Multiply-adds per second by operator class: `conv`, `depthwise`, `matmul`.
        bytes_s: Bytes per second at which all other operators move their inputs and outputs.
        overhead_ns: The fixed time of an operator.
        active_uw: Power while it computes; 0 if it is not known.
        idle_uw: Power while it waits.
        memory_bytes: Its memory; 0 if it is not known.
        codecs: Its own codec speeds by name.
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
        """Estimate the time of one operator.

        Args:
            operator_class: The class whose rate applies.
            macs: Its multiply-adds.
            moved_bytes: The bytes that it moves, which count if it has no multiply-adds or its
                class has no rate.
        """
        rate = self.macs_s.get(operator_class)
        if rate and macs:
            return self.overhead_ns + macs * 10**9 // rate
        return self.overhead_ns + moved_bytes * 10**9 // self.bytes_s

    def energy_nj(self, time_ns: int) -> int:
        """Battery energy of computing for some time: 1 uW over 1 ns is 1e-6 nJ."""
        return self.active_uw * time_ns // 10**6
