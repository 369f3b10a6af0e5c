"""One digest over a whole message.

A frame has a checksum of its own, but outputs, names and session numbers have none. Our client
and our server therefore put a digest of the message into its parameters; other clients and
servers ignore it, and are served as well. The digest of an answer also covers the tensors that
the answer was computed from, so that it cannot be taken for the answer to another frame.

Messages of earlier releases have a CRC-32C instead. It cannot tell two frames from each other: a
frame ends with its own CRC-32C, and a CRC over data that ends with its own CRC is a constant. It
is still sent to and checked for peers of such releases.
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
    Parameter,
    Parameters,
    ServiceError,
    WireTensor,
)

try:
    from irsplit.runtime.c import _native
except ImportError:  # there was no compiler when this was installed
    crc32c = reference.crc32c
else:
    crc32c = _native.crc32c

DIGEST = "message_digest"
"""The parameter that has the digest of a message."""
CHECKSUM = "checksum"
"""The parameter of earlier releases."""
PIECE_DIGEST = "irsplit-digest"
PIECE_CHECKSUM = "irsplit-checksum"
"""Headers of a piece of a patch; the second one is that of earlier releases."""

_SIZE = 8
_TRAILER = 4


def contents_digest(tensors: Sequence[WireTensor]) -> str:
    """Digest of tensors: names, types, shapes and bytes.

    The bytes of a tensor count by two CRCs of different polynomials, and by the last four bytes.
    For data that ends with its own CRC, as a frame does, one of the CRCs is a constant; but then
    the last four bytes are that CRC of what comes before them.

    Args:
        tensors: The tensors of a message, in order.

    Returns:
        The digest in hexadecimal digits.
    """
    descriptions: list[tuple[str, str, list[int], int, int, int, bytes]] = []
    for tensor in tensors:
        descriptions.append(
            (
                tensor.name,
                tensor.datatype,
                list(tensor.shape),
                len(tensor.data),
                zlib.crc32(tensor.data),
                crc32c(tensor.data),
                bytes(tensor.data[-_TRAILER:]),
            )
        )
    return _hashed(repr(descriptions).encode())


def message_digest(words: Sequence[str], parameters: Parameters, contents: str) -> str:
    """Digest of a message.

    Args:
        words: Texts of the message, such as its id.
        parameters: Its parameters, of which digest and checksum do not count.
        contents: Digest of its tensors.

    Returns:
        The digest in hexadecimal digits.
    """
    # A digest cannot cover itself, nor the checksum that is added after it.
    named = dict(parameters)
    named.pop(DIGEST, None)
    named.pop(CHECKSUM, None)
    return _hashed(repr((words, sorted(named.items()), contents)).encode())


def sealed(request: InferRequest, parameters: Parameters, *, for_earlier: bool) -> InferRequest:
    """Return a request with more parameters, and with its digest.

    Args:
        request: The request.
        parameters: The parameters to add.
        for_earlier: Whether to add the checksum too, by which an earlier release checks it.
    """
    contents = request.contents or contents_digest(request.inputs)
    # The checksum of earlier releases covers all parameters, so it comes last.
    words = _words(request)
    complete: dict[str, Parameter] = {**request.parameters, **parameters}
    complete[DIGEST] = message_digest(words, complete, contents)
    if for_earlier:
        complete[CHECKSUM] = _message_checksum(words, complete, request.inputs)
    return replace(request, parameters=complete, contents=contents)


def check(request: InferRequest) -> InferRequest:
    """Check a request against its digest or checksum.

    Args:
        request: The request; one that has neither is not checked.

    Returns:
        The request, with the digest of its contents if it has a digest.

    Raises:
        ServiceError: The request was damaged on its way.
    """
    words = _words(request)
    if DIGEST in request.parameters:
        contents = contents_digest(request.inputs)
        if request.parameters[DIGEST] == message_digest(words, request.parameters, contents):
            return replace(request, contents=contents)
    else:
        checksum = request.parameters.get(CHECKSUM)
        if checksum is None:
            return request
        if checksum == _message_checksum(words, request.parameters, request.inputs):
            return request

    raise ServiceError(
        Code.INVALID, "the request's bytes changed on the way (checksum differs); send it again"
    )


def signed(request: InferRequest, response: InferResponse) -> InferResponse:
    """Return an answer with what its request can check: digest, checksum or neither.

    Args:
        request: The request, which had one itself or not.
        response: The answer.
    """
    if DIGEST in request.parameters:
        contents = contents_digest(response.outputs)
        digest = message_digest([response.id, response.answers], response.parameters, contents)
        return replace(response, parameters={**response.parameters, DIGEST: digest})

    if CHECKSUM in request.parameters:
        checksum = _message_checksum([response.id], response.parameters, response.outputs)
        return replace(response, parameters={**response.parameters, CHECKSUM: checksum})
    return response


def why_not_believed(request: InferRequest, response: InferResponse, *, unsigned: bool) -> str:
    """Tell why an answer is not what the server sent to a request, byte for byte.

    Args:
        request: The request as it was sent, with its contents' digest.
        response: The answer.
        unsigned: Whether to believe an answer that has neither digest nor checksum.

    Returns:
        The reason; "" if the answer can be believed.
    """
    if response.id != request.id:
        return "the answer belongs to another request"

    parameters = response.parameters
    if DIGEST in parameters:
        contents = contents_digest(response.outputs)
        # The digest of the request ties the answer to its frame.
        words = [response.id, request.contents]
        fits = parameters[DIGEST] == message_digest(words, parameters, contents)
    elif CHECKSUM in parameters:
        checksum = _message_checksum([response.id], parameters, response.outputs)
        fits = parameters[CHECKSUM] == checksum
    elif not unsigned:
        return (
            "the answer has no checksum; connect with checked=False if the server is not irsplit's"
        )
    else:
        fits = True

    if fits:
        return ""
    return "the answer's bytes changed on the way, or it answers another frame (checksum differs)"


def piece_digest(headers: Mapping[str, str], piece: bytes) -> str:
    """Digest of a piece of a patch.

    Args:
        headers: Headers of the answer, by lower-case name; they say where the piece belongs.
        piece: The bytes.
    """
    return _hashed(_place(headers) + piece)


def piece_checksum(headers: Mapping[str, str], piece: bytes) -> str:
    """Checksum of a piece of a patch for earlier releases, a CRC-32C; takes what `piece_digest`
    takes."""
    return f"{crc32c(_place(headers) + piece):08x}"


def piece_is_whole(headers: Mapping[str, str], piece: bytes) -> bool:
    """Whether a piece has the digest, or from earlier releases the checksum, of its headers."""
    if PIECE_DIGEST in headers:
        return headers[PIECE_DIGEST] == piece_digest(headers, piece)
    return headers.get(PIECE_CHECKSUM) == piece_checksum(headers, piece)


def _place(headers: Mapping[str, str]) -> bytes:
    """What says of which patch a piece is, and which part of it."""
    return f"{headers.get('etag', '')} {headers.get('content-range', '')}".encode()


def _words(request: InferRequest) -> list[str]:
    return [request.model, request.version, request.id]


def _hashed(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_SIZE).hexdigest()


def _message_checksum(
    words: Sequence[str], parameters: Parameters, tensors: Sequence[WireTensor]
) -> int:
    """The CRC-32C of earlier releases: of words, other parameters, and tensors."""
    named = sorted((key, value) for key, value in parameters.items() if key != CHECKSUM)
    descriptions = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]
    pieces = [repr((list(words), named, descriptions)).encode()]
    pieces += [crc32c(tensor.data).to_bytes(4, "little") for tensor in tensors]
    return crc32c(b"".join(pieces))
