"""What is made for Prometheus and Grafana, when the user asks for it and its API is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from dwcp_operator.build.names import MEMBER_LABEL, Object, Subject
from dwcp_operator.plan.quorum import quorum

API_VERSION: Final = "monitoring.coreos.com/v1"
SCRAPE_INTERVAL: Final = "30s"
DASHBOARD_LABEL: Final = "grafana_dashboard"
"""The label by which Grafana's sidecar finds ConfigMaps with dashboards."""

_PANELS: Final = (
    ("Members that vote", "sum(dwcp_ready{%s})", "short"),
    ("Operations executed", "avg(rate(dwcp_executed_requests_total{%s}[1m]))", "ops"),
    (
        "Commit latency, p50",
        "histogram_quantile(0.5, sum by (le) (rate(dwcp_commit_seconds_bucket{%s}[1m])))",
        "s",
    ),
    (
        "Commit latency, p99",
        "histogram_quantile(0.99, sum by (le) (rate(dwcp_commit_seconds_bucket{%s}[1m])))",
        "s",
    ),
    ("View", "max by (pod) (dwcp_view{%s})", "short"),
    ("Log index: final", "max by (pod) (dwcp_final_index{%s})", "short"),
    ("Log index: executed", "max by (pod) (dwcp_applied_index{%s})", "short"),
    ("Requests waiting", "max by (pod) (dwcp_pending_requests{%s})", "short"),
    (
        "Sync of the log, p99",
        "histogram_quantile(0.99, sum by (le, pod) (rate(dwcp_wal_fsync_seconds_bucket{%s}[1m])))",
        "s",
    ),
    (
        "Peer messages refused",
        "sum by (reason) (rate(dwcp_messages_refused_total{%s}[5m]))",
        "ops",
    ),
    ("Round trip to a member", "max by (pod, peer) (dwcp_link_rtt_seconds{%s})", "s"),
    (
        "Changes of mode",
        "max by (from_mode, to_mode) (dwcp_v3_mode_switches_total{%s})",
        "short",
    ),
    ("Suspected by members", "sum by (peer) (dwcp_peer_suspected{%s})", "short"),
    ("Proofs of lies", "sum by (kind) (dwcp_byzantine_evidence_total{%s})", "short"),
)
"""Title, query with a place for the cluster's labels, and unit."""


def pod_monitor(subject: Subject) -> Object:
    """Where the Prometheus operator finds the members' metrics."""
    return {
        "apiVersion": API_VERSION,
        "kind": "PodMonitor",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "selector": {"matchLabels": subject.selector},
            "podTargetLabels": [MEMBER_LABEL],
            "podMetricsEndpoints": [_endpoint(subject)],
        },
    }


def _endpoint(subject: Subject) -> Object:
    """What is scraped; a member's own certificate is vouched for by nobody, and is not checked."""
    endpoint: Object = {"port": "client", "path": "/metrics", "interval": SCRAPE_INTERVAL}
    if subject.speaks_tls:
        endpoint |= {"scheme": "https", "tlsConfig": {"insecureSkipVerify": True}}
    return endpoint


def prometheus_rule(subject: Subject) -> Object:
    """Alerts; they ask the members directly, so that they work while no operator runs."""
    return {
        "apiVersion": API_VERSION,
        "kind": "PrometheusRule",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "groups": [
                {"name": f"dwcp.{subject.namespace}.{subject.name}", "rules": [*_alerts(subject)]}
            ]
        },
    }


def _labels(subject: Subject) -> str:
    return f'namespace="{subject.namespace}",pod=~"{subject.name}-[0-9]+"'


def _alerts(subject: Subject) -> Iterator[Object]:
    labels, n = _labels(subject), len(subject.members)
    need, what = quorum(n), f"{subject.namespace}/{subject.name}"
    votes = f"(sum(dwcp_ready{{{labels}}}) or vector(0))"
    if not subject.cluster.spec.hibernate:
        yield _alert(
            "DWCPNoQuorum", f"{votes} < {need}", "1m", "critical",
            f"{what}: fewer than {need} of {n} members vote, so that no write is accepted.",
        )  # fmt: skip
        yield _alert(
            "DWCPQuorumAtRisk", f"{votes} == {need}", "10m", "warning",
            f"{what}: one member less would stop writes.",
        )  # fmt: skip
    yield _alert(
        "DWCPByzantineEvidence", f"sum(dwcp_byzantine_evidence_total{{{labels}}}) > 0", "0m",
        "critical", f"{what}: a member holds proof of another's lie; the status names it.",
    )  # fmt: skip
    yield _alert(
        "DWCPStateDiverged", f"max(dwcp_state_diverged{{{labels}}}) > 0", "0m", "critical",
        f"{what}: a member's state differs from a stable checkpoint.",
    )  # fmt: skip
    yield _alert(
        "DWCPMemberMuted", f"max by (pod) (dwcp_muted{{{labels}}}) > 0", "0m", "warning",
        f"{what}: {{{{ $labels.pod }}}} signs nothing, since its log is damaged.",
    )  # fmt: skip
    ill = f"dwcp_ready{{{labels}}} - dwcp_healthy{{{labels}}}"
    yield _alert(
        "DWCPMemberIll", f"max by (pod) ({ill}) > 0", "2m", "warning",
        f"{what}: {{{{ $labels.pod }}}} votes, and commits nothing; its status says why.",
    )  # fmt: skip
    yield _alert(
        "DWCPDiskFull", f"max by (pod) (dwcp_disk_full{{{labels}}}) > 0", "0m", "critical",
        f"{what}: {{{{ $labels.pod }}}} has no room for its log: let spec.storage.size grow.",
    )  # fmt: skip
    yield _alert(
        "DWCPViewChanges", f"max(increase(dwcp_view_changes_total{{{labels}}}[15m])) > 10", "0m",
        "warning", f"{what}: primaries are replaced again and again.",
    )  # fmt: skip


def _alert(name: str, expression: str, lasting: str, severity: str, summary: str) -> Object:
    return {
        "alert": name,
        "expr": expression,
        "for": lasting,
        "labels": {"severity": severity},
        "annotations": {"summary": summary},
    }


def dashboard(subject: Subject) -> Object:
    """The ConfigMap with a Grafana dashboard of this cluster."""
    board = {
        "uid": f"dwcp-{subject.cluster_id[:12]}",
        "title": f"DWCP {subject.namespace}/{subject.name}",
        "tags": ["dwcp"],
        "schemaVersion": 39,
        "refresh": SCRAPE_INTERVAL,
        "time": {"from": "now-1h", "to": "now"},
        "panels": [
            _panel(number, title, query % _labels(subject), unit)
            for number, (title, query, unit) in enumerate(_PANELS)
        ],
    }
    metadata = subject.metadata(subject.dashboard_map)
    metadata["labels"] = {**metadata["labels"], DASHBOARD_LABEL: "1"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {f"{subject.namespace}-{subject.name}.json": json.dumps(board, indent=1)},
    }


def _panel(number: int, title: str, query: str, unit: str) -> Object:
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [{"refId": "A", "expr": query}],
    }
