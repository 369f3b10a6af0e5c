"""The bundles of a server behind one bounded queue: what both doors, gRPC and HTTP, call."""

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
from irsplit.runtime.serving.server.batching import Batching, Collector
from irsplit.runtime.serving.server.logs import Rarely, event
from irsplit.runtime.serving.server.metrics import Metrics
from irsplit.runtime.serving.server.room import Lease, Room
from irsplit.runtime.serving.server.served import Limits, ServedBundle

NAME = "irsplit"
EXTENSIONS = ("binary_tensor_data", "sequence")
NO_BATCHING = Batching()

_Answer = TypeVar("_Answer")
_LOG = logging.getLogger("irsplit.serve")

_HOP_S = 500e-6
"""About what a thread costs a request: waking it, and the loop again, while both want the interpreter."""
_LITTLE_BYTES = 1 << 20
"""A request that takes more may last longer than usual, and is no business of the event loop."""
_ID_LENGTH = 100
"""Of a request's id, what goes into the log."""
_NEWS = 0.1
"""Share of the latest request in what is usual."""


@dataclass(frozen=True, slots=True)
class ServerInfo:
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
    """One bundle for an engine that calls coroutines. `name` is what the engine calls it, "" what it calls itself."""
    manifest = Manifest.load(folder)
    return Service(
        [ServedBundle(manifest, name or manifest.name, Limits(), options)], workers, queue
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """A request that may run, and the room that it has."""

    bundle: ServedBundle
    request: InferRequest = field(repr=False)
    lease: Lease = field(repr=False)


class Service:
    """`workers` requests run at a time, `queue` more may wait, the rest are told to come back.

    All methods belong to one event loop; only the engines run on threads.
    """

    def __init__(
        self,
        bundles: Iterable[ServedBundle],
        workers: int,
        queue: int,
        batching: Batching = NO_BATCHING,
    ) -> None:
        self.metrics = Metrics()
        self.bundles: dict[str, dict[str, ServedBundle]] = {}
        for bundle in bundles:
            versions = self.bundles.setdefault(bundle.name, {})
            if bundle.version in versions:
                text = (
                    f"{bundle.manifest.store.root}: '{bundle.name}' {bundle.version} is given twice"
                )
                raise BundleError(f"{text}; give it once, or under another name (NAME=BUNDLE)")
            versions[bundle.version] = bundle
        self._rarely = Rarely(_LOG)
        self._workers = workers
        self._queue = queue
        self._busy = 0
        """Requests that wait or run."""
        self._running = 0
        self.metrics.waiting.set_function(lambda: max(self._busy - self._running, 0))
        self.metrics.running.set_function(lambda: self._running)
        served = [bundle for versions in self.bundles.values() for bundle in versions.values()]
        self._room = Room(max(bundle.limits.working_bytes for bundle in served) if served else 0)
        self._longest_name = max(
            (longest_name(bundle.manifest) for bundle in served), default=TEXT_LENGTH
        )
        self.metrics.working.set_function(lambda: self._room.taken)
        self.metrics.session_bytes.set_function(
            lambda: sum(bundle.sequences.kept_bytes for bundle in served)
        )
        self._turn = asyncio.Semaphore(workers)
        self._threads = ThreadPoolExecutor(workers, "irsplit-engine")
        self._usual_s: dict[ServedBundle, float] = {}
        self._draining = False
        self._batches = Collector[tuple[ServedBundle, int], _Job, InferResponse](
            batching, self._turn.acquire, self._run_together
        )
        if batching.frames > 1:
            for bundle in served:
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
        return not self._draining

    def find(self, name: str, version: str = "") -> ServedBundle:
        """The bundle by name and version, the latest given without one. Raises ServiceError NOT_FOUND or MISMATCH."""
        versions = self.bundles.get(name)
        if versions is None:
            raise ServiceError(
                Code.NOT_FOUND, f"no bundle '{name}' here; bundles: {', '.join(self.bundles)}"
            )
        if version and version not in versions:
            text = f"'{name}' {version} is not here, but {', '.join(versions)}; give both sides the same build"
            raise ServiceError(Code.MISMATCH, text)
        return versions[version] if version else next(reversed(versions.values()))

    async def infer(self, request: InferRequest, timeout_s: float | None) -> InferResponse:
        """Answer within `timeout_s`. Raises ServiceError."""
        began = time.perf_counter()
        model, version, code = (
            "",
            "",
            "unanswered",
        )  # until it is known: a stranger's words make no labels
        asked = request.id[:_ID_LENGTH]
        try:
            check_request(request, self._longest_name)
            request = check(request)
            bundle = self._route(request)
            model, version = bundle.name, bundle.version
            response = await self._admitted(bundle, request, timeout_s)
            self._count(bundle, request, response)
            told = {"load_percent": self.load, "service_ns": _ns_since(began)}
            answer = signed(request, replace(response, parameters={**response.parameters, **told}))
            code = "ok"
            return answer
        except ServiceError as error:
            code = error.code.value[0]
            event(
                _LOG, logging.WARNING, "refused", model=model, code=code, id=asked, text=error.text
            )
            raise
        except Exception as error:
            code = Code.INTERNAL.value[0]
            event(_LOG, logging.ERROR, "fault", error=error, model=model, code=code, id=asked)
            raise ServiceError(
                Code.INTERNAL, "a fault of this server; its log says more"
            ) from error
        finally:
            elapsed = time.perf_counter() - began
            self.metrics.of(self.metrics.requests, model, version, code).inc()
            self.metrics.of(self.metrics.seconds, model, version).observe(elapsed)
            event(_LOG, logging.DEBUG, "request", model=model, code=code, id=asked, seconds=elapsed)

    def _route(self, request: InferRequest) -> ServedBundle:
        """The bundle that a request names; among several versions without a choice, the one that owns the frame."""
        versions = self.bundles.get(request.model, {})
        if request.version or len(versions) < 2:
            return self.find(request.model, request.version)
        owner = next((bundle for bundle in versions.values() if bundle.owns(request)), None)
        return owner or self.find(request.model)

    async def _admitted(
        self, bundle: ServedBundle, request: InferRequest, timeout_s: float | None
    ) -> InferResponse:
        if self._draining:
            raise ServiceError(Code.DRAINING, "the server is shutting down; ask another one")
        if self._busy >= self._workers + self._queue:
            raise ServiceError(
                Code.OVERLOADED, f"{self._busy} requests wait already; come back later"
            )
        needed = bundle.needed_bytes(request)
        boundary = bundle.boundary_of(request)
        short = needed < _LITTLE_BYTES and self._is_short(bundle)
        if boundary is None and short and not self._turn.locked():
            lease = self._room.take_now(needed)
            if lease is not None:
                return await self._at_once(bundle, request, lease)
        self._busy += 1
        lease = None
        try:
            async with asyncio.timeout(timeout_s):
                lease = await self._room.take(needed)
                if boundary is not None:
                    return await self._batches.submit(
                        (bundle, boundary), _Job(bundle, request, lease)
                    )
                await self._turn.acquire()
                return await self._on_thread(self._timed, [_Job(bundle, request, lease)])
        except TimeoutError:
            raise ServiceError(Code.DEADLINE, f"no answer within {timeout_s} s") from None
        finally:
            self._busy -= 1
            if lease is not None:
                lease.leave(sum(len(tensor.data) for tensor in request.inputs))

    def _is_short(self, bundle: ServedBundle) -> bool:
        """Whether a request is usually done sooner than a thread would take to begin it."""
        return not bundle.stateful and self._usual_s.get(bundle, math.inf) < _HOP_S

    async def _at_once(
        self, bundle: ServedBundle, request: InferRequest, lease: Lease
    ) -> InferResponse:
        """Run a request where it came in; no other one runs or waits here meanwhile, so it counts as none."""
        try:
            async with self._turn:
                return self._timed([_Job(bundle, request, lease)])
        finally:
            lease.end()

    def _timed(self, jobs: Sequence[_Job]) -> InferResponse:
        """The answer to one job; what such a request usually takes is noted."""
        bundle, request = jobs[0].bundle, jobs[0].request
        # A thread that waits for the interpreter, or for a processor, is no work: that would speak for more waiting.
        clock = time.thread_time if bundle.one_thread else time.perf_counter
        began = clock()
        try:
            return bundle.infer(request)
        finally:
            seconds = clock() - began
            usual = self._usual_s.get(bundle, seconds)
            self._usual_s[bundle] = usual + _NEWS * (seconds - usual)

    async def _run_together(
        self, key: tuple[ServedBundle, int], jobs: list[_Job]
    ) -> Sequence[InferResponse | Exception]:
        bundle, _ = key
        if not jobs:
            self._turn.release()
            return []
        self.metrics.of(self.metrics.batch, bundle.name, bundle.version).observe(len(jobs))
        try:
            return await self._on_thread(
                lambda jobs: bundle.infer_together([job.request for job in jobs]), jobs
            )
        except Exception as error:  # a fault of ours: everybody hears of it
            return [error] * len(jobs)

    async def _on_thread(
        self, call: Callable[[Sequence[_Job]], _Answer], jobs: Sequence[_Job]
    ) -> _Answer:
        """Run a call for some jobs; its turn has come."""
        running = asyncio.get_running_loop().run_in_executor(self._threads, call, jobs)
        self._running += len(jobs)
        for job in jobs:
            job.lease.begin()

        def done(_: object) -> None:
            self._running -= len(jobs)
            self._turn.release()
            for job in jobs:
                job.lease.end()
            if not running.cancelled():
                running.exception()  # looked at: an answer that nobody waits for is no fault to log

        # An engine cannot be stopped: its turn ends when it does, even if nobody waits for the answer.
        running.add_done_callback(done)
        return await asyncio.shield(running)

    def refused(self, error: ServiceError, door: str) -> None:
        """Count and log what a door refused before it was a request."""
        code = error.code.value[0]
        self.metrics.of(self.metrics.requests, "", "", code).inc()
        self._rarely.event(logging.WARNING, "refused", door=door, code=code, text=error.text)

    def _count(self, bundle: ServedBundle, request: InferRequest, response: InferResponse) -> None:
        if "segment_ns" not in response.parameters:
            return  # nothing was run
        labels, metrics = (bundle.name, bundle.version), self.metrics
        compute = sum(
            int(pair.partition(":")[2])
            for pair in str(response.parameters["segment_ns"]).split(",")
        )
        metrics.of(metrics.compute, *labels).observe(compute / 1e9)
        metrics.of(
            metrics.boundary, *labels, str(int(response.parameters["first_segment"]) - 1)
        ).inc()
        metrics.of(metrics.received, *labels).inc(
            sum(len(tensor.data) for tensor in request.inputs)
        )
        metrics.of(metrics.sent, *labels).inc(sum(len(tensor.data) for tensor in response.outputs))

    @property
    def load(self) -> int:
        """Requests that wait or run now, in percent of the workers."""
        return 100 * self._busy // self._workers

    async def expire_sessions(self, period_s: float) -> None:
        """Forget idle sessions, for ever."""
        while True:
            for versions in self.bundles.values():
                for bundle in versions.values():
                    bundle.sequences.expire()
            self.metrics.sessions.set(
                sum(len(b.sequences) for v in self.bundles.values() for b in v.values())
            )
            await asyncio.sleep(period_s)

    async def drain(self, grace_s: float) -> None:
        """Refuse what is new, wait for what runs, at most `grace_s`."""
        self._draining = True
        ends = time.monotonic() + grace_s
        while self._busy and time.monotonic() < ends:
            await asyncio.sleep(0.01)
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ns_since(began: float) -> int:
    return round(1e9 * (time.perf_counter() - began))
