"""Changes of a cluster that serves: rolled, undone, paused, put to sleep and woken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from kube.load import Load
from kube.product import ROOT, Cluster
from sandbox.cluster import Sandbox
from sandbox.shell import CommandError

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]


CHART = ROOT / "charts" / "dwcp-cluster"
SETTLE = "--set=upgrade.settleTime=6s"
"""Less than the default, to save time: clients may pause longer, and lose nothing."""


@pytest.fixture(scope="module")
def cluster(sandbox: Sandbox, namespace: str, image: str) -> Cluster:
    """Made, changed and at last removed by its chart."""
    sandbox.recycle_volumes()
    made = Cluster(sandbox, namespace, "changing")
    sandbox.helm("install", made.name, CHART, made.where, SETTLE)
    made.wait_all_ready()
    made.start_client(image)
    return made


def patch(cluster: Cluster, **spec: Any) -> None:
    text = json.dumps({"spec": spec})
    cluster.sandbox.kubectl(
        "patch", "dwcpcluster", cluster.name, "--type=merge", f"--patch={text}", cluster.where
    )


def annotate(cluster: Cluster, *annotations: str) -> None:
    words = ("annotate", "dwcpcluster", cluster.name, *annotations, "--overwrite")
    cluster.sandbox.kubectl(*words, cluster.where)


def uids(cluster: Cluster) -> dict[str, str]:
    return {name: pod["metadata"]["uid"] for name, pod in cluster.pods().items()}


def story(cluster: Cluster) -> list[tuple[str, str]]:
    """Reasons and notes of this cluster's Events, in their order."""
    items = cluster.sandbox.get("events.events.k8s.io", cluster.where)["items"]
    mine = [e for e in items if e["regarding"].get("name") == cluster.name]
    return [(e["reason"], e["note"]) for e in sorted(mine, key=lambda e: e["eventTime"] or "")]


