"""Clusters that the builders' and actions' tests are about."""

from __future__ import annotations

from typing import Any

from dwcp_operator.build.names import Subject
from dwcp_operator.resources import DWCPCluster

UID = "01234567-89ab-4cde-8f01-23456789abcd"


def resource(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dwcp.dev/v1alpha1",
        "kind": "DWCPCluster",
        "metadata": {"name": "demo", "namespace": "shop", "uid": UID, "generation": 1},
        "spec": spec,
    }


def subject(uid: str = UID, **spec: Any) -> Subject:
    return Subject(DWCPCluster.model_validate(resource(**spec)), uid)


def adopting(cluster_id: str = "f" * 32) -> Subject:
    volumes = [{"member": f"demo-{i}", "claim": f"old-{i}"} for i in range(4)]
    adopt = {"clusterId": cluster_id, "volumes": volumes}
    return subject(uid="99999999-89ab-4cde-8f01-23456789abcd", bootstrap={"adopt": adopt})
