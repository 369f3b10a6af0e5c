"""Devices and links as data: every number with its source."""
