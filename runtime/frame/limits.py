"""What a frame has room for (FORMAT.md)."""

MAX_RANK = 8
MAX_TENSORS = 256
