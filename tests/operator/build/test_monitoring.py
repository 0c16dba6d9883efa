"""What Prometheus and Grafana are told: only of metrics that there are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from dwcp_operator.build import monitoring
from dwcp_operator.plan.quorum import quorum
from dwcp_replica.api.metrics import ReplicaMetrics
from kube.subjects import subject

_WORDS = re.compile(r"\bdwcp_[a-z0-9_]+")


def served() -> set[str]:
    """Names of samples that a replica's /metrics shows."""
    names = set()
    for family in ReplicaMetrics().registry.collect():
        if family.type == "counter":
            names.add(f"{family.name}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        else:
            names.add(family.name)
    return names


def alerts(**spec: Any) -> dict[str, dict[str, Any]]:
    (group,) = monitoring.prometheus_rule(subject(**spec))["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def queries() -> list[str]:
    (text,) = monitoring.dashboard(subject())["data"].values()
    return [t["expr"] for panel in json.loads(text)["panels"] for t in panel["targets"]]


def test_every_metric_asked_for_is_served() -> None:
    asked = [rule["expr"] for rule in alerts().values()] + queries()
    words = {word for text in asked for word in _WORDS.findall(text)}
    assert len(words) > 10
    assert words <= served()


def test_every_query_is_about_this_cluster() -> None:
    for text in [rule["expr"] for rule in alerts().values()] + queries():
        assert 'namespace="shop",pod=~"demo-[0-9]+"' in text
        assert text.count("{") == text.count("}") > 0


@pytest.mark.parametrize("n", [4, 7, 10])
def test_alerts_know_the_quorum(n: int) -> None:
    found = alerts(replicas=n)
    assert found["DWCPNoQuorum"]["expr"].endswith(f"< {quorum(n)}")
    assert found["DWCPQuorumAtRisk"]["expr"].endswith(f"== {quorum(n)}")


def test_a_sleeping_cluster_wakes_nobody() -> None:
    assert {"DWCPNoQuorum", "DWCPQuorumAtRisk"} <= alerts().keys()
    assert not {"DWCPNoQuorum", "DWCPQuorumAtRisk"} & alerts(hibernate=True).keys()


def test_the_monitor_selects_members_and_their_port() -> None:
    spec = monitoring.pod_monitor(subject())["spec"]
    assert spec["selector"]["matchLabels"] == subject().selector
    assert spec["podMetricsEndpoints"][0]["port"] == "client"


def test_panels_do_not_overlap() -> None:
    (text,) = monitoring.dashboard(subject())["data"].values()
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in json.loads(text)["panels"]]
    assert len(set(places)) == len(places)


def test_metrics_are_scraped_over_tls_where_members_speak_it() -> None:
    def endpoint(**spec: Any) -> dict[str, Any]:
        (found,) = monitoring.pod_monitor(subject(**spec))["spec"]["podMetricsEndpoints"]
        assert isinstance(found, dict)
        return found

    assert "scheme" not in endpoint()
    assert endpoint(tls={})["scheme"] == "https"