def rolled(events: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Members whose roll was told, in that order, and who led then."""
    words = [note.split() for reason, note in events if reason == "MemberRolled"]
    return [(note[0], note[-2]) for note in words]


def wait_condition(cluster: Cluster, kind: str, reason: str, timeout_s: float = 60) -> None:
    def missing() -> str:
        found = cluster.condition(kind)
        return "" if found.get("reason") == reason else f"{kind} {reason}, not {found}"

    cluster.sandbox.wait_until(missing, timeout_s)


def wait_rolled(cluster: Cluster, before: dict[str, str], timeout_s: float = 120) -> bool:
    """Until all members are other Pods and vote; whether the cluster was Available throughout."""
    available = []

    def missing() -> str:
        status = cluster.status()
        conditions = {c["type"]: c["status"] for c in status["conditions"]}
        available.append(conditions["Available"] == "True")
        now = uids(cluster)
        same = [name for name in before if now.get(name) in (before[name], None)]
        if same or status["upgrade"]["updated"] != len(before):
            return f"other Pods of {', '.join(same)}"
        return "" if conditions["Progressing"] == "False" else "the end of the change"

    cluster.sandbox.wait_until(missing, timeout_s)
    cluster.wait_all_ready()
    return all(available)


def test_an_image_is_rolled_under_load_without_losing_a_write(
    cluster: Cluster, image: str, tell: Callable[[str], None]
) -> None:
    before, mark = uids(cluster), len(story(cluster))
    began = time.monotonic()
    with Load(cluster) as load:
        values = (SETTLE, f"--set=image={image}")
        cluster.sandbox.helm("upgrade", cluster.name, CHART, cluster.where, *values)
        assert wait_rolled(cluster, before), "it was not available all the time"
        took_s = time.monotonic() - began
    result = load.result
    assert result is not None
    assert result.lost == 0
    assert result.writes > 10
    events = story(cluster)
    order = rolled(events)
    assert sorted(member for member, _ in order) == sorted(before)
    # A restarted member may ask for another view, and so move the lead to one that is done.
    assert not any(member == primary for member, primary in order[:-1]), "the primary is last"
    views = sum(reason == "ViewChanged" for reason, _ in events[mark:])
    tell(
        f"image roll of 4 members under load: {took_s:.0f} s, {result.writes} writes, "
        f"{result.lost} lost, longest pause {result.pause_ms} ms, {views} view changes"
    )


def test_a_bad_image_stops_at_one_member_and_is_taken_back(cluster: Cluster, image: str) -> None:
    before = uids(cluster)
    patch(cluster, image="localhost/dwcp:absent", upgrade={"rollback": True, "stepDeadline": "10s"})
    wait_condition(cluster, "Degraded", "RolledBack", 90)
    cluster.put("during", "a bad image")
    cluster.wait_all_ready(90)
    after = uids(cluster)
    assert len([name for name in before if before[name] != after[name]]) == 1
    assert "RolledBack" in cluster.events()
    images = {p["spec"]["containers"][0]["image"] for p in cluster.pods().values()}
    assert images == {image}
    patch(cluster, image=image)
    wait_condition(cluster, "Degraded", "AllMembersReady")
    assert uids(cluster) == after, "what runs already is not rolled"


def test_a_pod_that_would_not_be_admitted_takes_nobody_down(cluster: Cluster) -> None:
    before = uids(cluster)
    patch(cluster, placement={"priorityClassName": "no-such-class"})
    wait_condition(cluster, "Degraded", "ActionFailed")
    assert "no-such-class" in cluster.condition("Degraded")["message"]
    patch(cluster, placement={"priorityClassName": None})
    wait_condition(cluster, "Degraded", "AllMembersReady")
    assert uids(cluster) == before


def test_a_paused_cluster_is_left_alone_until_it_is_not(cluster: Cluster) -> None:
    annotate(cluster, "dwcp.dev/paused=true")
    wait_condition(cluster, "Progressing", "Paused")
    cluster.sandbox.kubectl("delete", "pod", "changing-2", cluster.where)
    wait_condition(cluster, "Degraded", "MembersNotReady")
    assert "changing-2" not in cluster.pods()
    annotate(cluster, "dwcp.dev/paused-")
    cluster.wait_all_ready(60)


def test_it_sleeps_and_wakes_with_what_it_held(cluster: Cluster, sandbox: Sandbox) -> None:
    cluster.put("before", "sleep")
    patch(cluster, hibernate=True)
    wait_condition(cluster, "Progressing", "Hibernated")
    sandbox.wait_until(lambda: ", ".join(cluster.pods()), 60)
    assert cluster.condition("Available")["reason"] == "Hibernated"
    patch(cluster, hibernate=False)
    cluster.wait_all_ready(90)
    assert cluster.get("before") == "sleep"


def test_a_growth_that_the_class_refuses_is_told_and_taken_back(cluster: Cluster) -> None:
    before = uids(cluster)
    patch(cluster, storage={"size": "2Gi"})
    wait_condition(cluster, "Degraded", "ActionFailed")
    assert "resize" in cluster.condition("Degraded")["message"]
    patch(cluster, storage={"size": "1Gi"})
    wait_condition(cluster, "Degraded", "AllMembersReady")
    assert uids(cluster) == before


def evict(cluster: Cluster, member: str) -> None:
    """What a drain does with each Pod; CommandError when the budget forbids it."""
    metadata = {"name": member, "namespace": cluster.namespace}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{cluster.namespace}/pods/{member}/eviction"
    cluster.sandbox.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(body))


def test_a_drain_takes_one_member_and_then_waits_until_it_is_back(cluster: Cluster) -> None:
    cluster.wait_all_ready()
    cluster.sandbox.wait_until(lambda: allowed(cluster, 1), 30)
    before = uids(cluster)
    evict(cluster, "changing-0")
    with pytest.raises(CommandError, match="disruption budget"):
        evict(cluster, "changing-1")
    cluster.put("during", "a drain")
    cluster.sandbox.wait_until(lambda: same(cluster, "changing-0", before), 60)
    cluster.wait_all_ready()
    cluster.sandbox.wait_until(lambda: allowed(cluster, 1), 30)
    evict(cluster, "changing-1")
    cluster.sandbox.wait_until(lambda: same(cluster, "changing-1", before), 60)
    cluster.wait_all_ready()


def allowed(cluster: Cluster, count: int) -> str:
    budget = cluster.sandbox.get("pdb", cluster.name, cluster.where)
    found = budget["status"].get("disruptionsAllowed")
    return "" if found == count else f"{count} allowed disruptions, not {found}"


def same(cluster: Cluster, member: str, before: dict[str, str]) -> str:
    return f"a new {member}" if uids(cluster).get(member) in (before[member], None) else ""


def test_uninstalling_the_chart_keeps_the_volumes(cluster: Cluster, sandbox: Sandbox) -> None:
    """The last test here: the cluster is gone after it."""
    sandbox.helm("uninstall", cluster.name, cluster.where, "--wait")
    sandbox.wait_until(lambda: ", ".join(cluster.pods()), 60)
    assert not sandbox.get("dwcpclusters", cluster.where)["items"]
    claims = sandbox.get("pvc", cluster.where, "--selector=dwcp.dev/cluster=changing")["items"]
    assert len(claims) == 4
