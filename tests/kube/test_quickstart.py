"""The main job: apply, available, write, read; a killed process, a deleted pod, the story told."""

from __future__ import annotations

import time

import pytest
import yaml

from kube import victims
from kube.product import ROOT, Cluster
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

AVAILABLE_S_MAX = 20.0
VIEW_S_MAX = 5.0


@pytest.fixture(scope="module")
def cluster(sandbox: Sandbox, namespace: str, image: str) -> Cluster:
    manifest = yaml.safe_load((ROOT / "examples" / "quickstart.yaml").read_text())
    manifest["metadata"]["namespace"] = namespace
    began = time.monotonic()
    sandbox.apply(manifest)
    made = Cluster(sandbox, namespace, "quickstart")
    made.wait_available(60)
    took_s = time.monotonic() - began
    assert took_s <= AVAILABLE_S_MAX, f"available after {took_s:.1f} s"
    made.wait_all_ready()
    made.start_client(image)
    return made


def test_the_columns_say_where_it_stands(cluster: Cluster) -> None:
    header, row = cluster.sandbox.kubectl("get", "dwcpclusters", cluster.where).splitlines()
    assert header.split()[:6] == ["NAME", "READY", "MODE", "EPOCH", "VIEW", "PRIMARY"]
    status = cluster.status()
    assert row.split()[:6] == [
        "quickstart", "4/4", "Internet", "0", str(status["view"]), status["primary"]
    ]  # fmt: skip


def test_all_conditions_are_of_this_generation(cluster: Cluster) -> None:
    raw = cluster.raw()
    generation = raw["metadata"]["generation"]
    conditions = {c["type"]: c for c in raw["status"]["conditions"]}
    assert {c["observedGeneration"] for c in conditions.values()} == {generation}
    wanted = {
        "Available": "True", "Progressing": "False", "Degraded": "False",
        "QuorumAtRisk": "False", "ByzantineFault": "False", "ModeSettled": "True",
        "ZonesSpread": "Unknown",
    }  # fmt: skip
    assert {kind: c["status"] for kind, c in conditions.items()} == wanted
    assert "finalizers" not in raw["metadata"]
    assert not [a for a in raw["metadata"].get("annotations", {}) if "kopf" in a]


def test_a_client_pod_writes_and_reads(cluster: Cluster) -> None:
    cluster.put("colour", "blue")
    assert cluster.get("colour") == "blue"


def test_members_are_restricted_pods_that_restart_in_place(cluster: Cluster) -> None:
    pods = cluster.pods()
    assert set(pods) == {f"quickstart-{i}" for i in range(4)}
    for pod in pods.values():
        assert pod["status"]["phase"] == "Running"
        assert pod["metadata"]["ownerReferences"][0]["controller"] is True
        assert pod["spec"]["restartPolicy"] == "Always"


def test_one_member_at_a_time_may_be_evicted(cluster: Cluster) -> None:
    def missing() -> str:
        budget = cluster.sandbox.get("pdb", "quickstart", cluster.where)
        allowed = budget["status"].get("disruptionsAllowed")
        return "" if allowed == 1 else f"one allowed disruption; it is {allowed}"

    cluster.sandbox.wait_until(missing, 30)


def test_a_killed_primary_is_replaced_and_comes_back(cluster: Cluster) -> None:
    before = cluster.status()
    primary, view = before["primary"], before["view"]
    began = time.monotonic()
    victims.replica(cluster.namespace, primary).kill()
    cluster.sandbox.wait_until(lambda: cluster.lead_changed(view), 30)
    took_s = time.monotonic() - began
    assert took_s <= VIEW_S_MAX, f"a new view after {took_s:.1f} s"
    cluster.put("colour", "green")
    assert cluster.get("colour") == "green"
    cluster.wait_all_ready()
    pod = cluster.pods()[primary]
    assert pod["status"]["containerStatuses"][0]["restartCount"] >= 1
    cluster.sandbox.wait_until(lambda: told(cluster, "ViewChanged", "MemberRestarted"), 30)


def test_a_deleted_pod_comes_back_on_its_volume_and_catches_up(cluster: Cluster) -> None:
    before = cluster.status()
    primary, view = before["primary"], before["view"]
    claim = volume_of(cluster, primary)
    uid = cluster.pods()[primary]["metadata"]["uid"]
    began = time.monotonic()
    cluster.sandbox.kubectl("delete", "pod", primary, cluster.where, "--wait=false")
    cluster.sandbox.wait_until(lambda: cluster.lead_changed(view), 30)
    took_s = time.monotonic() - began
    assert took_s <= VIEW_S_MAX, f"a new view after {took_s:.1f} s"
    cluster.put("colour", "red")
    cluster.wait_all_ready(60)
    assert cluster.pods()[primary]["metadata"]["uid"] != uid
    assert volume_of(cluster, primary) == claim
    assert cluster.get("colour") == "red"
    cluster.sandbox.wait_until(lambda: told(cluster, "MemberNotReady", "MemberStarted"), 30)


def test_a_pod_made_later_has_no_token_and_the_served_token_is_gone(cluster: Cluster) -> None:
    """One pod was deleted by the test before."""
    without = [
        name
        for name, pod in cluster.pods().items()
        if all(v["name"] != "token" for v in pod["spec"]["volumes"])
    ]
    assert without
    tag = cluster.status()["clusterId"][:8]
    secrets = {
        s["metadata"]["name"] for s in cluster.sandbox.get("secrets", cluster.where)["items"]
    }
    for name in cluster.pods():
        assert (f"{name}-{tag}-token" in secrets) == (name not in without)


def volume_of(cluster: Cluster, member: str) -> str:
    claim = cluster.pods()[member]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    found = cluster.sandbox.get("pvc", claim, cluster.where)
    return str(found["spec"]["volumeName"])


def told(cluster: Cluster, *reasons: str) -> str:
    missing = set(reasons) - set(cluster.events())
    return f"events {', '.join(sorted(missing))}" if missing else ""
