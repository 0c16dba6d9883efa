"""What the gateway counts."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dwcp.client import Client

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class GatewayMetrics:
    """On a registry of their own; labels are paths that exist and codes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dwcp_gateway_requests", "Requests answered.", ("path", "code"), registry=self.registry
        )
        self.seconds = Histogram(
            "dwcp_gateway_seconds", "From a request's arrival to its answer.", ("path",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.liars = Gauge(
            "dwcp_gateway_liars", "Replicas proven to have lied to it.", registry=self.registry
        )
        self.connected = Gauge(
            "dwcp_gateway_replicas_connected", "Replicas it is connected to.",
            registry=self.registry,
        )  # fmt: skip
        self.refused = Gauge(
            "dwcp_gateway_replies_refused", "What replicas sent that did not count, by reason.",
            ("reason",), registry=self.registry,
        )  # fmt: skip
        self.reads = Gauge(
            "dwcp_gateway_reads", "Reads that were to skip the log, by how they ended.",
            ("ended",), registry=self.registry,
        )  # fmt: skip

    def answered(self, path: str, code: str, began_s: float) -> None:
        """Count a request that arrived at `began_s` of the monotonic clock."""
        self.requests.labels(path, code).inc()
        self.seconds.labels(path).observe(time.monotonic() - began_s)

    def look(self, client: Client) -> None:
        """Take over what the client knows."""
        self.liars.set(len(client.liars))
        self.connected.set(sum(client.connected.values()))
        for reason, count in client.refused.items():
            self.refused.labels(reason).set(count)
        for ended, count in client.reads.items():
            self.reads.labels(ended).set(count)
