"""Plugins for the converters people already use, one file a host."""
