"""One digest over a whole message: a frame has a checksum of its own, but outputs, names and session numbers have not.

Our client and our server put it into the message's parameters; a stock peer ignores it and is served as well. The
digest of an answer also covers the tensors that the answer was computed from, so that it cannot be taken for the answer
to another frame.

Messages of earlier releases carry one CRC-32C instead. It cannot tell two frames from each other: a frame ends with its
own CRC-32C, and a CRC over data that ends with its own CRC is a constant. It is still sent and checked for such peers.
"""

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from irsplit.runtime.frame.reference import crc32c as reference
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    Parameters,
    ServiceError,
    WireTensor,
)

try:
    from irsplit.runtime.c import _native
except ImportError:  # no compiler when this was installed
    crc32c = reference.crc32c
else:
    crc32c = _native.crc32c

DIGEST = "message_digest"
CHECKSUM = "checksum"
"""The parameter of earlier releases."""
PIECE_DIGEST = "irsplit-digest"
PIECE_CHECKSUM = "irsplit-checksum"
"""Headers of a piece of a patch; the second one is that of earlier releases."""

_SIZE = 8
_TRAILER = 4


def contents_digest(tensors: Sequence[WireTensor]) -> str:
    """Digest of tensors: names, types, shapes and bytes.

    The bytes of a tensor count by two CRCs of different polynomials and their last four. Of data that ends with its own
    CRC, as a frame does, one of the CRCs is a constant, but then the last four bytes are that CRC of what comes before.
    """
    described = [
        (
            tensor.name,
            tensor.datatype,
            list(tensor.shape),
            len(tensor.data),
            zlib.crc32(tensor.data),
            crc32c(tensor.data),
            bytes(tensor.data[-_TRAILER:]),
        )
        for tensor in tensors
    ]
    return _hashed(repr(described).encode())


def message_digest(words: Sequence[str], parameters: Parameters, contents: str) -> str:
    """Digest of `words`, of all parameters but the digest itself, and of tensors by the digest of their contents."""
    named = dict(parameters)
    named.pop(DIGEST, None)
    named.pop(CHECKSUM, None)
    return _hashed(repr((words, sorted(named.items()), contents)).encode())


def sealed(request: InferRequest, parameters: Parameters, *, for_earlier: bool) -> InferRequest:
    """The request with more parameters and its digest; with the checksum too, by which an earlier release checks it."""
    contents = request.contents or contents_digest(request.inputs)
    words = [request.model, request.version, request.id]
    all_of_them = {**request.parameters, **parameters}
    all_of_them[DIGEST] = message_digest(words, all_of_them, contents)
    if for_earlier:
        all_of_them[CHECKSUM] = _message_checksum(words, all_of_them, request.inputs)
    return replace(request, parameters=all_of_them, contents=contents)


def check(request: InferRequest) -> InferRequest:
    """The request, with the digest of its contents where it brought one of its own.

    Raises ServiceError for a request that was damaged on its way; one without digest or checksum is not looked at.
    """
    words = [request.model, request.version, request.id]
    if DIGEST in request.parameters:
        contents = contents_digest(request.inputs)
        if request.parameters[DIGEST] == message_digest(words, request.parameters, contents):
            return replace(request, contents=contents)
    elif request.parameters.get(CHECKSUM) in (
        None,
        _message_checksum(words, request.parameters, request.inputs),
    ):
        return request
    raise ServiceError(
        Code.INVALID, "the request's bytes changed on the way (checksum differs); send it again"
    )


def signed(request: InferRequest, response: InferResponse) -> InferResponse:
    """The answer, with a digest for those who sent one."""
    if DIGEST in request.parameters:
        contents = contents_digest(response.outputs)
        digest = message_digest([response.id, response.answers], response.parameters, contents)
        return replace(response, parameters={**response.parameters, DIGEST: digest})
    if CHECKSUM in request.parameters:
        checksum = _message_checksum([response.id], response.parameters, response.outputs)
        return replace(response, parameters={**response.parameters, CHECKSUM: checksum})
    return response


def why_not_believed(request: InferRequest, response: InferResponse, *, unsigned: bool) -> str:
    """Why an answer is not the server's to this request, byte for byte; "" when it is.

    `unsigned`: whether an answer that is not signed at all is believed.
    """
    if response.id != request.id:
        return "the answer is one to another request"
    parameters = response.parameters
    if DIGEST in parameters:
        contents = contents_digest(response.outputs)
        expected: str | int = message_digest([response.id, request.contents], parameters, contents)
        fits = parameters[DIGEST] == expected
    elif CHECKSUM in parameters:
        fits = parameters[CHECKSUM] == _message_checksum(
            [response.id], parameters, response.outputs
        )
    elif not unsigned:
        return "the answer has no checksum; for a server that is not irsplit's, checked=False"
    else:
        fits = True
    return (
        ""
        if fits
        else "the answer's bytes changed on the way, or it answers another frame (checksum differs)"
    )


def piece_digest(headers: Mapping[str, str], piece: bytes) -> str:
    """Digest of a piece of a patch and of what says where it belongs."""
    return _hashed(_place(headers) + piece)


def piece_checksum(headers: Mapping[str, str], piece: bytes) -> str:
    """As `piece_digest`, for earlier releases: a CRC-32C."""
    return f"{crc32c(_place(headers) + piece):08x}"


def piece_is_whole(headers: Mapping[str, str], piece: bytes) -> bool:
    """Whether a piece is what its headers say, by what the server's release sends."""
    if PIECE_DIGEST in headers:
        return headers[PIECE_DIGEST] == piece_digest(headers, piece)
    return headers.get(PIECE_CHECKSUM) == piece_checksum(headers, piece)


def _place(headers: Mapping[str, str]) -> bytes:
    return f"{headers.get('etag', '')} {headers.get('content-range', '')}".encode()


def _hashed(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_SIZE).hexdigest()


def _message_checksum(
    words: Sequence[str], parameters: Parameters, tensors: Sequence[WireTensor]
) -> int:
    """As earlier releases have it: CRC-32C of `words`, of all parameters but this one, and of the tensors."""
    named = sorted((key, value) for key, value in parameters.items() if key != CHECKSUM)
    described = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]
    parts = [repr((list(words), named, described)).encode()]
    parts += [crc32c(tensor.data).to_bytes(4, "little") for tensor in tensors]
    return crc32c(b"".join(parts))
