"""A node that is gone for good, and a volume that is gone with it."""

from __future__ import annotations

import time

import pytest

from kube import product, reliability
from kube.conftest import Make
from kube.load import Load
from kube.product import SYSTEM, Cluster
from sandbox import bring_up
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.e2e, pytest.mark.timeout(600)]

NODES = 4


@pytest.fixture(scope="module")
def wide(sandbox: Sandbox) -> Sandbox:
    """A node for each member; nodes that were added stay until the sandbox is taken down."""
    _, archive = product.build(sandbox)
    bring_up.up(sandbox, max(NODES, len(sandbox.nodes)), product.VOLUMES, [archive])
    return sandbox


def test_a_member_whose_node_is_gone_is_replaced(wide: Sandbox, make: Make, image: str) -> None:
    cluster = make("spread", replaceAfter="30s")
    cluster.wait_all_ready(90)
    cluster.start_client(image)
    places = {name: str(pod["spec"]["nodeName"]) for name, pod in cluster.pods().items()}
    assert len(set(places.values())) == NODES, "spread over the nodes"
    victim = next(name for name in places if places[name] not in busy(wide, cluster))
    expected = ["spread-4" if name == victim else name for name in sorted(places)]
    with Load(cluster) as load:
        wide.stop_node(places[victim])
        began = time.monotonic()
        wide.wait_until(lambda: lacking(cluster, expected), 180)
        seconds = time.monotonic() - began
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note(
        "node gone, member replaced after 30 s, under load", load.result, f"{seconds:.0f} s in all"
    )
    wide.start_node(places[victim])
    wide.wait_until(lambda: f"the end of {victim}" if victim in cluster.pods() else "", 60)
    assert lacking(cluster, expected) == ""


def busy(sandbox: Sandbox, cluster: Cluster) -> set[str]:
    """Nodes on which the operator and the client run: they are not what this is about."""
    system = sandbox.get("pods", f"--namespace={SYSTEM}")["items"]
    client = sandbox.get("pod", f"{cluster.name}-app", cluster.where)
    dns = sandbox.get("pods", "--namespace=kube-system")["items"]
    return {str(pod["spec"]["nodeName"]) for pod in (*system, *dns, client)}


def lacking(cluster: Cluster, names: list[str]) -> str:
    """What is missing until exactly these are members and vote."""
    status = cluster.status()
    now = status["membership"]["names"]
    if now != names:
        return f"members {names}, not {now}; joining {status['membership'].get('joining')}"
    return "" if status.get("ready") == "4/4" else f"all ready, not {status.get('ready')}"
