"""Changes of members that are interrupted on the way: they go on, and no write is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kube import product, reliability, victims
from kube.conftest import Make
from kube.load import Load
from kube.product import Cluster
from kube.test_members import scale, wait_members
from sandbox import bring_up
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.e2e, pytest.mark.timeout(600)]

AWAY_S = 25.0
"""Longer than the operator's lease: it ends, and another takes over."""


@pytest.fixture(scope="module")
def cluster(make: Make, image: str) -> Cluster:
    made = make("cutoff")
    made.wait_all_ready()
    made.start_client(image)
    return made


def named(count: int) -> list[str]:
    return [f"cutoff-{number}" for number in range(count)]


def joining(cluster: Cluster, count: int) -> str:
    """What is missing until so many are written down as those that are to join."""
    membership = cluster.status().get("membership") or {}
    now = membership.get("joining") or []
    return "" if len(now) == count else f"{count} that join, not {now}"


@contextmanager
def cordoned(sandbox: Sandbox) -> Iterator[None]:
    """No new Pod finds a node."""
    names = [node.name for node in sandbox.nodes]
    sandbox.kubectl("cordon", *names)
    try:
        yield
    finally:
        sandbox.kubectl("uncordon", *names)


def test_pods_that_stay_pending_and_a_killed_operator_only_delay_a_growth(
    cluster: Cluster, sandbox: Sandbox
) -> None:
    with Load(cluster) as load:
        with cordoned(sandbox):
            scale(cluster, 7)
            sandbox.wait_until(lambda: joining(cluster, 3), 30)
            for process in victims.operators():
                process.kill()
            sandbox.wait_until(lambda: pending(cluster, 3), 90)
            assert cluster.status()["membership"]["names"] == named(4)
            assert cluster.condition("Available")["status"] == "True"
        seconds = wait_members(cluster, named(7), 120)
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note(
        "scaled from 4 to 7, Pods pending, operator killed, under load", load.result,
        f"{seconds:.0f} s once Pods found a node",
    )  # fmt: skip


def pending(cluster: Cluster, count: int) -> str:
    found = [n for n, p in cluster.pods().items() if p["status"].get("phase") == "Pending"]
    return "" if len(found) == count else f"{count} pending Pods, not {found}"


def test_an_api_server_that_is_away_only_delays_a_growth(
    cluster: Cluster, sandbox: Sandbox
) -> None:
    """Without load: the client is reached through that API server."""
    cluster.put("before", "the outage")
    scale(cluster, 10)
    sandbox.wait_until(lambda: joining(cluster, 3), 30)
    sandbox.processes.stop("kube-apiserver", grace_s=2.0)
    time.sleep(AWAY_S)
    began = time.monotonic()
    bring_up.up(sandbox, len(sandbox.nodes), product.VOLUMES, [])
    wait_members(cluster, named(10), 240)
    seconds = time.monotonic() - began
    assert cluster.get("before") == "the outage"
    cluster.put("after", "the outage")
    reliability.note(
        "scaled from 7 to 10, API server away on the way", None,
        f"{seconds:.0f} s after it was started again; {AWAY_S:.0f} s away",
    )  # fmt: skip


def test_a_pod_that_does_not_end_holds_nobody_up(cluster: Cluster, sandbox: Sandbox) -> None:
    stuck = ("patch", "pod", "cutoff-8", cluster.where, "--type=merge", "--patch")
    sandbox.kubectl(*stuck, '{"metadata":{"finalizers":["example.com/stuck"]}}')
    with Load(cluster) as load:
        scale(cluster, 4)
        began = time.monotonic()
        sandbox.wait_until(lambda: left(cluster, "cutoff-8"), 120)
        seconds = time.monotonic() - began
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note(
        "scaled from 10 to 4, a Pod does not end, under load", load.result, f"{seconds:.0f} s"
    )
    sandbox.kubectl(*stuck, '{"metadata":{"finalizers":null}}')
    wait_members(cluster, named(4), 60)
    assert len(cluster.status()["membership"]["used"]) == 10


def left(cluster: Cluster, stuck: str) -> str:
    """What is missing until four are members, vote, and only the stuck Pod is left besides."""
    status, pods = cluster.status(), set(cluster.pods())
    if status["membership"]["names"] != named(4) or status.get("ready") != "4/4":
        return f"four members that vote, not {status.get('ready')}"
    found = pods - {*named(4), stuck}
    return f"the end of {sorted(found)}" if found else ""
