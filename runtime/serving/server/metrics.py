"""Metrics of a server, in Prometheus' text format."""

from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128)
_MODEL = ("model", "version")
"""Labels of what is counted for each bundle."""

_Metric = TypeVar("_Metric", Counter, Histogram)


class Metrics:
    """The metrics of one server in a registry of its own, so that a process may have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}

        # Requests and their answers.
        self.requests = self._counter(
            "irsplit_requests", "Requests, by outcome.", (*_MODEL, "code")
        )
        self.seconds = self._histogram(
            "irsplit_request_seconds", "Time from arrival to answer.", _SECONDS
        )
        self.compute = self._histogram(
            "irsplit_compute_seconds", "Time in the inference engines.", _SECONDS
        )
        self.batch = self._histogram("irsplit_batch_frames", "Frames in one run.", _FRAMES)
        self.boundary = self._counter(
            "irsplit_resumed", "Answers, by the boundary that was resumed.", (*_MODEL, "boundary")
        )
        self.received = self._counter(
            "irsplit_received_bytes", "Bytes of tensors received.", _MODEL
        )
        self.sent = self._counter("irsplit_sent_bytes", "Bytes of tensors sent.", _MODEL)

        # The queue and its memory.
        self.waiting = self._gauge("irsplit_waiting", "Requests in the queue.")
        self.running = self._gauge("irsplit_running", "Requests in the inference engines.")
        self.held = self._gauge("irsplit_held_bytes", "Bytes of messages that arrive or leave.")
        self.working = self._gauge(
            "irsplit_working_bytes",
            "Estimated bytes of runs, and of requests whose client has gone.",
        )
        self.evicted = self._counter(
            "irsplit_pushed_out",
            "Messages that took too long while others needed their memory.",
        )

        # Sessions and connections.
        self.sessions = self._gauge("irsplit_sessions", "Sessions of stateful bundles.")
        self.session_bytes = self._gauge(
            "irsplit_session_bytes", "Bytes of the states and latest answers of sessions."
        )
        self.connections = self._gauge("irsplit_connections", "Open connections.", ("door",))
        self.dropped = self._counter(
            "irsplit_dropped_connections",
            "Idle connections that were closed for new ones.",
            ("door",),
        )

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, _MODEL, buckets=buckets, registry=self.registry)

    def child(self, metric: _Metric, *labels: str) -> _Metric:
        """The child of a metric with these labels.

        It is kept here, because Prometheus' own look-up takes longer than counting does.
        """
        child: Any = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child

    def text(self) -> bytes:
        """All metrics as Prometheus reads them."""
        return generate_latest(self.registry)
