"""One checksum over a whole message: a frame has its own, but outputs, names and session numbers have not.

Our client and our server put it into the message's parameters; a stock peer ignores it and is served as well.
"""

from collections.abc import Sequence

from irsplit.runtime import crc32c as reference
from irsplit.runtime.serving.messages import Parameters, Tensor

try:
    from irsplit.runtime import _native
except ImportError:  # no compiler when this was installed
    crc32c = reference.crc32c
else:
    crc32c = _native.crc32c

CHECKSUM = "checksum"


def message_checksum(words: Sequence[str], parameters: Parameters, tensors: Sequence[Tensor]) -> int:
    """CRC-32C of `words`, of all parameters but the checksum itself, and of the tensors."""
    named = sorted((key, value) for key, value in parameters.items() if key != CHECKSUM)
    described = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in tensors]
    parts = [repr((list(words), named, described)).encode()]
    parts += [crc32c(tensor.data).to_bytes(4, "little") for tensor in tensors]
    return crc32c(b"".join(parts))
