"""The operator's Prometheus metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class OperatorMetrics:
    """Everything that the operator counts; labels are enumerations, never names of users."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.rounds = Histogram(
            "dwcp_operator_reconcile_seconds",
            "How long a round of looking, planning and acting took",
            ["kind"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.errors = Counter(
            "dwcp_operator_errors_total",
            "Rounds that ended in an error",
            ["reason"],
            registry=self._registry,
        )
        self.steps = Counter(
            "dwcp_operator_steps_total",
            "Steps that were carried out",
            ["kind"],
            registry=self._registry,
        )
        self.restarts = Counter(
            "dwcp_operator_member_restarts_total",
            "Containers that ended",
            ["reason"],
            registry=self._registry,
        )
        self.rolls = Counter(
            "dwcp_operator_member_rolls_total",
            "Members that the operator restarted",
            ["reason"],
            registry=self._registry,
        )
        self.clusters = Gauge(
            "dwcp_operator_clusters", "Resources that are looked after", registry=self._registry
        )
        self.backups = Gauge(
            "dwcp_operator_backups", "DWCPBackups that are looked after", registry=self._registry
        )
        self.leads = Gauge(
            "dwcp_operator_leader",
            "1 while this process holds the lease and acts",
            registry=self._registry,
        )
        self.age = Gauge(
            "dwcp_operator_last_reconcile_age_seconds",
            "Time since a round ended",
            registry=self._registry,
        )

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self._registry)
