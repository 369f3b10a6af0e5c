"""A frame codec: LZMA2 from the standard library, slow and small."""

import lzma

# Without a container: size and checksum are the frame's affair.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]


class Xz:
    """`open` gives what codes chunks of a tensor; without parameters, that is this codec itself."""

    code = 128

    def open(self, parameters: bytes) -> "Xz":
        return self

    def compress(self, data: bytes) -> bytes:
        return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)

    def decompress(self, payload: bytes, size: int) -> bytes:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
        try:
            data = decoder.decompress(payload, max_length=size)
        except lzma.LZMAError as error:
            raise ValueError(str(error)) from error
        if len(data) != size:
            raise ValueError(f"{len(data)} bytes, not {size}")
        if decoder.unused_data or (not decoder.eof and decoder.decompress(b"", max_length=1)):
            raise ValueError("bytes left over")
        return data


XZ = Xz()
