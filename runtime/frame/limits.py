"""How much a frame can hold, by its format (FORMAT.md)."""

MAX_RANK = 8
"""Most dimensions of a tensor."""
MAX_TENSORS = 256
"""Most tensors of a frame."""
