"""`dwcp backup` and `dwcp recover` on local clusters of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

_MAIN = "from dwcp.cli import main; main()"


def dwcp(*words: object, code: int = 0) -> str:
    command = [sys.executable, "-c", _MAIN, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def manifest(path: Path, **spec: Any) -> Path:
    tree = {
        "apiVersion": "dwcp.dev/v1alpha1",
        "kind": "DWCPCluster",
        "metadata": {"name": "small"},
        "spec": {"checkpointInterval": 10, **spec},
    }
    path.write_text(json.dumps(tree))
    return path


def pids(data: Path) -> dict[str, int]:
    members = json.loads(dwcp("status", "--data", data, "-o", "json"))["members"]
    return {m["name"]: m["pid"] for m in members if m["pid"] is not None}


def test_a_cluster_is_backed_up_restored_and_recovered(tmp_path: Path) -> None:
    old, new, third = tmp_path / "old", tmp_path / "new", tmp_path / "third"
    file = manifest(tmp_path / "first.yaml")
    try:
        dwcp("up", "--detach", "-f", file, "--data", old)
        dwcp("put", "--data", old, "key7", "value7")
        row = json.loads(dwcp("backup", "create", "--data", old, "--to", tmp_path, "-o", "json"))
        backup = Path(row["file"])
        assert "revision 2" in dwcp("backup", "verify", backup, "--data", old)
        assert "not of 0000" in dwcp("backup", "verify", backup, "--genesis", "0" * 64, code=1)
        said = dwcp("recover", "--data", old, "--to", third, code=4)
        assert "which is a quorum" in said
        dwcp("down", "--data", old)

        source = {"file": str(backup), "genesisHash": row["genesis"]}
        file = manifest(tmp_path / "second.yaml", bootstrap={"backup": source})
        dwcp("up", "--detach", "-f", file, "--data", new)
        assert "value7" in dwcp("get", "--data", new, "key7")
        dwcp("put", "--data", new, "after", "restore")

        _lose_two(new)
        said = dwcp("recover", "--data", new, "--to", third, code=1)
        assert "--lose-above" in said
        assert not third.exists()
        index = said.split("--lose-above ")[1].strip()
        dwcp("recover", "--data", new, "--to", third, "--lose-above", index)
        dwcp("down", "--data", new)
        dwcp("up", "--detach", "-f", third / "manifest.yaml", "--data", third)
        assert "restore" in dwcp("get", "--data", third, "after")
        chain = dwcp("verify-chain", "--data", third)
        assert "quorum lost: of small-2, small-3 nothing is known" in chain
    finally:
        for data in (old, new, third):
            if (data / "cluster.json").exists():
                dwcp("down", "--data", data)


def _lose_two(data: Path) -> None:
    """Two members are gone for good, and nobody starts them again."""
    running = pids(data)
    supervisor = json.loads((data / "supervisor.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    for name in ("small-2", "small-3"):
        os.kill(running[name], signal.SIGKILL)
