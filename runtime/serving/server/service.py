"""The bundles of a server behind one bounded queue. Both frontends, gRPC and HTTP, call it."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from irsplit.base.errors import VERSION, BundleError
from irsplit.runtime.bundle.manifest import Manifest
from irsplit.runtime.run.engines import ONE_THREAD, EngineOptions
from irsplit.runtime.serving.protocol.bounds import TEXT_LENGTH, check_request, longest_name
from irsplit.runtime.serving.protocol.checksum import check, signed
from irsplit.runtime.serving.protocol.messages import (
    Code,
    InferRequest,
    InferResponse,
    ServiceError,
)
from irsplit.runtime.serving.server.batching import Batcher, Batching
from irsplit.runtime.serving.server.logs import RateLimitedLog, event
from irsplit.runtime.serving.server.metrics import Metrics
from irsplit.runtime.serving.server.served import Limits, ServedBundle
from irsplit.runtime.serving.server.working_memory import Lease, RunMemory

NAME = "irsplit"
EXTENSIONS = ("binary_tensor_data", "sequence")
NO_BATCHING = Batching()

_Answer = TypeVar("_Answer")
_LOG = logging.getLogger("irsplit.serve")

_HOP_S = 500e-6
"""About what a thread costs a request.

The thread is woken, then the event loop again, while both want the interpreter.
"""
_LITTLE_BYTES = 1 << 20
"""A request that needs more may take longer than usual, and does not run on the event loop."""
_ID_LENGTH = 100
"""Letters of a request's id that are logged."""
_SMOOTHING = 0.1
"""Weight of the latest request in the usual time of a bundle."""
_DRAIN_PERIOD_S = 0.01


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server's metadata."""

    name: str = NAME
    version: str = VERSION
    extensions: tuple[str, ...] = EXTENSIONS


