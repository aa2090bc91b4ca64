"""Figures for Prometheus, kept by its client library in the server's own registry."""

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from specpolicy.control.chunk import Chunk

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
OUTCOMES = (
    "answered",  # with actions
    "reset",  # an episode was begun, without a request
    "refused",  # the request was malformed or does not fit the policy
    "failed",  # inference raised an exception
    "dropped",  # the client had left when its turn came
)


class Metrics:
    """Figures of one server. Its methods may be called from any thread."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("specpolicy_requests", "Requests by outcome.", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self._requests.labels(outcome)
        self._refused = Counter(
            "specpolicy_connections_refused", "Connections refused for their key or because there were too many.",
            registry=registry,
        )  # fmt: skip
        self._request_seconds = Histogram(
            "specpolicy_request_seconds", "From a request's arrival to its answer.", buckets=SECONDS, registry=registry
        )
        self._inference_seconds = Histogram(
            "specpolicy_inference_seconds", "Of one batch in the policy.", buckets=SECONDS, registry=registry
        )
        self._batch = Histogram(
            "specpolicy_batch_size", "Requests planned together.", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self._chunks = Counter("specpolicy_chunks", "Chunks planned.", registry=registry)
        self._calls = Counter("specpolicy_network_calls", "Sequential network calls, summed over chunks.",
                              registry=registry)  # fmt: skip
        self._rows = Counter("specpolicy_network_rows", "States evaluated, summed over chunks.", registry=registry)
        self._queue = Gauge("specpolicy_queue_length", "Requests that wait for their turn.", registry=registry)
        self._clients = Gauge("specpolicy_clients", "Open connections.", registry=registry)

    def request(self, outcome: str, seconds: float) -> None:
        """Count a finished request."""
        self._requests.labels(outcome).inc()
        if outcome == "answered":
            self._request_seconds.observe(seconds)

    def refused(self) -> None:
        """Count a refused connection."""
        self._refused.inc()

    def clients(self, change: int) -> None:
        """Count a connection that was opened (1) or closed (-1)."""
        self._clients.inc(change)

    def queued(self, length: int) -> None:
        """Record the number of waiting requests."""
        self._queue.set(length)

    def planned(self, chunks: Sequence[Chunk], seconds: float) -> None:
        """Count a planned batch."""
        self._inference_seconds.observe(seconds)
        self._batch.observe(len(chunks))
        self._chunks.inc(len(chunks))
        self._calls.inc(sum(chunk.calls for chunk in chunks))
        self._rows.inc(sum(chunk.rows for chunk in chunks))

    def text(self) -> bytes:
        """Return the text for a scrape."""
        return generate_latest(self._registry)
