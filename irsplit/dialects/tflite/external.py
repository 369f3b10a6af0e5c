"""Weights in files beside the model (external buffers): where they are, and whether they fit.

A tensor names an external buffer by its id. The buffer names a group and a span in it, and a group
is a file in the model's folder. Written models have these weights inside, because LiteRT's
interpreter does not read them elsewhere.
"""

from pathlib import Path
from typing import NoReturn

from irsplit.base.errors import ModelError, UnsupportedError, short
from irsplit.dialects.beside import file_beside
from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.ir import Buffer, Constant

PLAIN = ("", "unpacked")
"""The packings in which the elements are stored as in a buffer inside the model."""


class ExternalBuffers:
    """The external buffers of a model file by id; a file is opened when a tensor first needs it."""

    def __init__(self, path: Path, root: Table) -> None:
        self._path = path
        self._groups = root.tables("external_buffer_groups")
        self._buffers = {table.integer("id"): table for table in root.tables("external_buffers")}
        self._files: dict[str, tuple[Buffer, int]] = {}

    def constant(self, id: int, where: str) -> Constant:
        """The bytes of an external buffer.

        Args:
            id: The number by which a tensor names the buffer.
            where: The tensor, for error messages.

        Raises:
            ModelError: The buffer, its group or its file is missing, or the file is too short.
            UnsupportedError: The elements are packed in an unknown manner.
        """
        table = self._buffers.get(id)
        if table is None:
            self._fail_missing(where, f"external buffer {id}")
        group = table.integer("group")
        if not 0 <= group < len(self._groups):
            self._fail_missing(where, f"group {group} of external buffer {id}")

        packing = table.text("packing") or ""
        if packing not in PLAIN:
            raise UnsupportedError(
                f"{self._path}: {where} is packed as '{short(packing)}' in its external buffer, "
                "which irsplit does not know; convert the model with its weights inside"
            )

        buffer, available = self._open(self._groups[group].text("name") or "", where)
        offset, length = table.integer("offset"), table.integer("length")
        if offset + length > available:
            raise ModelError(
                f"{self._path}: {where} lies at bytes {offset} to {offset + length} of "
                f"'{short(buffer.name)}', which has {available} bytes; the file is truncated or "
                "belongs to another model"
            )
        return Constant(buffer, offset, length)

    def _fail_missing(self, where: str, missing: str) -> NoReturn:
        raise ModelError(
            f"{self._path}: {where} names {missing}, which the model does not have; "
            "convert it again"
        )

    def _open(self, name: str, where: str) -> tuple[Buffer, int]:
        """The file of a group, and its size."""
        if name not in self._files:
            path, available = file_beside(self._path, name, where)
            self._files[name] = Buffer(name, path), available
        return self._files[name]
