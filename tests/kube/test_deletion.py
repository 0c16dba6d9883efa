"""Deleting a cluster removes what the operator made; volumes follow spec.storage.reclaim."""

from __future__ import annotations

from typing import Any

import pytest

from kube.conftest import Make
from kube.product import Cluster
from kube.test_members import wait_members
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

KINDS = (
    "pods", "persistentvolumeclaims", "services", "serviceaccounts", "secrets", "configmaps",
    "poddisruptionbudgets", "networkpolicies", "endpointslices",
)  # fmt: skip


def left(sandbox: Sandbox, namespace: str, name: str) -> dict[str, list[str]]:
    """What there is of a cluster, by kind; a client's own pod is the user's."""
    found: dict[str, list[str]] = {}
    items: list[dict[str, Any]] = sandbox.get(",".join(KINDS), f"--namespace={namespace}")["items"]
    for item in items:
        own = item["metadata"]["name"]
        if own.startswith(name) and own != f"{name}-app":
            found.setdefault(item["kind"], []).append(own)
    return found


def delete(cluster: Cluster) -> None:
    cluster.sandbox.kubectl("delete", "dwcpcluster", cluster.name, cluster.where)
    cluster.sandbox.kubectl(
        "delete", "pod", f"{cluster.name}-app", cluster.where, "--ignore-not-found"
    )


def test_retained_volumes_are_adopted_with_their_data(
    make: Make, sandbox: Sandbox, namespace: str, image: str
) -> None:
    """And three others join them, since the new resource asks for seven."""
    first = make("keep")
    first.wait_all_ready()
    first.start_client(image)
    for i in range(5):
        first.put(f"key{i}", f"value{i}")
    first.wait_all_ready()
    cluster_id, tag = first.status()["clusterId"], first.status()["clusterId"][:8]
    delete(first)
    claims = [f"keep-{i}-{tag}" for i in range(4)]
    kept = {
        "PersistentVolumeClaim": claims,
        "Secret": [f"keep-{tag}-admin", f"keep-{tag}-clients"],
    }
    sandbox.wait_until(lambda: str(remaining(sandbox, namespace, kept) or ""), 60)

    volumes = [{"member": f"keep-{i}", "claim": claim} for i, claim in enumerate(claims)]
    adopt = {"clusterId": cluster_id, "volumes": volumes}
    second = make("keep", replicas=7, bootstrap={"adopt": adopt})
    second.wait_available(60)
    wait_members(second, [f"keep-{i}" for i in range(7)], 90)
    second.start_client(image)
    assert [second.get(f"key{i}") for i in range(5)] == [f"value{i}" for i in range(5)]
    second.put("after", "adoption")
    assert second.get("after") == "adoption"
    assert second.status()["clusterId"] == cluster_id
    assert "GenesisAdopted" in second.events()
    delete(second)


def remaining(sandbox: Sandbox, namespace: str, kept: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is left although it should not, or not left although it should."""
    found = left(sandbox, namespace, "keep")
    return {} if found == kept else found


def test_a_namesake_that_adopts_nothing_is_empty(
    make: Make, sandbox: Sandbox, namespace: str, image: str
) -> None:
    """Its volumes are new, whatever lies there under the old ones' names."""
    first = make("same")
    first.wait_all_ready()
    first.start_client(image)
    first.put("secret", "old")
    old = first.status()["clusterId"]
    delete(first)
    second = make("same")
    second.wait_all_ready(90)
    second.start_client(image)
    assert second.status()["clusterId"] != old
    assert second.get("secret") == ""
    delete(second)


def test_adopting_volumes_of_the_wrong_members_says_whose_they_are(
    make: Make, sandbox: Sandbox
) -> None:
    first = make("swap")
    first.wait_all_ready()
    cluster_id = first.status()["clusterId"]
    delete(first)
    order = (1, 0, 2, 3)
    volumes = [
        {"member": f"swap-{i}", "claim": f"swap-{order[i]}-{cluster_id[:8]}"} for i in range(4)
    ]
    second = make("swap", bootstrap={"adopt": {"clusterId": cluster_id, "volumes": volumes}})

    def missing() -> str:
        message = second.condition("Degraded").get("message", "")
        return "" if "belongs to member swap-1" in message else f"the reason, not {message}"

    sandbox.wait_until(missing, 60)
    delete(second)


def test_with_delete_nothing_is_left(make: Make, sandbox: Sandbox, namespace: str) -> None:
    cluster = make("gone", storage={"reclaim": "Delete"})
    cluster.wait_all_ready()
    delete(cluster)
    sandbox.wait_until(lambda: str(left(sandbox, namespace, "gone") or ""), 60)
