"""The server's side of a bundle in an engine with threads and queues of its own: neither asyncio nor other packages."""

from pathlib import Path

from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.serving.protocol.bounds import check_request, longest_name
from irsplit.runtime.serving.protocol.checksum import check, signed
from irsplit.runtime.serving.protocol.messages import InferRequest, InferResponse
from irsplit.runtime.serving.server.served import Limits, ServedBundle


class HostedBundle:
    """`name` is what the engine calls it, which runs several requests, or several processes, at a time. Thread-safe."""

    def __init__(self, folder: Path, name: str, options: EngineOptions = ONE_THREAD) -> None:
        self._bundle = ServedBundle(Manifest.load(folder), name, Limits(), options)
        self._longest_name = longest_name(self._bundle.manifest)

    def infer(self, request: InferRequest) -> InferResponse:
        """The answer to a request that may have been damaged on its way. Raises ServiceError.

        Rows, decoded bytes, working memory and the lengths of texts are limited as `Limits` has them.
        """
        check_request(request, self._longest_name)
        request = check(request)
        return signed(request, self._bundle.infer(request))
