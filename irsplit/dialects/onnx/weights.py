"""Initializers for the output: inline in the model, or in a data file beside it."""

from pathlib import Path

from irsplit.base.errors import UnsupportedError
from irsplit.dialects.onnx import schema
from irsplit.dialects.onnx.blocks import BlockWriter, share
from irsplit.dialects.onnx.tensors import SPARSE, TENSOR
from irsplit.dialects.onnx.wire import ProtoMessage, ProtoSpan, fields
from irsplit.ir import Buffer, Constant, TensorType, Value

SMALLEST_EXTERNAL = 1024
"""Smaller tensors stay in the model: engines want the elements of shapes and axes there."""

_PAGE = 4096
_ALIGNMENTS = ((64 * 1024, _PAGE), (0, 64))
"""Smallest size, and alignment in the data file: engines map large tensors from the file."""

_STORAGE_KEYS = frozenset({schema.TENSOR_RAW, schema.TENSOR_EXTERNAL, schema.TENSOR_LOCATION})

SourceSpan = ProtoSpan | None
"""The payload of the TensorProto that a constant was read from."""


class Weights:
    """Decides where each weight of one model goes, and writes those outside the model.

    Args:
        data_name: Name of a data file for large weights, each of which is stored once, in order
            of appearance. None: they go into the model.
        shared: Leave weights that lie in data files of the source in those. The files must then
            lie at the same place beside the new model.
    """

    def __init__(self, data_name: str | None = None, shared: bool = False) -> None:
        self.data_name = data_name
        self.shared = shared
        self.sources: dict[Buffer, None] = {}
        """Data files of the source that the new model refers to."""
        self._offsets: dict[tuple[Buffer, int, int], int] = {}
        """Offset in the new data file of each weight, by buffer, offset and length."""
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
        """Make the TensorProto of a constant.

        Args:
            value: The constant.
            origin: The TensorProto that it was read from, if there is one.
        """
        constant = value.constant
        assert constant is not None
        if origin is not None and self.is_verbatim(value, origin):
            message = ProtoMessage()
            message.span(*origin)
            return message

        message = header(value, origin)
        if self._is_shared(constant, origin):
            self.sources[constant.buffer] = None
            _refer(message, constant.buffer.name, constant.offset, constant.length)
        elif self.data_name is not None and _is_large(constant):
            _refer(message, self.data_name, self._allocate(constant), constant.length)
        else:
            stop = constant.offset + constant.length
            message.payload(schema.TENSOR_RAW, constant.buffer, constant.offset, stop)
        return message

    def _is_shared(self, constant: Constant, origin: SourceSpan) -> bool:
        """Whether the elements stay in a data file of the source."""
        if not self.shared or constant.buffer.path is None:
            return False
        # A constant in the buffer of its own TensorProto lies in the model file.
        return origin is None or constant.buffer is not origin.buffer

    def _allocate(self, constant: Constant) -> int:
        """The offset of a weight in the new data file."""
        key = (constant.buffer, constant.offset, constant.length)
        if key not in self._offsets:
            alignment = next(step for size, step in _ALIGNMENTS if constant.length >= size)
            self._offsets[key] = self._end + -self._end % alignment
            self._end = self._offsets[key] + constant.length
        return self._offsets[key]

    def finish(self, folder: Path) -> list[Path]:
        """Write the data file, and put shared files beside the model.

        Returns:
            The files that the model needs beside it.
        """
        files: list[Path] = []
        if self.data_name is not None and self._offsets:
            files.append(folder / self.data_name)
            with BlockWriter(files[0]) as file:
                # Zeros fill the gaps that alignment leaves.
                for (buffer, start, length), offset in self._offsets.items():
                    file.bytes(bytes(offset - file.position))
                    file.span(ProtoSpan(buffer, start, start + length))

        # The model refers to these by their names in the source.
        for buffer in self.sources:
            assert buffer.path is not None
            files.append(folder / buffer.name)
            share(buffer.path, files[-1])

        return files


def _is_large(constant: Constant) -> bool:
    return constant.encoding == "raw" and constant.length >= SMALLEST_EXTERNAL


def header(value: Value, origin: SourceSpan) -> ProtoMessage:
    """Make a TensorProto without its elements.

    Args:
        value: The constant, for name and type if there is no origin.
        origin: The TensorProto to copy everything but the elements from.

    Raises:
        UnsupportedError: Without an origin, ONNX has no words for the constant.
    """
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

    if not isinstance(type, TensorType) or type.shape is None:
        raise UnsupportedError(f"constant {value} has no type that ONNX knows")
    if type.dtype not in schema.ELEMENT_CODES:
        raise UnsupportedError(f"constant {value} has no type that ONNX knows")

    for dim in type.shape:
        assert isinstance(dim, int)
        message.number(schema.TENSOR_DIMS, dim)

    message.number(schema.TENSOR_TYPE, schema.ELEMENT_CODES[type.dtype])
    message.text(schema.TENSOR_NAME, value.name)
    return message


def stub(origin: ProtoSpan) -> ProtoMessage:
    """Make a TensorProto whose elements lie in a file that does not exist, for type inference."""
    message = ProtoMessage()
    _copy_header(message, origin)
    _refer(message, "elsewhere", 0, 0)
    return message


def _copy_header(message: ProtoMessage, origin: ProtoSpan) -> None:
    """Copy all fields of a TensorProto but its elements."""
    for field in fields(origin.buffer.view, origin.start, origin.stop):
        if field.key not in _STORAGE_KEYS and field.key >> 3 not in schema.TYPED_FIELDS:
            message.span(origin.buffer, field.head, field.stop)


def _refer(message: ProtoMessage, location: str, offset: int, length: int) -> None:
    """Add to a TensorProto that its elements lie in another file."""
    for key, text in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = ProtoMessage()
        entry.text(schema.ENTRY_KEY, key)
        entry.text(schema.ENTRY_VALUE, text)
        message.message(schema.TENSOR_EXTERNAL, entry)
    message.number(schema.TENSOR_LOCATION, schema.LOCATION_EXTERNAL)
