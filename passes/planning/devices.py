"""The device and the server of a plan: profiles of machines by name or file, or what was measured on them."""

from collections.abc import Mapping
from dataclasses import replace

from irsplit.passes.planning.segment_times import segment_times
from irsplit.passes.planning.stages import Macs, Stages, Summed, estimated, estimated_ns, measured
from irsplit.profiles import NO_MESSAGE, CodecSpeed, Device, Message, device
from irsplit.profiles.measured import (
    BundleProfile,
    Measured,
    MeasuredTransfer,
    ModelProfile,
    is_measured,
    load_profile,
)

DEFAULT_DEVICE = "pixel-2"
DEFAULT_SERVER = "tesla-k40"

DeviceSource = Device | ModelProfile | BundleProfile


def machine(text: str) -> DeviceSource:
    """By a profile's name or .toml, or measured: profile.json[,slowdown=4]. Raises PlanError."""
    return load_profile(text) if is_measured(text) else device(text)


def default_server(near: str) -> str:
    """The server beside a device: its own machine, without a slowdown, when the whole model was measured there."""
    whole = is_measured(near) and isinstance(load_profile(near), ModelProfile)
    return _unslowed(near) if whole else DEFAULT_SERVER


def _unslowed(text: str) -> str:
    """A measured profile without its slowdown."""
    return ",".join(word for word in text.split(",") if not word.startswith("slowdown="))


def times_on(
    parts: Stages,
    here: DeviceSource,
    there: DeviceSource,
    macs: Macs | None,
    summed: Summed | None,
) -> tuple[list[int], list[int]]:
    """Times of the stretches on the device and on the server, in nanoseconds."""
    guesses = iter(
        estimated(parts, macs, [side for side in (here, there) if isinstance(side, Device)], summed)
    )
    typical = device(DEFAULT_DEVICE)

    def times(side: DeviceSource, *, before: bool) -> list[int]:
        if isinstance(side, Device):
            return next(guesses)
        if isinstance(side, ModelProfile):
            return measured(parts, side, before=before)
        return segment_times(
            parts, side, lambda node: estimated_ns([node], macs, [typical], summed)[0]
        )

    return times(here, before=True), times(there, before=False)


def message_between(here: DeviceSource, there: DeviceSource) -> Message:
    """The device's part as it was measured there, the exchange by the side that measured one, the server's first."""
    sides = [side.message for side in (there, here) if isinstance(side, Measured)]
    exchange = next((message for message in sides if message.exchange_ns), NO_MESSAGE)
    return replace(exchange, device_ns=here.message.device_ns if isinstance(here, Measured) else 0)


def codings_between(
    here: DeviceSource, there: DeviceSource
) -> Mapping[str, tuple[MeasuredTransfer, ...]]:
    """Ways to send tensors as the device was measured to encode and the server to decode them, by tensor."""
    if not isinstance(here, ModelProfile):
        return {}
    if not isinstance(there, Measured):
        return here.tensors
    decoded = {
        (name, c.codec): c.decode_ns
        for name, found in there.tensors.items()
        for c in found
        if not c.bits
    }
    return {
        name: tuple(replace(c, decode_ns=decoded.get((name, c.codec), c.decode_ns)) for c in found)
        for name, found in here.tensors.items()
    }


def codec_speeds(side: DeviceSource, bits: int) -> Mapping[str, CodecSpeed]:
    """Of codecs on a machine, for tensors quantized to so many bits (0: not)."""
    return side.codecs if isinstance(side, Device) else side.speeds(bits)
