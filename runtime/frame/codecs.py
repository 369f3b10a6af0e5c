"""Codecs that the C core calls through hooks: zstandard, and those of other packages."""

import threading

import zstandard

from irsplit.runtime.frame.codec_plugins import Bytes, Coder, plugin_codecs
from irsplit.runtime.frame.descriptor import CODECS, FrameSchema, TensorSpec
from irsplit.runtime.frame.status import Status, StatusError

BUILT_IN = ("raw", "static-rans")
"""The codecs that the C core has itself."""


class _Zstandard:
    """zstandard at one level, with the dictionary of a tensor where it has one."""

    def __init__(self, parameters: bytes) -> None:
        level = int.from_bytes(parameters[:1], "little", signed=True)
        dictionary = zstandard.ZstdCompressionDict(parameters[1:]) if parameters[1:] else None

        # Both sides know the sizes and the dictionary, so that payloads need not name them.
        self._compressor = zstandard.ZstdCompressor(
            level=level, dict_data=dictionary, write_content_size=False, write_dict_id=False
        )
        self._decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)

    def compress(self, data: Bytes) -> bytes:
        return self._compressor.compress(data)

    def decompress(self, payload: Bytes, size: int) -> bytes:
        """As `Coder.decompress`. Never allocates more than `size`, whatever the payload claims."""
        try:
            # A content size in the payload would override max_output_size.
            if zstandard.frame_content_size(payload) not in (-1, size):
                raise ValueError("another content size")
            return self._decompressor.decompress(
                payload, max_output_size=size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error


class _CoderOfThread(threading.local):
    """The coder of a tensor, one for every thread: two may not use a context of zstandard."""

    def __init__(self, spec: TensorSpec) -> None:
        self.coder: Coder = _open_coder(spec)


def _open_coder(spec: TensorSpec) -> Coder:
    if spec.codec in CODECS:
        return _Zstandard(spec.parameters)
    return plugin_codecs()[spec.codec].open(spec.parameters)


class Hooks:
    """The functions that the C core calls to compress and decompress. Thread-safe."""

    def __init__(self, boundary: FrameSchema) -> None:
        self._coders = [
            None if spec.codec in BUILT_IN else _CoderOfThread(spec) for spec in boundary.tensors
        ]

    def compress(self, tensor: int, source: Bytes) -> bytes:
        """Compress a chunk of the boundary's tensor with this index."""
        return self._coder(tensor).compress(source)

    def decompress(self, tensor: int, payload: Bytes, size: int) -> bytes:
        """Restore the `size` bytes of a chunk. Raises StatusError CORRUPT where that fails."""
        try:
            data = self._coder(tensor).decompress(payload, size)
        except ValueError:
            raise StatusError(Status.CORRUPT) from None

        # The codec of another package may give what it likes.
        if len(data) != size:
            raise StatusError(Status.CORRUPT)
        return data

    def _coder(self, tensor: int) -> Coder:
        """This thread's coder of a tensor."""
        coder_of_thread = self._coders[tensor]
        if coder_of_thread is None:
            raise StatusError(Status.CODEC)
        return coder_of_thread.coder
