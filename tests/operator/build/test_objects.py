"""Volumes, Services, NetworkPolicy, disruption budget and Secrets."""

from __future__ import annotations

from typing import Any

import pytest

from dwcp_operator.build import budget, network, secrets, storage
from dwcp_operator.plan.quorum import quorum
from kube.subjects import UID, subject


def test_a_claim_asks_for_what_the_user_wrote() -> None:
    made = storage.claim(
        subject(storage={"size": "3Gi", "storageClassName": "fast"}), "demo-2", "ReadWriteOncePod"
    )
    assert made["spec"]["resources"]["requests"]["storage"] == "3Gi"
    assert made["spec"]["storageClassName"] == "fast"
    assert made["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert "storageClassName" not in storage.claim(subject(), "demo-2", "ReadWriteOnce")["spec"]


def found(owners: list[dict[str, Any]]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "x", "namespace": "shop", "resourceVersion": "7"}
    if owners:
        metadata["ownerReferences"] = owners
    return {"metadata": metadata}


def test_reclaim_follows_the_resource_in_both_directions() -> None:
    keep, remove = subject(), subject(storage={"reclaim": "Delete"})
    assert storage.reclaim_patch(keep, found([])) is None
    assert storage.reclaim_patch(remove, found([remove.owner()])) is None
    owned = storage.reclaim_patch(remove, found([]))
    assert owned == {"metadata": {"resourceVersion": "7", "ownerReferences": [remove.owner()]}}
    freed = storage.reclaim_patch(keep, found([keep.owner()]))
    assert freed == {"metadata": {"resourceVersion": "7", "ownerReferences": None}}


def test_reclaim_leaves_the_owners_of_others() -> None:
    other = {"uid": "other", "kind": "Backup"}
    patch = storage.reclaim_patch(subject(), found([other, subject().owner()]))
    assert patch is not None
    assert patch["metadata"]["ownerReferences"] == [other]


def test_members_are_found_before_they_are_ready() -> None:
    spec = network.members_service(subject())["spec"]
    assert spec["clusterIP"] == "None"
    assert spec["publishNotReadyAddresses"] is True
    assert {p["name"] for p in spec["ports"]} == {"client", "peer"}
    assert "publishNotReadyAddresses" not in network.client_service(subject())["spec"]


def test_only_members_reach_the_peer_port() -> None:
    client, peer = network.network_policy(subject())["spec"]["ingress"]
    assert "from" not in client
    assert peer["from"] == [{"podSelector": {"matchLabels": subject().selector}}]
    assert peer["ports"][0]["port"] != client["ports"][0]["port"]


@pytest.mark.parametrize(("n", "faulty"), [(4, 0), (4, 1), (7, 2), (10, 0), (10, 3), (4, 4)])
def test_an_eviction_leaves_a_quorum_of_good_members(n: int, faulty: int) -> None:
    minimum = budget.disruption_budget(subject(replicas=n), faulty)["spec"]["minAvailable"]
    assert isinstance(minimum, int)
    assert minimum == min(n, quorum(n) + faulty)


def test_secrets_are_read_back_and_those_with_keys_alone_immutable() -> None:
    files = {"client.key": secrets.key_text(b"k" * 32), "genesis.msgpack": b"genesis"}
    made = secrets.client(subject(), "default", files)
    assert made["immutable"] is False, "later epochs are added to it"
    assert secrets.admin(subject(), b"k" * 32)["immutable"] is True
    assert secrets.data_of(made) == {
        "client.key": b"6b" * 32 + b"\n",
        "genesis.msgpack": b"genesis",
    }
    keys = secrets.client_keys(subject(clients=["a", "b"]), {"a": b"a" * 32, "b": b"b" * 32})
    assert set(secrets.data_of(keys)) == {"a.key", "b.key"}


def test_keys_stay_with_retained_volumes_and_tokens_never() -> None:
    assert "ownerReferences" not in secrets.admin(subject(), b"k" * 32)["metadata"]
    deleted = secrets.admin(subject(storage={"reclaim": "Delete"}), b"k" * 32)["metadata"]
    assert deleted["ownerReferences"][0]["uid"] == UID
    assert secrets.token(subject(), "demo-0", "t")["metadata"]["ownerReferences"]
