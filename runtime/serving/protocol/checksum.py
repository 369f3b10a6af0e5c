"""One checksum over a whole message: a frame has its own, but outputs, names and session numbers have not.

Our client and our server put it into the message's parameters; a stock peer ignores it and is served as well.
"""

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

CHECKSUM = "checksum"
PIECE_CHECKSUM = "irsplit-checksum"
"""Header of a piece of a patch."""


def message_checksum(
    words: Sequence[str], parameters: Parameters, tensors: Sequence[WireTensor]
) -> int:
    """CRC-32C of `words`, of all parameters but the checksum itself, and of the tensors."""
    named = sorted((key, value) for key, value in parameters.items() if key != CHECKSUM)
    described = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]
    parts = [repr((list(words), named, described)).encode()]
    parts += [crc32c(tensor.data).to_bytes(4, "little") for tensor in tensors]
    return crc32c(b"".join(parts))


def check(request: InferRequest) -> None:
    """Raise ServiceError for a request that was damaged on its way; one without a checksum is not looked at."""
    given = request.parameters.get(CHECKSUM)
    if given is None:
        return
    if given != message_checksum(
        [request.model, request.version, request.id], request.parameters, request.inputs
    ):
        raise ServiceError(
            Code.INVALID, "the request's bytes changed on the way (checksum differs); send it again"
        )


def signed(request: InferRequest, response: InferResponse) -> InferResponse:
    """The answer, with a checksum for those who sent one."""
    if CHECKSUM not in request.parameters:
        return response
    checksum = message_checksum([response.id], response.parameters, response.outputs)
    return replace(response, parameters={**response.parameters, CHECKSUM: checksum})


def piece_checksum(headers: Mapping[str, str], piece: bytes) -> str:
    """CRC-32C of a piece of a patch and of what says where it belongs."""
    place = f"{headers.get('etag', '')} {headers.get('content-range', '')}"
    return f"{crc32c(place.encode() + piece):08x}"
