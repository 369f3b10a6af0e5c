"""Devices and links as data: every number with its source."""

from irsplit.profiles.load import device, link, names
from irsplit.profiles.model import CodecSpeed, Device, Link

__all__ = ["CodecSpeed", "Device", "Link", "device", "link", "names"]
