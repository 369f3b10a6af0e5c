"""Weights in files beside the model (external buffers): where they lie, and that they do not lie elsewhere.

A tensor names an external buffer by its id, that its group and its place in the group, and a group is a file in the
model's folder. What is written has such weights inside: LiteRT's interpreter does not read them elsewhere.
"""

from pathlib import Path

from irsplit.base.errors import ModelError, UnsupportedError, short
from irsplit.dialects.beside import file_beside
from irsplit.dialects.tflite.flatbuffer import Table
from irsplit.ir import Buffer, Constant

PLAIN = ("", "unpacked")
"""How the elements of a buffer may be packed: as they are in a buffer inside the model."""


class ExternalBuffers:
    """The external buffers of a model file, by id; a file is opened when a tensor first asks for it."""

    def __init__(self, path: Path, root: Table) -> None:
        self._path = path
        self._groups = root.tables("external_buffer_groups")
        self._buffers = {table.integer("id"): table for table in root.tables("external_buffers")}
        self._files: dict[str, tuple[Buffer, int]] = {}

    def constant(self, id: int, where: str) -> Constant:
        """The bytes of a buffer. Raises ModelError for what is missing, UnsupportedError for an unknown packing."""
        table = self._buffers.get(id)
        group = -1 if table is None else table.integer("group")
        if table is None or not 0 <= group < len(self._groups):
            what = (
                f"external buffer {id}"
                if table is None
                else f"group {group} of external buffer {id}"
            )
            raise ModelError(
                f"{self._path}: {where} names {what}, which the model does not have; convert it again"
            )
        packing = table.text("packing") or ""
        if packing not in PLAIN:
            raise UnsupportedError(
                f"{self._path}: {where} is packed as '{short(packing)}' in its external buffer, which irsplit does not "
                "know; convert the model with its weights inside"
            )
        buffer, available = self._open(self._groups[group].text("name") or "", where)
        offset, length = table.integer("offset"), table.integer("length")
        if offset + length > available:
            raise ModelError(
                f"{self._path}: {where} lies at bytes {offset} to {offset + length} of '{short(buffer.name)}', which "
                f"has {available} bytes; the file is truncated or belongs to another model"
            )
        return Constant(buffer, offset, length)

    def _open(self, name: str, where: str) -> tuple[Buffer, int]:
        if name in self._files:
            return self._files[name]
        path, available = file_beside(self._path, name, where)
        self._files[name] = Buffer(name, path), available
        return self._files[name]
