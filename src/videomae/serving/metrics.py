"""What a server counts, for Prometheus."""

from videomae.packages import require

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        require("prometheus_client", extra="serve", purpose="serving needs prometheus-client")
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        registry = self.registry
        self.requests = Counter("videomae_requests", "requests answered", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "videomae_request_seconds", "until answered", ["path"], buckets=SECONDS, registry=registry
        )
        self.active = Gauge("videomae_active_requests", "requests worked on or waiting", registry=registry)
        self.batch = Histogram("videomae_batch_clips", "clips at once", buckets=(1, 2, 4, 8, 16, 32), registry=registry)
        self.model = Histogram("videomae_model_seconds", "for a batch", buckets=SECONDS, registry=registry)
        self.decode = Histogram(
            "videomae_decode_seconds", "until a clip is decoded", buckets=SECONDS, registry=registry
        )
        self.workers_lost = Counter(
            "videomae_decoders_lost", "decoding processes ended by an upload", registry=registry
        )

    def page(self) -> tuple[bytes, str]:
        """Return everything as Prometheus reads it, and its media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST
