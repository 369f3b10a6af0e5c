"""irsplit: the split compiler for neural networks."""

from irsplit.errors import VERSION as __version__

__all__ = ["__version__"]
