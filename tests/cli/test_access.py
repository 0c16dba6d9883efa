"""What clients may do, from the manifest through the log to the members' answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.test_up import Local, cluster
from dwcp import errors
from dwcp.client import Client
from dwcp.identity import Ed25519Signer
from dwcp.wire.operations import Access
from dwcp.wire.records import SignedGenesis

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

__all__ = ["cluster"]  # the fixture

WRITES = [{"client": "web", "read": ["web/"], "write": ["web/"]}]
READS = [{"client": "web", "read": ["web/"]}]


def manifest(path: Path, access: list[dict[str, Any]]) -> str:
    """YAML, of which JSON is a part."""
    tree = {
        "apiVersion": "dwcp.dev/v1alpha1",
        "kind": "DWCPCluster",
        "metadata": {"name": "demo"},
        "spec": {"clients": ["default", "web"], "access": access},
    }
    path.write_text(json.dumps(tree))
    return str(path)


def rights(local: Local) -> dict[str, tuple[str, int]]:
    found = json.loads((local.root / "status.json").read_bytes()).get("access", [])
    return {entry["client"]: (entry["rights"], entry["index"]) for entry in found}


def client_of(local: Local, name: str) -> Client:
    path = local.root / ("client.key" if name == "default" else f"clients/{name}.key")
    genesis = msgspec.msgpack.decode(
        (local.root / "genesis.msgpack").read_bytes(), type=SignedGenesis
    )
    return Client.connect(genesis, Ed25519Signer.load(path))


async def attempt(local: Local, key: str) -> str:
    """Write as the client web; how it ended."""
    async with client_of(local, "web") as client:
        try:
            await client.put(key, "v")
        except errors.Refused as error:
            return str(error)
    return "written"


async def give_everything(local: Local) -> None:
    """As somebody who may does it beside the manifest."""
    async with client_of(local, "default") as client:
        web = Ed25519Signer.load(local.root / "clients/web.key").public_key
        assert isinstance(await client.access(web), Access)
        await client.set_access(web, None)


def test_the_manifest_says_what_clients_may_do(cluster: Local, tmp_path: Path) -> None:
    cluster.ok("up", "-f", manifest(tmp_path / "m.yaml", WRITES), "--detach")
    cluster.wait("rights applied", lambda: "web" in rights(cluster))
    assert rights(cluster)["web"][0] == "read and write web/*"
    assert rights(cluster)["default"][0] == "everything"
    assert asyncio.run(attempt(cluster, "web/a")) == "written"
    assert "permission denied" in asyncio.run(attempt(cluster, "other"))

    cluster.ok("down")
    cluster.ok("up", "-f", manifest(tmp_path / "m.yaml", READS), "--detach")
    cluster.wait("revoked", lambda: rights(cluster).get("web", ("", 0))[0] == "read web/*")
    assert "permission denied" in asyncio.run(attempt(cluster, "web/a"))

    asyncio.run(give_everything(cluster))
    assert asyncio.run(attempt(cluster, "other")) == "written"
    cluster.ok("down")
    cluster.ok("up", "--detach")
    cluster.wait("brought back", lambda: rights(cluster).get("web", ("", 0))[0] == "read web/*")
    assert "permission denied" in asyncio.run(attempt(cluster, "other"))
