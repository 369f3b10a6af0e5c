"""Weights in files beside the model: where they lie, and that they do not lie elsewhere."""

from collections.abc import Mapping
from pathlib import Path

from irsplit.base.errors import ModelError, short
from irsplit.dialects.beside import file_beside
from irsplit.ir import Buffer, Constant

_MOST_DIGITS = 20
"""Of a number of bytes: more than any file system has."""


class DataFiles:
    """The data files of one model: each opened once, and only inside the model's folder."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._buffers: dict[str, tuple[Buffer, int]] = {}

    def constant(self, tensor: str, entries: Mapping[str, str], size: int | None) -> Constant:
        """The bytes that the `external_data` entries of a tensor name; `size` is what its type needs, if known."""
        location = entries.get("location", "")
        buffer, available = self._open(tensor, location)
        offset = self._number(tensor, entries, "offset", 0)
        length = self._number(
            tensor, entries, "length", available - offset if size is None else size
        )
        if size is not None and length != size:
            raise ModelError(
                f"{self._model}: weight '{short(tensor)}' needs {size} bytes, but says it has {length}"
            )
        if offset + length > available or offset > available:
            raise ModelError(
                f"{self._model}: weight '{short(tensor)}' ends at byte {offset + length} of '{short(location)}', which "
                f"has {available} bytes; the data file is truncated or belongs to another model"
            )
        return Constant(buffer, offset, length)

    def _open(self, tensor: str, location: str) -> tuple[Buffer, int]:
        if location in self._buffers:
            return self._buffers[location]
        if not location:
            raise ModelError(
                f"{self._model}: weight '{short(tensor)}' is external, but names no file"
            )
        path, available = file_beside(self._model, location, f"weight '{short(tensor)}'")
        self._buffers[location] = Buffer(location, path), available
        return self._buffers[location]

    def _number(self, tensor: str, entries: Mapping[str, str], key: str, default: int) -> int:
        text = entries.get(key, str(default))
        if not text.isdecimal() or len(text) > _MOST_DIGITS:
            raise ModelError(
                f"{self._model}: {key} '{short(text)}' of weight '{short(tensor)}' is not a number of bytes; "
                "export the model again"
            )
        return int(text)
