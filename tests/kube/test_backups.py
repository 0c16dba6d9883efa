"""Backups onto a volume, on demand and on schedule, and a cluster that begins from one."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kube import reliability
from kube.conftest import Make
from kube.load import Load
from kube.product import Cluster
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.timeout(300)]


def claim(sandbox: Sandbox, namespace: str) -> None:
    sandbox.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "backups", "namespace": namespace},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        }
    )


def take(sandbox: Sandbox, namespace: str, name: str, **spec: Any) -> None:
    sandbox.apply(
        {
            "apiVersion": "dwcp.dev/v1alpha1",
            "kind": "DWCPBackup",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"cluster": "source", "claim": "backups", **spec},
        }
    )


def last_of(sandbox: Sandbox, namespace: str, name: str) -> dict[str, Any]:
    """The newest backup, once there is one."""
    where = (f"--namespace={namespace}",)
    sandbox.wait(f"dwcpbackup/{name}", "--for=condition=Complete", *where, timeout_s=60)
    found: dict[str, Any] = sandbox.get("dwcpbackup", name, *where)["status"]["last"]
    return found


def test_a_backup_under_load_begins_another_cluster(
    make: Make, sandbox: Sandbox, namespace: str, image: str
) -> None:
    """What was acknowledged before the backup began is in the cluster that begins from it."""
    source = make("source")
    claim(sandbox, namespace)
    source.wait_all_ready()
    source.start_client(image)
    source.put("before", "backup")
    with Load(source) as load:
        take(sandbox, namespace, "now")
        last = last_of(sandbox, namespace, "now")
    assert load.result is not None
    assert load.result.lost == 0
    reliability.note("backup taken under load", load.result, f"{last['seconds']} s for the backup")
    assert not sandbox.get("pods", "--selector=dwcp.dev/backup=now", source.where)["items"]
    sandbox.kubectl("delete", "dwcpcluster", "source", source.where)

    began = time.monotonic()
    backup = {"claim": "backups", "file": last["file"], "genesisHash": last["genesisHash"]}
    second = make("second", bootstrap={"backup": backup})
    second.wait_available(90)
    seconds = time.monotonic() - began
    second.wait_all_ready()
    second.start_client(image)
    assert second.get("before") == "backup"
    second.put("after", "restore")
    reliability.note(
        "cluster lost, begun again from a backup", None,
        f"nothing that was acknowledged before the backup began is missing; Available after "
        f"{seconds:.0f} s",
    )  # fmt: skip
    sandbox.wait_until(lambda: served(second), 30)
    assert "Restored" in second.events()


def served(cluster: Cluster) -> str:
    """The Pod that serves the backup goes when all have taken it."""
    selector = f"--selector=dwcp.dev/restore={cluster.name}"
    return ", ".join(
        p["metadata"]["name"] for p in cluster.sandbox.get("pods", selector, cluster.where)["items"]
    )
