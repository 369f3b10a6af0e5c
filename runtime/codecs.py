"""Codecs that are not ours: zstandard for the chunks of a tensor, for the C core (as a hook) and the reference."""

import threading

import zstandard

from irsplit.runtime.boundary import Boundary, TensorSpec
from irsplit.runtime.status import Status, StatusError

Bytes = bytes | bytearray | memoryview


class _Contexts(threading.local):
    """zstandard's contexts may not be used by two threads at a time: every thread has its own."""

    def __init__(self, spec: TensorSpec) -> None:
        level = int.from_bytes(spec.parameters[:1], "little", signed=True)
        dictionary = zstandard.ZstdCompressionDict(spec.parameters[1:]) if spec.parameters[1:] else None
        self.compressor = zstandard.ZstdCompressor(
            level=level, dict_data=dictionary, write_content_size=False, write_dict_id=False
        )
        self.decompressor = zstandard.ZstdDecompressor(dict_data=dictionary)


def _decompress(decompressor: zstandard.ZstdDecompressor, payload: Bytes, size: int) -> bytes:
    """Exactly `size` bytes; never allocates more than that, whatever the payload claims."""
    try:
        # a content size in the payload would override max_output_size
        declared = zstandard.frame_content_size(payload)
        if declared not in (-1, size):
            raise StatusError(Status.CORRUPT)
        data = decompressor.decompress(payload, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError:
        raise StatusError(Status.CORRUPT) from None
    if len(data) != size:
        raise StatusError(Status.CORRUPT)
    return data


class Hooks:
    """compress and decompress as the C core calls them. Thread-safe."""

    def __init__(self, boundary: Boundary) -> None:
        self._contexts = [_Contexts(spec) if spec.codec == "zstandard" else None for spec in boundary.tensors]

    def compress(self, tensor: int, source: Bytes) -> bytes:
        contexts = self._contexts[tensor]
        if contexts is None:
            raise StatusError(Status.CODEC)
        return contexts.compressor.compress(source)

    def decompress(self, tensor: int, payload: Bytes, size: int) -> bytes:
        contexts = self._contexts[tensor]
        if contexts is None:
            raise StatusError(Status.CODEC)
        return _decompress(contexts.decompressor, payload, size)
