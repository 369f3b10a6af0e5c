"""The server's side of a bundle inside an engine that has threads and queues of its own.

It needs neither asyncio nor the packages of `irsplit serve`.
"""

from pathlib import Path

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.serving.protocol.bounds import check_request, longest_name
from irsplit.runtime.serving.protocol.checksum import check, signed
from irsplit.runtime.serving.protocol.messages import InferRequest, InferResponse
from irsplit.runtime.serving.server.served import Limits, ServedBundle


class HostedBundle:
    """A bundle that a host engine calls, from several threads or processes if it likes.

    Rows, decoded bytes, working memory and the lengths of texts have the limits of `Limits`.

    Args:
        folder: The bundle.
        name: What the host calls it.
        options: How the inference engine runs.

    Raises:
        BundleError: The bundle is damaged or has no segment for a server.
    """

    def __init__(self, folder: Path, name: str, options: EngineOptions = ONE_THREAD) -> None:
        self._bundle = ServedBundle(Manifest.load(folder), name, Limits(), options)
        self._longest_name = longest_name(self._bundle.manifest)

    def infer(self, request: InferRequest) -> InferResponse:
        """Answer a request, whose checksum is compared first.

        Raises:
            ServiceError: The request is damaged, too large, or cannot be answered.
        """
        check_request(request, self._longest_name)
        request = check(request)
        return signed(request, self._bundle.infer(request))
