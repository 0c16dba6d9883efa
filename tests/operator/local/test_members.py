"""What the supervisor remembers of members' processes between two looks."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from dwcp_operator.features import Features
from dwcp_operator.local import ports
from dwcp_operator.local.layout import ClusterFile, Layout, open_layout, prepare
from dwcp_operator.local.members import Members
from dwcp_operator.local.observe import Run
from dwcp_operator.manifest import load_manifest

MANIFEST = load_manifest(
    "apiVersion: dwcp.dev/v1alpha1\nkind: DWCPCluster\nmetadata: {name: demo}\nspec: {}\n"
)


@pytest.fixture
def local(tmp_path: Path) -> tuple[Layout, ClusterFile]:
    layout, lock = prepare(tmp_path / "d", MANIFEST)
    lock.release()
    return layout, open_layout(layout.root)[1]


def ended(members: Members, name: str) -> Run:
    deadline = time.monotonic() + 30
    while (run := members.runs()[name]).running:
        assert time.monotonic() < deadline, "it did not end"
        time.sleep(0.02)
    return run


def test_a_member_without_a_volume_is_not_to_be_started_again(
    local: tuple[Layout, ClusterFile],
) -> None:
    """The replica itself says so, with exit code 78; its own words are told."""
    layout, cluster = local
    said: list[str] = []
    members = Members(layout, cluster, said.append, Features())
    members.start(cluster.members[0], strategy=None)
    run = ended(members, "demo-0")
    assert (run.attempts, run.last_exit) == (1, 78)
    assert any(line.startswith("demo-0 stopped (exit code 78)") for line in said)
    assert any(line.startswith("demo-0 said: ") for line in said)
    assert not members.any_running()


def test_a_strategy_is_passed_on_only_when_it_is_asked_for(
    local: tuple[Layout, ClusterFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, cluster = local
    said: list[str] = []
    members = Members(layout, cluster, said.append, Features())
    members.start(cluster.members[1], strategy="no-such-strategy")
    assert ended(members, "demo-1").last_exit == 78
    assert any("test strategy no-such-strategy" in line for line in said)
    assert "there is no test strategy" in layout.log("demo-1").read_text()


def test_a_taken_port_counts_as_a_failed_start(local: tuple[Layout, ClusterFile]) -> None:
    layout, cluster = local
    said: list[str] = []
    members = Members(layout, cluster, said.append, Features())
    member = cluster.members[2]
    with socket.socket() as thief:
        thief.bind((ports.LOOPBACK, member.peer_port))
        thief.listen()
        members.start(member, strategy=None)
    run = members.runs()["demo-2"]
    assert (run.running, run.attempts, run.last_exit) == (False, 1, None)
    assert said == [
        f"demo-2 can not start: port {member.peer_port} is taken by another process: stop it"
    ]


def test_attempts_begin_anew_after_a_steady_time(
    local: tuple[Layout, ClusterFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, cluster = local
    members = Members(layout, cluster, lambda _: None, Features())
    members.start(cluster.members[0], strategy=None)
    assert ended(members, "demo-0").attempts == 1
    members.note_ready("demo-0", ready=True)
    members.note_ready("demo-0", ready=True)
    assert members.runs()["demo-0"].attempts == 1, "ready, but not for long"
    monkeypatch.setattr("dwcp_operator.local.members.STEADY_S", 0.0)
    members.note_ready("demo-0", ready=True)
    assert members.runs()["demo-0"].attempts == 0
