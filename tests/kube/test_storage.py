"""Another StorageClass: members are replaced one after the other by members on its volumes."""

from __future__ import annotations

import json
import time

import pytest

from kube import reliability
from kube.conftest import Make
from kube.load import Load
from kube.product import Cluster
from sandbox import storage
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.e2e, pytest.mark.timeout(400)]

OTHER = "sandbox-other"
NUMBERS = (81, 83, 85, 87)
"""Odd ones are for one Pod; the sandbox's own volumes have lower numbers."""


def test_another_storage_class_replaces_every_member_under_load(
    make: Make, sandbox: Sandbox, image: str
) -> None:
    sandbox.apply({**storage.storage_class(), "metadata": {"name": OTHER}})
    node = sandbox.nodes[0]
    for number in NUMBERS:
        node.volume(number).mkdir(parents=True, exist_ok=True)
        volume = storage.volume(node, number)
        volume["metadata"] = {"name": f"other-{number}"}
        volume["spec"]["storageClassName"] = OTHER
        sandbox.apply(volume)
    cluster = make("moved")
    cluster.wait_all_ready()
    cluster.start_client(image)
    began = time.monotonic()
    with Load(cluster) as load:
        change = json.dumps({"spec": {"storage": {"storageClassName": OTHER}}})
        words = (
            "patch",
            "dwcpcluster",
            "moved",
            cluster.where,
            "--type=merge",
            f"--patch={change}",
        )
        sandbox.kubectl(*words)
        sandbox.wait_until(lambda: lacking(cluster), 180)
    assert load.result is not None
    assert load.result.lost == 0
    seconds = time.monotonic() - began
    reliability.note("moved to another StorageClass under load", load.result, f"{seconds:.0f} s")
    tag = cluster.status()["clusterId"][:8]
    claims = {c["metadata"]["name"]: c for c in sandbox.get("pvc", cluster.where)["items"]}
    for i in (4, 5, 6, 7):
        assert claims[f"moved-{i}-{tag}"]["spec"]["storageClassName"] == OTHER
    assert f"moved-0-{tag}" in claims, "what was left is kept"


def lacking(cluster: Cluster) -> str:
    """What is missing until all are new and vote; who led came last, and so their order varies."""
    status = cluster.status()
    names = set(status["membership"]["names"])
    if names != {f"moved-{i}" for i in (4, 5, 6, 7)}:
        return f"members 4 to 7, not {sorted(names)}"
    left = set(cluster.pods()) - names
    return f"the end of {sorted(left)}" if left else cluster.lacking()
