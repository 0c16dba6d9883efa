"""Members that come and go on real Kubernetes: scaled and replaced while a client writes."""

from __future__ import annotations

import time

import pytest

from kube import reliability
from kube.conftest import Make
from kube.load import Load
from kube.product import Cluster
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cluster(make: Make, image: str) -> Cluster:
    made = make("moving")
    made.wait_all_ready()
    made.start_client(image)
    return made


def scale(cluster: Cluster, replicas: int) -> None:
    cluster.sandbox.kubectl(
        "scale", f"dwcpcluster/{cluster.name}", f"--replicas={replicas}", cluster.where
    )


def wait_members(cluster: Cluster, names: list[str], timeout_s: float) -> float:
    """Until exactly these are members, run, and vote; seconds that it took."""
    began = time.monotonic()

    def missing() -> str:
        status = cluster.status()
        now = [m["name"] for m in status.get("members", [])]
        if now != names:
            progress = next(c for c in status["conditions"] if c["type"] == "Progressing")
            return f"members {names}; they are {now}: {progress['message']}"
        if status.get("ready") != f"{len(names)}/{len(names)}":
            return f"all ready, not {status.get('ready')}"
        left = set(cluster.pods()) - set(names)
        return f"the end of {sorted(left)}" if left else ""

    cluster.sandbox.wait_until(missing, timeout_s)
    return time.monotonic() - began


def named(*numbers: int) -> list[str]:
    return [f"moving-{number}" for number in numbers]


def test_it_is_scaled_to_seven_and_back_under_load(cluster: Cluster) -> None:
    with Load(cluster) as load:
        scale(cluster, 7)
        seconds = wait_members(cluster, named(*range(7)), 90)
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note("scaled from 4 to 7 members under load", load.result, f"{seconds:.0f} s")
    assert cluster.condition("Available")["status"] == "True"
    with Load(cluster) as load:
        scale(cluster, 4)
        seconds = wait_members(cluster, named(*range(4)), 90)
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note("scaled from 7 to 4 members under load", load.result, f"{seconds:.0f} s")
    membership = cluster.status()["membership"]
    assert (membership["epoch"], len(membership["used"])) == (2, 7)


def test_a_lost_member_is_replaced_under_another_name(cluster: Cluster, sandbox: Sandbox) -> None:
    claim = f"moving-2-{cluster.status()['clusterId'][:8]}"
    with Load(cluster) as load:
        sandbox.kubectl("delete", "pvc", claim, cluster.where, "--wait=false")
        sandbox.kubectl("delete", "pod", "moving-2", cluster.where)
        seconds = wait_members(cluster, named(0, 1, 7, 3), 90)
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note("volume lost, member replaced, under load", load.result, f"{seconds:.0f} s")
    names = {c["metadata"]["name"] for c in sandbox.get("pvc", cluster.where)["items"]}
    assert claim not in names  # and never made anew
    assert "MembersOrdered" in cluster.events()
