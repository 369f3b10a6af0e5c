"""Devices, links and codecs as data: every number with its unit and its source."""

from irsplit.profiles.load import codec_estimates, device, level_speeds, link, names
from irsplit.profiles.model import NO_MESSAGE, CodecEstimate, CodecSpeed, Device, Link, Message

__all__ = [
    "NO_MESSAGE",
    "CodecEstimate",
    "CodecSpeed",
    "Device",
    "Link",
    "Message",
    "codec_estimates",
    "device",
    "level_speeds",
    "link",
    "names",
]
