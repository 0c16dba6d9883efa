"""The operator killed, doubled, without its API server: it goes on, and touches no pod."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from kube import product, victims
from kube.conftest import Make
from kube.product import RELEASE, SYSTEM, Cluster
from sandbox import bring_up
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

WHERE = f"--namespace={SYSTEM}"


@pytest.fixture(scope="module")
def cluster(make: Make, image: str) -> Cluster:
    made = make("steady")
    made.wait_all_ready()
    made.start_client(image)
    return made


def runs(cluster: Cluster) -> dict[str, tuple[str, int]]:
    """UID and restarts of each member's pod."""
    return {
        name: (p["metadata"]["uid"], p["status"]["containerStatuses"][0]["restartCount"])
        for name, p in cluster.pods().items()
    }


def holder(sandbox: Sandbox) -> str:
    found = sandbox.get("lease", "dwcp-operator", WHERE)
    return str(found["spec"].get("holderIdentity") or "")


def delete_and_wait(cluster: Cluster, member: str) -> None:
    """The operator works when it makes a deleted pod anew."""
    uid = cluster.pods()[member]["metadata"]["uid"]
    cluster.sandbox.kubectl("delete", "pod", member, cluster.where, timeout_s=60)

    def missing() -> str:
        pod = cluster.pods().get(member)
        return "" if pod and pod["metadata"]["uid"] != uid else f"a new pod {member}"

    cluster.sandbox.wait_until(missing, 120)
    cluster.wait_all_ready(120)


def test_a_restart_of_the_operator_restarts_no_pod(sandbox: Sandbox, cluster: Cluster) -> None:
    before = runs(cluster)
    sandbox.kubectl("rollout", "restart", f"deployment/{RELEASE}", WHERE)
    rollout = ("rollout", "status", f"deployment/{RELEASE}", WHERE, "--timeout=90s")
    sandbox.kubectl(*rollout, timeout_s=100)
    sandbox.wait_until(lambda: "" if holder(sandbox) else "a leader", 30)
    delete_and_wait(cluster, "steady-3")
    after = runs(cluster)
    assert {k: v for k, v in after.items() if k != "steady-3"} == {
        k: v for k, v in before.items() if k != "steady-3"
    }


def test_an_upgrade_to_another_image_restarts_no_pod(
    sandbox: Sandbox, cluster: Cluster, image: str
) -> None:
    before = runs(cluster)
    product.install(sandbox, image, podAnnotations={"example": "upgraded"})
    sandbox.wait_until(lambda: "" if holder(sandbox) else "a leader", 30)
    cluster.put("during", "upgrade")
    assert runs(cluster) == before
    product.install(sandbox, image)


def test_killed_while_a_cluster_is_made_it_makes_one(
    make: Make, sandbox: Sandbox, namespace: str, image: str
) -> None:
    cluster = make("born")
    for pause_s in (0.4, 0.9, 1.3, 0.7):
        time.sleep(pause_s)  # the moments at which it is killed: any will do
        for process in victims.operators():
            process.kill()
        sandbox.wait_until(lambda: "" if victims.operators() else "an operator", 90)
    cluster.wait_available(180)
    cluster.wait_all_ready(60)
    cluster.start_client(image)
    cluster.put("one", "genesis")
    assert cluster.get("one") == "genesis"
    maps = sandbox.get("configmaps", f"--namespace={namespace}", "--selector=dwcp.dev/cluster=born")
    assert len(maps["items"]) == 1
    sandbox.kubectl("delete", "dwcpcluster", "born", cluster.where)
    sandbox.kubectl("delete", "pod", "born-app", cluster.where)


@pytest.fixture
def two_operators(sandbox: Sandbox, image: str) -> Iterator[None]:
    product.install(sandbox, image, replicas=2)
    yield
    product.install(sandbox, image)


def test_of_two_operators_one_acts_and_the_other_takes_over(
    sandbox: Sandbox, cluster: Cluster, two_operators: None
) -> None:
    pods = sandbox.get("pods", WHERE, f"--selector=app.kubernetes.io/instance={RELEASE}")["items"]
    running = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
    assert len(running) == 2
    sandbox.wait_until(lambda: "" if holder(sandbox) else "a leader", 30)
    names = [p["metadata"]["name"] for p in running]
    leading = [name for name in names if leads(sandbox, name)]
    first = holder(sandbox).split("_")[0]
    assert leading == [first]
    sandbox.kubectl("delete", "pod", first, WHERE, "--grace-period=0", "--force")
    sandbox.wait_until(lambda: "" if holder(sandbox).split("_")[0] != first else "another", 60)
    delete_and_wait(cluster, "steady-2")


def test_a_leader_that_was_frozen_ends_without_acting(
    sandbox: Sandbox, cluster: Cluster, two_operators: None
) -> None:
    """Its lease runs out while it sleeps: another takes over, and it must not wake up acting."""
    sandbox.wait_until(lambda: "" if holder(sandbox) else "a leader", 30)
    first = holder(sandbox)
    frozen = next(p for p in victims.operators() if p.environ().get("DWCP_IDENTITY") == first)
    frozen.suspend()
    try:
        sandbox.wait_until(lambda: "" if holder(sandbox) != first else "another leader", 40)
        delete_and_wait(cluster, "steady-0")
        before = runs(cluster)
    finally:
        frozen.resume()
    sandbox.wait_until(lambda: "its end" if frozen.is_running() else "", 30)
    assert holder(sandbox) != first
    assert runs(cluster) == before


def leads(sandbox: Sandbox, pod: str) -> bool:
    path = f"/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics"
    text = sandbox.kubectl("get", "--raw", path)
    return "dwcp_operator_leader 1.0" in text.splitlines()


def test_without_an_api_server_the_cluster_serves_and_the_operator_goes_on(
    sandbox: Sandbox, cluster: Cluster
) -> None:
    before = runs(cluster)
    sandbox.processes.stop("kube-apiserver", grace_s=2.0)
    time.sleep(45)  # longer than the lease, a minute with stop and start
    bring_up.up(sandbox, len(sandbox.nodes), product.VOLUMES, [])
    assert runs(cluster) == before
    cluster.put("after", "the outage")
    assert cluster.get("after") == "the outage"
    cluster.wait_all_ready(150)
    delete_and_wait(cluster, "steady-1")