def service_of(
    folder: Path,
    name: str = "",
    workers: int = 1,
    queue: int = 64,
    options: EngineOptions = ONE_THREAD,
) -> "Service":
    """A service with one bundle, for a host that calls coroutines.

    Args:
        folder: The bundle.
        name: What the host calls it; "" is the bundle's own name.
        workers: Requests that run at a time.
        queue: Requests that may wait.
        options: How the inference engine runs.

    Raises:
        BundleError: The bundle is damaged or has no segment for a server.
    """
    manifest = Manifest.load(folder)
    bundle = ServedBundle(manifest, name or manifest.name, Limits(), options)
    return Service([bundle], workers, queue)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request that may run, and the working memory that it has."""

    bundle: ServedBundle
    request: InferRequest = field(repr=False)
    lease: Lease = field(repr=False)


class Service:
    """Answers requests to its bundles.

    All methods belong to one event loop; only the inference engines run on threads.

    Args:
        bundles: The bundles; of several with one name, the last is the latest version.
        workers: Requests that run at a time.
        queue: Requests that may wait for a worker. Any more are told to come back later.
        batching: How frames are gathered into one run.

    Raises:
        BundleError: One build is given twice under the same name.
    """

    def __init__(
        self,
        bundles: Iterable[ServedBundle],
        workers: int,
        queue: int,
        batching: Batching = NO_BATCHING,
    ) -> None:
        self.metrics = Metrics()
        self.bundles = _by_name_and_version(bundles)
        self._served = [
            bundle for versions in self.bundles.values() for bundle in versions.values()
        ]
        self._log = RateLimitedLog(_LOG)
        self._workers = workers
        self._queue = queue
        self._busy = 0
        """Requests that wait or run."""
        self._running = 0
        self._draining = False

        limits = [bundle.limits.working_bytes for bundle in self._served]
        self._memory = RunMemory(max(limits, default=0))
        names = [longest_name(bundle.manifest) for bundle in self._served]
        self._longest_name = max(names, default=TEXT_LENGTH)
        self._worker = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, "irsplit-engine")
        self._usual_s: dict[ServedBundle, float] = {}
        """Seconds that a request to a bundle usually takes."""
        self._batcher = Batcher[tuple[ServedBundle, int], _Job, InferResponse](
            batching, self._worker.acquire, self._run_together
        )

        self._watch_gauges()
        if batching.frames > 1:
            self._allow_batches()

    def _watch_gauges(self) -> None:
        """Let the gauges read their values when they are asked for."""
        self.metrics.waiting.set_function(lambda: max(self._busy - self._running, 0))
        self.metrics.running.set_function(lambda: self._running)
        self.metrics.working.set_function(lambda: self._memory.taken)
        self.metrics.session_bytes.set_function(
            lambda: sum(bundle.sequences.kept_bytes for bundle in self._served)
        )

    def _allow_batches(self) -> None:
        """Find out which frames may run together, and log why others may not."""
        for bundle in self._served:
            for boundary, reason in bundle.allow_batches().items():
                event(
                    _LOG,
                    logging.WARNING,
                    "not batched",
                    model=bundle.name,
                    boundary=boundary,
                    reason=reason,
                )

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return not self._draining

    @property
    def load(self) -> int:
        """Requests that wait or run now, in percent of the workers."""
        return 100 * self._busy // self._workers

    def find(self, name: str, version: str = "") -> ServedBundle:
        """A bundle by name and version; without a version the latest one.

        Raises:
            ServiceError: NOT_FOUND for an unknown name, MISMATCH for an unknown version.
        """
        versions = self.bundles.get(name)
        if versions is None:
            raise ServiceError(
                Code.NOT_FOUND, f"no bundle '{name}' here; bundles: {', '.join(self.bundles)}"
            )
        if not version:
            return next(reversed(versions.values()))
        if version not in versions:
            text = (
                f"'{name}' {version} is not here, but {', '.join(versions)}; "
                "give both sides the same build"
            )
            raise ServiceError(Code.MISMATCH, text)

        return versions[version]

    async def infer(self, request: InferRequest, timeout_s: float | None) -> InferResponse:
        """Answer a request, whose checksum is compared first.

        Args:
            request: What a client asks.
            timeout_s: Time for it to wait and run; None for any.

        Returns:
            The answer with its checksum, the server's load and the time that it took here.

        Raises:
            ServiceError: The request is refused, fails, or takes too long.
        """
        began = time.perf_counter()
        id = request.id[:_ID_LENGTH]
        # Until the bundle is known, the labels stay empty: a stranger's words make no metrics.
        model, version, code = "", "", "unanswered"
        try:
            check_request(request, self._longest_name)
            request = check(request)
            bundle = self._route(request)
            model, version = bundle.name, bundle.version
            response = await self._admit(bundle, request, timeout_s)
            self._count(bundle, request, response)
            timing = {"load_percent": self.load, "service_ns": _ns_since(began)}
            response = replace(response, parameters={**response.parameters, **timing})
            answer = signed(request, response)
            code = "ok"
            return answer
        except ServiceError as error:
            code = error.code.value[0]
            event(_LOG, logging.WARNING, "refused", model=model, code=code, id=id, text=error.text)
            raise
        except Exception as error:
            code = Code.INTERNAL.value[0]
            event(_LOG, logging.ERROR, "fault", error=error, model=model, code=code, id=id)
            text = "a fault of this server; its log says more"
            raise ServiceError(Code.INTERNAL, text) from error
        finally:
            elapsed = time.perf_counter() - began
            self.metrics.child(self.metrics.requests, model, version, code).inc()
            self.metrics.child(self.metrics.seconds, model, version).observe(elapsed)
            event(_LOG, logging.DEBUG, "request", model=model, code=code, id=id, seconds=elapsed)

    def _route(self, request: InferRequest) -> ServedBundle:
        """The bundle for a request: by its version, or else by the build that made its frame."""
        versions = self.bundles.get(request.model, {})
        if request.version or len(versions) < 2:
            return self.find(request.model, request.version)

        # A device that was not updated yet still sends frames of an older build.
        owner = next((bundle for bundle in versions.values() if bundle.owns(request)), None)
        return owner or self.find(request.model)

    async def _admit(
        self, bundle: ServedBundle, request: InferRequest, timeout_s: float | None
    ) -> InferResponse:
        """Let a request wait for memory and a worker, and run it."""
        if self._draining:
            raise ServiceError(Code.DRAINING, "the server is shutting down; ask another one")
        if self._busy >= self._workers + self._queue:
            text = f"{self._busy} requests wait already; come back later"
            raise ServiceError(Code.OVERLOADED, text)

        # This refuses what is beyond the limits, before any of it is decoded.
        needed = bundle.needed_bytes(request)
        boundary = bundle.boundary_of(request)
        if boundary is None and self._may_run_on_loop(bundle, needed):
            lease = self._memory.try_acquire(needed)
            if lease is not None:
                return await self._run_on_loop(bundle, request, lease)

        self._busy += 1
        lease = None
        try:
            async with asyncio.timeout(timeout_s):
                lease = await self._memory.acquire(needed)
                job = _Job(bundle, request, lease)
                if boundary is not None:
                    return await self._batcher.submit((bundle, boundary), job)

                await self._worker.acquire()
                return await self._run_on_thread(self._timed, [job])
        except TimeoutError:
            raise ServiceError(Code.DEADLINE, f"no answer within {timeout_s} s") from None
        finally:
            self._busy -= 1
            if lease is not None:
                lease.abandon(sum(len(tensor.data) for tensor in request.inputs))

    def _may_run_on_loop(self, bundle: ServedBundle, needed: int) -> bool:
        """Whether a request is usually done sooner than a thread would take to begin it."""
        if bundle.stateful or needed >= _LITTLE_BYTES or self._worker.locked():
            return False

        return self._usual_s.get(bundle, math.inf) < _HOP_S

    async def _run_on_loop(
        self, bundle: ServedBundle, request: InferRequest, lease: Lease
    ) -> InferResponse:
        """Run a request on the event loop.

        Nothing else happens on the loop meanwhile, so the request is not counted as a busy one.
        """
        try:
            async with self._worker:
                return self._timed([_Job(bundle, request, lease)])
        finally:
            lease.release()

    def _timed(self, jobs: Sequence[_Job]) -> InferResponse:
        """Answer one job, and update the time that such a request usually takes."""
        bundle, request = jobs[0].bundle, jobs[0].request
        # A thread that waits for the interpreter or a processor does no work. To count that would
        # speak for threads, and so for more waiting.
        clock = time.thread_time if bundle.one_thread else time.perf_counter
        began = clock()
        try:
            return bundle.infer(request)
        finally:
            seconds = clock() - began
            usual = self._usual_s.get(bundle, seconds)
            self._usual_s[bundle] = usual + _SMOOTHING * (seconds - usual)

    async def _run_together(
        self, key: tuple[ServedBundle, int], jobs: list[_Job]
    ) -> Sequence[InferResponse | Exception]:
        """Answer a batch; its worker has been acquired."""
        bundle, _ = key
        if not jobs:
            self._worker.release()
            return []

        self.metrics.child(self.metrics.batch, bundle.name, bundle.version).observe(len(jobs))
        try:
            return await self._run_on_thread(
                lambda jobs: bundle.infer_together([job.request for job in jobs]), jobs
            )
        except Exception as error:  # a defect of ours: every request gets it
            return [error] * len(jobs)

    async def _run_on_thread(
        self, call: Callable[[Sequence[_Job]], _Answer], jobs: Sequence[_Job]
    ) -> _Answer:
        """Run a call for some jobs on a thread; its worker has been acquired."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, call, jobs)
        self._running += len(jobs)
        for job in jobs:
            job.lease.start()

        def done(_: object) -> None:
            self._running -= len(jobs)
            self._worker.release()
            for job in jobs:
                job.lease.release()
            # Asking for the exception keeps asyncio from logging one that nobody waits for.
            if not running.cancelled():
                running.exception()

        # An engine cannot be stopped: the worker is free when it ends, even if nobody waits for
        # the answer any more.
        running.add_done_callback(done)
        return await asyncio.shield(running)

    def refused(self, error: ServiceError, frontend: str) -> None:
        """Count and log what a frontend refused before it was a request.

        Args:
            error: The refusal.
            frontend: "grpc" or "http".
        """
        code = error.code.value[0]
        self.metrics.child(self.metrics.requests, "", "", code).inc()
        self._log.event(logging.WARNING, "refused", door=frontend, code=code, text=error.text)

    def _count(self, bundle: ServedBundle, request: InferRequest, response: InferResponse) -> None:
        """Count an answer in the metrics of its bundle."""
        if "segment_ns" not in response.parameters:
            return  # nothing was run

        labels, metrics = (bundle.name, bundle.version), self.metrics
        timings = str(response.parameters["segment_ns"]).split(",")
        compute_ns = sum(int(timing.partition(":")[2]) for timing in timings)
        boundary = int(response.parameters["first_segment"]) - 1
        received = sum(len(tensor.data) for tensor in request.inputs)
        sent = sum(len(tensor.data) for tensor in response.outputs)
        metrics.child(metrics.compute, *labels).observe(compute_ns / 1e9)
        metrics.child(metrics.boundary, *labels, str(boundary)).inc()
        metrics.child(metrics.received, *labels).inc(received)
        metrics.child(metrics.sent, *labels).inc(sent)

    async def expire_sessions(self, period_s: float) -> None:
        """Forget idle sessions every `period_s`; runs for ever."""
        while True:
            for bundle in self._served:
                bundle.sequences.expire()
            self.metrics.sessions.set(sum(len(bundle.sequences) for bundle in self._served))
            await asyncio.sleep(period_s)

    async def drain(self, grace_s: float) -> None:
        """Refuse new requests, and wait at most `grace_s` for those that wait or run."""
        self._draining = True
        deadline = time.monotonic() + grace_s
        while self._busy and time.monotonic() < deadline:
            await asyncio.sleep(_DRAIN_PERIOD_S)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _by_name_and_version(bundles: Iterable[ServedBundle]) -> dict[str, dict[str, ServedBundle]]:
    """Bundles by name, and by version in the order in which they are given."""
    by_name: dict[str, dict[str, ServedBundle]] = {}
    for bundle in bundles:
        versions = by_name.setdefault(bundle.name, {})
        if bundle.version in versions:
            root = bundle.manifest.store.root
            raise BundleError(
                f"{root}: '{bundle.name}' {bundle.version} is given twice; "
                "give it once, or under another name (NAME=BUNDLE)"
            )

        versions[bundle.version] = bundle

    return by_name


def _ns_since(began: float) -> int:
    return round(1e9 * (time.perf_counter() - began))
