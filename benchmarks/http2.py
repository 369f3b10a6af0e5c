"""Frames of HTTP/2, for clients of the gRPC door that stop halfway or read nothing."""

_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_LARGEST = 16384
"""Of a frame, unless the peer says more."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


SETTINGS_SEEN = frame(_SETTINGS, _ACK, 0, b"")
_OPENED = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OPENING = _OPENED + frame(_SETTINGS, 0, 0, b"") + SETTINGS_SEEN
NO_WINDOW = _OPENED + frame(_SETTINGS, 0, 0, (4).to_bytes(2, "big") + bytes(4)) + SETTINGS_SEEN
"""As `OPENING`, and INITIAL_WINDOW_SIZE is 0: no answer may be sent."""


def head(stream: int, method: str) -> bytes:
    """The begin of a call of inference.GRPCInferenceService."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/inference.GRPCInferenceService/{method}",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    # Literals without indexing; all lengths are below 127.
    block = b"".join(
        bytes([0, len(key)]) + key.encode() + bytes([len(value)]) + value.encode()
        for key, value in fields.items()
    )
    return frame(_HEADERS, _END_HEADERS, stream, block)


def message(size: int) -> bytes:
    """What gRPC has before a message of so many bytes."""
    return bytes(1) + size.to_bytes(4, "big")


def data(stream: int, payload: bytes, *, ends: bool = False) -> bytes:
    pieces = [payload[start : start + _LARGEST] for start in range(0, len(payload), _LARGEST)]
    flags = [0] * (len(pieces) - 1) + [_END_STREAM if ends else 0]
    return b"".join(
        frame(_DATA, flag, stream, piece) for flag, piece in zip(flags, pieces, strict=True)
    )
