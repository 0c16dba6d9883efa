"""A DWCPBackup against the stand-in of the API server: attempts, results, failures, permits."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from dwcp.identity import Ed25519Signer
from dwcp.wire.backup import Permit
from dwcp_operator.act.backups import BackupReconciler
from dwcp_operator.act.execute import Settings
from dwcp_operator.act.writer import Writer
from dwcp_operator.build import secrets as build
from dwcp_operator.build.pod import PodSettings
from kube.apiserver import ApiServer, now, serving
from kube.subjects import resource, subject
from replica.waiting import in_loop

GENESIS = "ab" * 32
ADMIN = Ed25519Signer.generate()
TAKEN = {
    "file": "/backup/demo-1.dwcpbackup", "genesis": GENESIS, "epoch": 0, "index": 7,
    "revision": 3, "bytes": 900, "seconds": 0.25,
}  # fmt: skip


def backup(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "dwcp.dev/v1alpha1",
        "kind": "DWCPBackup",
        "metadata": {"name": "nightly", "namespace": "shop", "uid": "u1", "generation": 1},
        "spec": {"cluster": "demo", "claim": "backups", **spec},
    }


def loop(api: Any) -> BackupReconciler:
    writer = Writer(api, lambda: None)
    return BackupReconciler(writer, Settings(PodSettings("dwcp:1")), "shop", "nightly")


def begun(server: ApiServer) -> None:
    """A cluster with its keys and its genesis published."""
    cluster = {**resource(), "status": {"genesisHash": GENESIS}}
    server.put("dwcpclusters", cluster)
    server.put("secrets", build.admin(subject(), ADMIN.seed))
    server.put("secrets", build.client(subject(), "default", {}))


def status(server: ApiServer) -> dict[str, Any]:
    found = server.objects["dwcpbackups", "shop", "nightly"].get("status", {})
    assert isinstance(found, dict)
    return found


def end(server: ApiServer, phase: str, said: str) -> None:
    """The attempt's Pod ends."""
    (name,) = server.names("pods")
    pod = server.objects["pods", "shop", name]
    state = {"terminated": {"message": said, "exitCode": 0}}
    pod["status"] = {"phase": phase, "containerStatuses": [{"state": state}]}


@in_loop
async def test_one_backup_is_taken_once_and_told() -> None:
    async with serving() as (server, api):
        begun(server)
        server.put("dwcpbackups", backup())
        work = loop(api)
        await work.round()
        (name,) = server.names("pods")
        pod = server.objects["pods", "shop", name]
        assert "dwcp.dev/cluster" not in pod["metadata"]["labels"]  # it is no member
        mounted = {v.get("secret", {}).get("secretName") for v in pod["spec"]["volumes"]}
        assert mounted == {None, "demo-client", name}  # and never the admin's key
        shown = build.data_of(server.objects["secrets", "shop", name])["permit"]
        permit = msgspec.msgpack.decode(shown, type=Permit)
        assert 0 < permit.expires_ms / 1000 - time.time() <= 900
        await work.round()
        assert server.names("pods") == {name}
        end(server, "Succeeded", json.dumps(TAKEN))
        await work.round()
        assert not server.names("pods")
        assert name not in server.names("secrets")
        last = status(server)["last"]
        assert (last["file"], last["revision"]) == ("demo-1.dwcpbackup", 3)
        (condition,) = status(server)["conditions"]
        assert (condition["status"], condition["reason"]) == ("True", "Taken")
        writes = len(server.writes)
        for _ in range(3):
            await work.round()
        assert len(server.writes) == writes


@pytest.mark.parametrize(
    ("phase", "said", "why"),
    [
        ("Failed", json.dumps({"error": "no member answers"}), "no member answers"),
        ("Failed", "Traceback", "Traceback"),
        ("Succeeded", json.dumps({"file": "x"}), "says nothing"),
        ("Failed", "[]", "says nothing"),
    ],
)
@in_loop
async def test_a_failed_attempt_is_told_and_made_again(phase: str, said: str, why: str) -> None:
    async with serving() as (server, api):
        begun(server)
        server.put("dwcpbackups", backup(every="3600s"))
        work = loop(api)
        await work.round()
        end(server, phase, said)
        await work.round()
        (condition,) = status(server)["conditions"]
        assert condition["reason"] == "Failed"
        assert why in condition["message"]
        assert status(server)["failures"] == 1
        delay_s = await work.round()
        assert delay_s is not None
        assert 5 < delay_s <= 10
        status(server)["triedAt"] = "2026-01-01T00:00:00Z"
        await work.round()
        assert len(server.names("pods")) == 1


@in_loop
async def test_what_is_missing_is_said_and_nothing_is_made() -> None:
    async with serving() as (server, api):
        server.put("dwcpbackups", backup())
        work = loop(api)
        await work.round()
        assert "there is no DWCPCluster demo" in status(server)["conditions"][0]["message"]
        server.put("dwcpclusters", resource())
        await work.round()
        assert "has not begun yet" in status(server)["conditions"][0]["message"]
        begun(server)
        damaged = build.admin(subject(), ADMIN.seed)
        damaged["data"] = {"admin.key": "eHg="}
        server.put("secrets", damaged)
        await work.round()
        assert "holds no key" in status(server)["conditions"][0]["message"]
        assert not server.names("pods")


@in_loop
async def test_a_suspended_backup_is_not_taken() -> None:
    async with serving() as (server, api):
        begun(server)
        server.put("dwcpbackups", backup(suspend=True))
        await loop(api).round()
        assert not server.names("pods")
        assert status(server)["observedGeneration"] == 1


@in_loop
async def test_a_pod_that_never_begins_is_given_up() -> None:
    async with serving() as (server, api):
        begun(server)
        server.put("dwcpbackups", backup())
        work = loop(api)
        await work.round()
        (name,) = server.names("pods")
        pod = server.objects["pods", "shop", name]
        assert pod["metadata"]["creationTimestamp"] <= now()
        pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
        unbound = {"type": "PodScheduled", "status": "False", "message": "claim not found"}
        pod["status"] = {"phase": "Pending", "conditions": [unbound]}
        await work.round()
        assert "claim not found" in status(server)["conditions"][0]["message"]
        assert not server.names("pods")
