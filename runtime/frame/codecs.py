"""Codecs that are not in the C core, which calls them through hooks: zstandard, and those of other packages."""

import threading

import zstandard

from irsplit.runtime.frame.codec_plugins import Bytes, Coder, plugin_codecs
from irsplit.runtime.frame.descriptor import CODECS, FrameSchema, TensorSpec
from irsplit.runtime.frame.status import Status, StatusError

BUILT_IN = ("raw", "static-rans")
"""What the C core does itself."""


class _Zstandard:
    def __init__(self, parameters: bytes) -> None:
        level = int.from_bytes(parameters[:1], "little", signed=True)
        dictionary = zstandard.ZstdCompressionDict(parameters[1:]) if parameters[1:] else None
        self._compressor = zstandard.ZstdCompressor(
            level=level, dict_data=dictionary, write_content_size=False, write_dict_id=False
        )
        self._decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)

    def compress(self, data: Bytes) -> bytes:
        return self._compressor.compress(data)

    def decompress(self, payload: Bytes, size: int) -> bytes:
        """Never allocates more than `size`, whatever the payload claims."""
        try:
            # a content size in the payload would override max_output_size
            if zstandard.frame_content_size(payload) not in (-1, size):
                raise ValueError("another content size")
            return self._decompressor.decompress(
                payload, max_output_size=size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error


class _Local(threading.local):
    """The coder of a tensor, one for every thread: zstandard's contexts may not be used by two at a time."""

    def __init__(self, spec: TensorSpec) -> None:
        foreign = spec.codec not in CODECS
        self.coder: Coder = (plugin_codecs()[spec.codec].open if foreign else _Zstandard)(
            spec.parameters
        )


class Hooks:
    """compress and decompress as the C core calls them. Thread-safe."""

    def __init__(self, boundary: FrameSchema) -> None:
        self._locals = [
            None if spec.codec in BUILT_IN else _Local(spec) for spec in boundary.tensors
        ]

    def compress(self, tensor: int, source: Bytes) -> bytes:
        return self._coder(tensor).compress(source)

    def decompress(self, tensor: int, payload: Bytes, size: int) -> bytes:
        try:
            data = self._coder(tensor).decompress(payload, size)
        except ValueError:
            raise StatusError(Status.CORRUPT) from None
        if len(data) != size:
            raise StatusError(Status.CORRUPT)
        return data

    def _coder(self, tensor: int) -> Coder:
        local = self._locals[tensor]
        if local is None:
            raise StatusError(Status.CODEC)
        return local.coder
