"""What a server counts, in Prometheus' text format."""

from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_FRAMES = (1, 2, 4, 8, 16, 32, 64, 128)


_Metric = TypeVar("_Metric", Counter, Histogram)


class Metrics:
    """One registry a server, so that several servers fit into one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[Any, tuple[str, ...]], Any] = {}
        labels = ("model", "version")
        self.requests = Counter(
            "irsplit_requests", "Requests by outcome.", (*labels, "code"), registry=self.registry
        )
        self.seconds = Histogram(
            "irsplit_request_seconds",
            "From arrival to answer.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.compute = Histogram(
            "irsplit_compute_seconds",
            "In the engines.",
            labels,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "irsplit_batch_frames",
            "Frames of one run.",
            labels,
            buckets=_FRAMES,
            registry=self.registry,
        )
        self.boundary = Counter(
            "irsplit_resumed",
            "Answers by boundary resumed from.",
            (*labels, "boundary"),
            registry=self.registry,
        )
        self.received = Counter(
            "irsplit_received_bytes", "Bytes of tensors in.", labels, registry=self.registry
        )
        self.sent = Counter(
            "irsplit_sent_bytes", "Bytes of tensors out.", labels, registry=self.registry
        )
        self.waiting = Gauge("irsplit_waiting", "Requests in the queue.", registry=self.registry)
        self.running = Gauge("irsplit_running", "Requests in the engines.", registry=self.registry)
        self.held = Gauge(
            "irsplit_held_bytes", "Of messages on their way in or out.", registry=self.registry
        )
        self.working = Gauge(
            "irsplit_working_bytes",
            "That runs take, and requests that nobody waits for.",
            registry=self.registry,
        )
        self.session_bytes = Gauge(
            "irsplit_session_bytes",
            "Of states and latest answers of sessions.",
            registry=self.registry,
        )
        self.connections = Gauge(
            "irsplit_connections", "Open ones.", ("door",), registry=self.registry
        )
        self.dropped = Counter(
            "irsplit_dropped_connections",
            "Closed for others, the idlest first.",
            ("door",),
            registry=self.registry,
        )
        self.pushed_out = Counter(
            "irsplit_pushed_out",
            "Messages that took too long while others needed their room.",
            registry=self.registry,
        )
        self.sessions = Gauge(
            "irsplit_sessions", "Sessions of stateful bundles.", registry=self.registry
        )

    def of(self, metric: _Metric, *labels: str) -> _Metric:
        """The child of a metric with these labels. Their own look-up takes longer than counting does."""
        child: Any = self._children.get((metric, labels))
        if child is None:
            child = self._children[metric, labels] = metric.labels(*labels)
        return child

    def text(self) -> bytes:
        return generate_latest(self.registry)
