"""Weights in files beside the model: finds their bytes, and checks that they are really there."""

from collections.abc import Mapping
from pathlib import Path

from irsplit.base.errors import ModelError, short
from irsplit.dialects.beside import file_beside
from irsplit.ir import Buffer, Constant

_MOST_DIGITS = 20
"""Digits of a number of bytes. More would be larger than any file system."""


class DataFiles:
    """The data files of one model. Each is opened once, and only inside the model's folder."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._buffers: dict[str, tuple[Buffer, int]] = {}
        """Data files by location, with their sizes in bytes."""

    def constant(self, tensor: str, entries: Mapping[str, str], size: int | None) -> Constant:
        """Find the bytes of a tensor in a data file.

        Args:
            tensor: Name of the tensor.
            entries: The `external_data` entries of its TensorProto.
            size: Bytes that the type of the tensor needs; None if unknown.

        Raises:
            ModelError: The file cannot be opened, or does not hold these bytes.
        """
        location = entries.get("location", "")
        buffer, available = self._open(tensor, location)
        offset = self._number(tensor, entries, "offset", 0)
        rest = available - offset
        length = self._number(tensor, entries, "length", rest if size is None else size)

        if size is not None and length != size:
            raise ModelError(
                f"{self._model}: weight '{short(tensor)}' needs {size} bytes, but says it has "
                f"{length}; export the model again"
            )
        if offset + length > available or offset > available:
            raise ModelError(
                f"{self._model}: weight '{short(tensor)}' ends at byte {offset + length} of "
                f"'{short(location)}', which has {available} bytes; the data file is truncated "
                "or belongs to another model"
            )

        return Constant(buffer, offset, length)

    def _open(self, tensor: str, location: str) -> tuple[Buffer, int]:
        """The data file and its size in bytes."""
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
        """The number of bytes in an entry."""
        text = entries.get(key, str(default))
        if not text.isdecimal() or len(text) > _MOST_DIGITS:
            raise ModelError(
                f"{self._model}: {key} '{short(text)}' of weight '{short(tensor)}' is not a number "
                "of bytes; export the model again"
            )
        return int(text)
