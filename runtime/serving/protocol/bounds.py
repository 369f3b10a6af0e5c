"""Limits on what a client chooses: names, words, parameters, and how many tensors there are.

Frames and the bytes of tensors have limits of their own; these are for what stands around them.
"""

from collections.abc import Iterable

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.serving.protocol.messages import Code, InferRequest, Parameters, ServiceError

TEXT_LENGTH = 256
"""Characters of a name or word. Names that a bundle gives its own tensors may be longer."""
MOST_TENSORS = 1024
"""Tensors that a request has, and outputs that it asks for."""
MOST_PARAMETERS = 64
"""Parameters of a request, and of each of its tensors and outputs."""


def longest_name(manifest: Manifest) -> int:
    """Return the length of the longest text that a request to a bundle may have a reason for.

    Args:
        manifest: The manifest of the bundle.

    Returns:
        Characters, at least `TEXT_LENGTH`.
    """
    names = [info.name for info in (*manifest.inputs, *manifest.outputs)]
    for segment in manifest.segments:
        names += segment.results
    return max((TEXT_LENGTH, *map(len, names)))


def check_count(what: str, count: int, most: int) -> None:
    """Refuse too many of something, before anything is done for each of them.

    Args:
        what: What is counted, in the plural.
        count: How many there are.
        most: The limit.

    Raises:
        ServiceError: There are more than `most`.
    """
    if count > most:
        raise ServiceError(Code.TOO_LARGE, f"{count} {what}, the limit is {most}")


def check_request(request: InferRequest, longest: int = TEXT_LENGTH) -> None:
    """Refuse a request with too many tensors or parameters, or with too long a text.

    A server calls this before it keeps, compares or logs anything of the request.

    Args:
        request: The request.
        longest: Characters that the names of tensors may have.

    Raises:
        ServiceError: A limit is exceeded.
    """
    check_count("tensors", len(request.inputs), MOST_TENSORS)
    check_count("outputs", len(request.outputs), MOST_TENSORS)
    _check_texts("the model's name", [request.model])
    _check_texts("the version", [request.version])
    _check_texts("the request's id", [request.id])
    _check_parameters(request.parameters)
    _check_texts("a tensor's name", (tensor.name for tensor in request.inputs), longest)
    _check_texts("a datatype", (tensor.datatype for tensor in request.inputs))
    _check_texts("an output's name", request.outputs, longest)


def _check_parameters(parameters: Parameters) -> None:
    check_count("parameters", len(parameters), MOST_PARAMETERS)
    _check_texts("a parameter's name", parameters)
    for name, value in parameters.items():
        if isinstance(value, str):
            _check_texts(f"parameter '{name}'", [value])


def _check_texts(what: str, texts: Iterable[str], longest: int = TEXT_LENGTH) -> None:
    for text in texts:
        if len(text) > longest:
            raise ServiceError(
                Code.INVALID, f"{what} has {len(text)} characters, the limit is {longest}"
            )
