"""The device and the server of a plan, each a shipped profile, a file, or a measurement."""

from dataclasses import replace

from irsplit import profiles
from irsplit.ir import Node
from irsplit.passes.planning.prices import OptionsByTensor, Speeds
from irsplit.passes.planning.segment_times import segment_times
from irsplit.passes.planning.stages import (
    Macs,
    Stages,
    Summed,
    estimated_ns,
    estimated_times,
    measured_times,
)
from irsplit.profiles import NO_MESSAGE, Device, Message
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
"""What times come from: rates of a device, or a measurement of this model or of its bundle."""


def load_device(text: str) -> DeviceSource:
    """Read the profile of a device or a server.

    Args:
        text: The name of a shipped profile, a `.toml` file, or a measurement with changes as in
            `profile.json,slowdown=4`.

    Returns:
        The profile or the measurement.

    Raises:
        PlanError: There is no such profile, or its file is damaged.
    """
    return load_profile(text) if is_measured(text) else profiles.device(text)


def default_server(device: str) -> str:
    """The server that is assumed beside a device.

    Args:
        device: What `load_device` takes.

    Returns:
        The measured machine itself, without its slowdown, if the whole model was measured on it;
        else DEFAULT_SERVER.
    """
    if not is_measured(device) or not isinstance(load_profile(device), ModelProfile):
        return DEFAULT_SERVER
    words = device.split(",")
    return ",".join(word for word in words if not word.startswith("slowdown="))


def times_on(
    stages: Stages,
    device: DeviceSource,
    server: DeviceSource,
    macs: Macs | None,
    summed: Summed | None,
) -> tuple[list[int], list[int]]:
    """The time of every stage on the device and on the server.

    Args:
        stages: The stages to time.
        device: What is known of the device.
        server: What is known of the server.
        macs: Multiply-adds of a node, if the dialect counts them.
        summed: The dialect's cost of nodes that contain graphs.

    Returns:
        Nanoseconds per stage on the device, and on the server.

    Raises:
        PlanError: A measurement is of another model or of other cuts.
    """
    # Sides with rates are estimated together, so that the nodes are looked at once.
    rated = [source for source in (device, server) if isinstance(source, Device)]
    estimates = iter(estimated_times(stages, macs, rated, summed))
    typical = profiles.device(DEFAULT_DEVICE)

    def typical_ns(node: Node) -> int:
        return estimated_ns([node], macs, [typical], summed)[0]

    def times(source: DeviceSource, *, before: bool) -> list[int]:
        if isinstance(source, Device):
            return next(estimates)
        if isinstance(source, ModelProfile):
            return measured_times(stages, source, before=before)
        return segment_times(stages, source, typical_ns)

    return times(device, before=True), times(server, before=False)


def message_between(device: DeviceSource, server: DeviceSource) -> Message:
    """The fixed cost of a round trip, as far as it was measured.

    Returns:
        The exchange that the server measured, else that of the device, else none; with the device's
        own time if that was measured.
    """
    messages = [side.message for side in (server, device) if isinstance(side, Measured)]
    exchange = next((message for message in messages if message.exchange_ns), NO_MESSAGE)
    device_ns = device.message.device_ns if isinstance(device, Measured) else 0
    return replace(exchange, device_ns=device_ns)


def transfer_options_between(device: DeviceSource, server: DeviceSource) -> OptionsByTensor:
    """The measured ways to send each tensor: encoded on the device, decoded on the server.

    Returns:
        Transfer options by tensor name; empty if the device was not measured with this model.
    """
    if not isinstance(device, ModelProfile):
        return {}
    if not isinstance(server, Measured):
        return device.tensors

    # The device was measured to decode too; the server's times replace its own.
    decode_ns: dict[tuple[str, str], int] = {}
    for name, transfers in server.tensors.items():
        for transfer in transfers:
            if not transfer.bits:
                decode_ns[name, transfer.codec] = transfer.decode_ns

    options: dict[str, tuple[MeasuredTransfer, ...]] = {}
    for name, transfers in device.tensors.items():
        options[name] = tuple(
            replace(one, decode_ns=decode_ns.get((name, one.codec), one.decode_ns))
            for one in transfers
        )
    return options


def codec_speeds(source: DeviceSource, bits: int) -> Speeds:
    """The speed of each codec on one side.

    Args:
        source: What is known of the device or the server.
        bits: The width to which tensors are quantized; 0 for tensors as they are.

    Returns:
        Speeds by codec name, for the codecs that have one.
    """
    return source.codecs if isinstance(source, Device) else source.speeds(bits)
