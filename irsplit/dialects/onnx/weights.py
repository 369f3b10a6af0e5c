"""Initializers on their way out: inline in the model, or in a data file beside it."""

from pathlib import Path

from irsplit.base.errors import UnsupportedError
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.blocks import BlockWriter, share
from irsplit.dialects.onnx.tensors import SPARSE, TENSOR
from irsplit.dialects.onnx.wire import ProtoMessage, ProtoSpan, fields
from irsplit.ir import Buffer, Constant, TensorType, Value

SMALLEST_EXTERNAL = 1024
"""Engines want the contents of small tensors (shapes, axes) in the model itself."""
_PAGE = 4096
_ALIGNMENTS = ((64 * 1024, _PAGE), (0, 64))
"""(size from which on, alignment in the data file): engines map large tensors straight from the file."""
_STORAGE_KEYS = frozenset({schema.TENSOR_RAW, schema.TENSOR_EXTERNAL, schema.TENSOR_LOCATION})

SourceSpan = ProtoSpan | None
"""The payload of the TensorProto that a constant was read from."""


class Weights:
    """Where each weight of one model goes: inline, into a data file of its own, or nowhere when it is shared.

    With `data_name` large weights go into that file, each stored once, in order of appearance. When `shared`, weights
    that lie in data files of the source stay in those, which must then lie at the same place beside the new model.
    """

    def __init__(self, data_name: str | None = None, shared: bool = False) -> None:
        self.data_name = data_name
        self.shared = shared
        self.sources: dict[Buffer, None] = {}
        """Data files of the source that the new model refers to."""
        self._places: dict[tuple[Buffer, int, int], int] = {}
        self._end = 0

    def is_verbatim(self, value: Value, origin: SourceSpan) -> bool:
        """Whether the source's TensorProto goes out as it is."""
        constant = value.constant
        if origin is None or constant is None or constant.buffer is not origin.buffer:
            return False
        if self.data_name is not None and _is_large(constant):
            return False
        return origin.start <= constant.offset and constant.offset + constant.length <= origin.stop

    def tensor(self, value: Value, origin: SourceSpan) -> ProtoMessage:
        """The TensorProto of a constant; `origin` is the payload of the one that it was read from, if any."""
        constant = value.constant
        assert constant is not None
        if origin is not None and self.is_verbatim(value, origin):
            message = ProtoMessage()
            message.span(*origin)
            return message
        message, stop = header(value, origin), constant.offset + constant.length
        if (
            self.shared
            and constant.buffer.path is not None
            and (origin is None or constant.buffer is not origin.buffer)
        ):
            self.sources[constant.buffer] = None
            _refer(message, constant.buffer.name, constant.offset, constant.length)
        elif self.data_name is not None and _is_large(constant):
            _refer(message, self.data_name, self._place(constant), constant.length)
        else:
            message.payload(schema.TENSOR_RAW, constant.buffer, constant.offset, stop)
        return message

    def _place(self, constant: Constant) -> int:
        key = (constant.buffer, constant.offset, constant.length)
        if key not in self._places:
            alignment = next(
                alignment for size, alignment in _ALIGNMENTS if constant.length >= size
            )
            self._places[key] = self._end + -self._end % alignment
            self._end = self._places[key] + constant.length
        return self._places[key]

    def finish(self, folder: Path) -> list[Path]:
        """Write the data file, and bring the shared ones; the files that the model needs beside it."""
        files: list[Path] = []
        if self.data_name is not None and self._places:
            files.append(folder / self.data_name)
            with BlockWriter(files[0]) as file:
                for (buffer, offset, length), place in self._places.items():
                    file.bytes(bytes(place - file.position))
                    file.span(ProtoSpan(buffer, offset, offset + length))
        for buffer in self.sources:
            assert buffer.path is not None
            files.append(folder / buffer.name)
            share(buffer.path, files[-1])
        return files


def _is_large(constant: Constant) -> bool:
    return constant.encoding == "raw" and constant.length >= SMALLEST_EXTERNAL


def header(value: Value, origin: SourceSpan) -> ProtoMessage:
    """A TensorProto without its elements: that of its origin, or one of name and type."""
    constant, type = value.constant, value.type
    assert constant is not None
    if constant.encoding in (TENSOR, SPARSE):
        raise UnsupportedError(
            f"constant {value} has elements in ONNX's own encoding, but lost its TensorProto"
        )
    message = ProtoMessage()
    if origin is not None:
        _copy_header(message, origin)
        return message
    if (
        not isinstance(type, TensorType)
        or type.shape is None
        or type.dtype not in schema.ELEMENT_CODES
    ):
        raise UnsupportedError(f"constant {value} has no type that ONNX knows")
    for dim in type.shape:
        assert isinstance(dim, int)
        message.number(schema.TENSOR_DIMS, dim)
    message.number(schema.TENSOR_TYPE, schema.ELEMENT_CODES[type.dtype])
    message.text(schema.TENSOR_NAME, value.name)
    return message


def stub(origin: ProtoSpan) -> ProtoMessage:
    """The TensorProto with its elements said to lie in a file that does not exist; for those who want types only."""
    message = ProtoMessage()
    _copy_header(message, origin)
    _refer(message, "elsewhere", 0, 0)
    return message


def _copy_header(message: ProtoMessage, origin: ProtoSpan) -> None:
    for part in fields(origin.buffer.view, origin.start, origin.stop):
        if part.key not in _STORAGE_KEYS and part.key >> 3 not in schema.TYPED_FIELDS:
            message.span(origin.buffer, part.head, part.stop)


def _refer(message: ProtoMessage, location: str, offset: int, length: int) -> None:
    """Say that the elements of a tensor lie in another file."""
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = ProtoMessage()
        entry.text(schema.ENTRY_KEY, key)
        entry.text(schema.ENTRY_VALUE, text)
        message.message(schema.TENSOR_EXTERNAL, entry)
    message.number(schema.TENSOR_LOCATION, schema.LOCATION_EXTERNAL)
