"""Devices and links as data: every number with its source."""

from irsplit.profiles.load import codec_estimates, device, link, names
from irsplit.profiles.model import CodecEstimate, CodecSpeed, Device, Link

__all__ = ["CodecEstimate", "CodecSpeed", "Device", "Link", "codec_estimates", "device", "link", "names"]
