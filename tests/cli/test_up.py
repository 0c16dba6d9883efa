"""`dwcp up`, `status` and `down` with real members on the loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from dwcp.wire.records import SignedGenesis

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
MEMBER_KEYS = {"name", "id", "role", "mode", "endpoint", "pid", "appliedIndex", "ready"}


class Local:
    """One cluster, through the command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = [sys.executable, "-c", "from dwcp.cli import main; main()"]

    def dwcp(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *command.split(), "--data", str(self.root), *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def ok(self, command: str, *arguments: str) -> str:
        done = self.dwcp(command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        tree: dict[str, Any] = json.loads(self.ok("status", "-o", "json"))
        return tree

    def pids(self) -> dict[str, int | None]:
        return {m["name"]: m["pid"] for m in self.status()["members"]}

    def condition(self, kind: str) -> dict[str, str]:
        conditions: list[dict[str, str]] = self.status()["conditions"]
        return next(c for c in conditions if c["type"] == kind)

    def wait(self, what: str, holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            log = (self.root / "supervisor.log").read_text()[-3000:]
            assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}\n{log}"
            time.sleep(0.1)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Local]:
    local = Local(tmp_path / "d")
    yield local
    if (local.root / "cluster.json").exists():
        local.ok("down")


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_up_status_down_and_up_again_keeps_the_data(cluster: Local) -> None:
    out = cluster.ok("up", "-f", str(MANIFEST), "--detach")
    assert "Available" in out
    tree = cluster.status()
    assert {"cluster", "mode", "epoch", "view", "primary", "conditions", "members"} <= tree.keys()
    assert (tree["cluster"], tree["mode"], tree["epoch"]) == ("quickstart", "Internet", 0)
    assert tree["primary"] in {m["name"] for m in tree["members"]}
    assert all(m.keys() >= MEMBER_KEYS and m["ready"] for m in tree["members"])
    assert [m["role"] for m in tree["members"]].count("primary") == 1
    assert not any((cluster.root / "tokens").iterdir()), "tokens are for one time"

    again = cluster.dwcp("up", "-f", str(MANIFEST), "--detach")
    assert again.returncode == 1
    assert "already running" in again.stderr

    cluster.ok("put", "colour", "blue")
    pids = [pid for pid in cluster.pids().values() if pid is not None]
    began = time.monotonic()
    stopped = cluster.ok("down")
    assert time.monotonic() - began < 12
    assert len(pids) == 4
    assert all(f"(pid {pid}) stopped" in stopped for pid in pids)
    assert not any(alive(pid) for pid in pids)
    assert "nothing runs" in cluster.ok("down")
    assert {m["role"] for m in cluster.status()["members"]} == {"stopped"}

    genesis = (cluster.root / "genesis.msgpack").read_bytes()
    cluster.ok("up", "--detach")
    assert (cluster.root / "genesis.msgpack").read_bytes() == genesis
    assert "blue" in cluster.ok("get", "colour")


def test_a_restart_takes_the_members_one_at_a_time_and_the_primary_last(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("put", "colour", "blue")
    before, status = cluster.pids(), cluster.status()
    out = cluster.ok("restart")
    assert "All 4 members were restarted" in out
    after = cluster.pids()
    assert all(after[name] not in (None, pid) for name, pid in before.items())
    log = (cluster.root / "supervisor.log").read_text().splitlines()
    told = [line.split(" ", 1)[1] for line in log]
    order = [line.split()[0] for line in told if "is restarted" in line]
    assert sorted(order) == sorted(before), "\n".join(log)
    assert order[-1] == status["primary"]
    steps = [line for line in told if "is restarted" in line or "started (pid" in line]
    rolled = steps[-8:]
    assert ["is restarted" in line for line in rolled] == [True, False] * 4, "one at a time"
    assert "blue" in cluster.ok("get", "colour")
    assert cluster.status()["view"] == status["view"] + 1, "the lead moves once"


def test_a_restart_without_a_supervisor_says_what_to_do(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("down")
    refused = cluster.dwcp("restart")
    assert refused.returncode == 1
    assert "dwcp up" in refused.stderr


def test_a_killed_member_is_started_again(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    victim, pid = next(iter(cluster.pids().items()))
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    cluster.ok("put", "still", "writing")

    def back() -> bool:
        member = next(m for m in cluster.status()["members"] if m["name"] == victim)
        return bool(member["ready"]) and member["pid"] not in (None, pid)

    cluster.wait(f"{victim} ready again", back)
    log = (cluster.root / "supervisor.log").read_text()
    assert f"{victim} stopped (signal 9)" in log


def test_a_new_supervisor_takes_over_the_members_of_a_killed_one(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    before = cluster.pids()
    supervisor = json.loads((cluster.root / "supervisor.json").read_text())["pid"]
    os.kill(supervisor, signal.SIGKILL)
    cluster.wait(
        "no supervisor", lambda: cluster.condition("Progressing")["reason"] == "NotSupervised"
    )
    cluster.ok("up", "--detach")
    assert cluster.pids() == before, "members run on, none is started twice"


def test_members_without_a_supervisor_are_stopped_too(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    pids = [pid for pid in cluster.pids().values() if pid is not None]
    os.kill(json.loads((cluster.root / "supervisor.json").read_text())["pid"], signal.SIGKILL)
    assert "stopped" in cluster.ok("down")
    assert not any(alive(pid) for pid in pids)


def test_a_lost_volume_is_never_made_anew(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("put", "colour", "blue")
    cluster.ok("down")
    volume = cluster.root / "members" / "quickstart-2"
    volume.rename(cluster.root / "lost")
    cluster.ok("up", "--detach")
    lost = cluster.condition("Degraded")
    assert (lost["status"], lost["reason"]) == ("True", "VolumeLost")
    assert "quickstart-2" in lost["message"]
    assert cluster.pids()["quickstart-2"] is None
    assert not volume.exists()
    assert "blue" in cluster.ok("get", "colour"), "three of four go on"
    (cluster.root / "lost").rename(volume)
    cluster.wait("all ready", lambda: cluster.condition("Degraded")["status"] == "False")


def test_a_lost_genesis_is_taken_over_from_the_members(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("put", "colour", "blue")
    before = (cluster.root / "genesis.msgpack").read_bytes()
    cluster.ok("down")
    (cluster.root / "genesis.msgpack").unlink()
    (cluster.root / "genesis-record.msgpack").unlink()
    cluster.ok("up", "--detach")
    assert (cluster.root / "genesis.msgpack").read_bytes() == before
    assert "blue" in cluster.ok("get", "colour")
    assert "genesis record taken over from" in (cluster.root / "supervisor.log").read_text()


def test_a_genesis_that_lacks_signatures_is_never_made_twice(cluster: Local) -> None:
    """One member has signed; the operator has lost its record: the member's copy counts."""
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("down")
    complete = (cluster.root / "genesis.msgpack").read_bytes()
    for path in ("genesis.msgpack", "genesis-record.msgpack"):
        (cluster.root / path).unlink()
    signed = msgspec.msgpack.decode(complete, type=SignedGenesis)
    alone = msgspec.structs.replace(signed, member_sigs=(b"", signed.member_sigs[1], b"", b""))
    for i in range(4):
        stored = cluster.root / "members" / f"quickstart-{i}" / "genesis.msgpack"
        if i == 1:
            stored.write_bytes(msgspec.msgpack.encode(alone))
        else:
            stored.unlink()
            shutil.rmtree(stored.parent / "wal")
            (stored.parent / "wal").mkdir()
    cluster.ok("up", "--detach")
    again = msgspec.msgpack.decode(
        (cluster.root / "genesis.msgpack").read_bytes(), type=SignedGenesis
    )
    assert again.record == signed.record


def test_a_change_that_is_not_supported_is_refused(cluster: Local, tmp_path: Path) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("down")
    seven = tmp_path / "seven.yaml"
    seven.write_text(MANIFEST.read_text().replace("replicas: 4", "replicas: 7"))
    refused = cluster.dwcp("up", "-f", str(seven), "--detach")
    assert refused.returncode == 1
    assert "start it as it was, then use `dwcp scale" in refused.stderr
    assert set(cluster.pids().values()) == {None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_stops_its_members_on_a_signal(
    cluster: Local, number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [*cluster.command, "up", "-f", str(MANIFEST), "--data", str(cluster.root)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 60
        while "Available. Try" not in out.read_text():
            assert process.poll() is None, out.read_text()
            assert time.monotonic() < deadline, out.read_text()
            time.sleep(0.1)
        pids = [pid for pid in cluster.pids().values() if pid is not None]
        assert len(pids) == 4
        process.send_signal(number)
        assert process.wait(15) == 0, out.read_text()
        assert not any(alive(pid) for pid in pids)
        assert "all members stopped" in out.read_text()
    finally:
        process.kill()
        process.wait(10)


def test_a_cluster_that_can_not_start_fails_with_its_log(cluster: Local) -> None:
    cluster.ok("up", "-f", str(MANIFEST), "--detach")
    cluster.ok("down")
    for i in (1, 2):
        (cluster.root / "members" / f"quickstart-{i}" / "identity.key").unlink()
    failed = cluster.dwcp("up", "--detach", "--timeout", "10s")
    assert failed.returncode == 1
    assert "was not available within 10 s" in failed.stderr
    assert "quickstart-1 stopped (exit code 78)" in failed.stderr
    assert "lost-identity" in failed.stderr
    assert set(cluster.pids().values()) == {None}, "what was started is stopped"
