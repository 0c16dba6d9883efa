"""A stable checkpoint is a quorum of *equal* digests, and never moves back."""

from __future__ import annotations

import pytest

from dwcp.wire.peer import CheckpointVote, vote_signing_bytes
from dwcp.wire.records import scope_of
from dwcp.wire.signing import digest
from dwcp_replica.core.effects import CheckpointStable, Halted, Received, StateDiverged
from replica.core.conversation import Conversation


def vote(talk: Conversation, member: int, state: bytes, index: int) -> CheckpointVote:
    """A member's checkpoint vote for an entry of member 0's log, with any digest."""
    slot = talk.replicas[0]._core.log.slot(index)
    assert slot is not None
    scope = scope_of(talk.genesis, talk.genesis)
    signed = vote_signing_bytes(scope, "checkpoint", slot.header, state)
    return CheckpointVote(slot.header, state, member, talk.signers[member].sign(signed))


def executed_two() -> Conversation:
    """Two entries are final everywhere, and nobody has heard a checkpoint vote yet."""
    talk = Conversation(interval=2)
    for key in "ab":
        talk.submit(0, key, "1")
        while talk.inbox:
            talk.inbox = [m for m in talk.inbox if not isinstance(m[2], CheckpointVote)]
            talk.deliver_once()
    assert all(len(talk.values(member)) == 2 for member in range(4))
    return talk


def test_different_digests_never_become_stable() -> None:
    talk = executed_two()
    for member in (1, 2, 3):
        talk.receive(0, member, vote(talk, member, digest("other", bytes([member])), 2))
    assert talk.replicas[0].standing().stable == 0


def test_a_quorum_of_equal_digests_is_stable() -> None:
    talk = executed_two()
    for member in (1, 2):
        talk.receive(0, member, vote(talk, member, talk.state(0), 2))
    assert talk.replicas[0].standing().stable == 2
    assert talk.replicas[0].standing().stable_state == talk.state(0)


def test_one_member_has_one_vote() -> None:
    talk = executed_two()
    for _ in range(3):
        talk.receive(0, 1, vote(talk, 1, talk.state(0), 2))
    assert talk.replicas[0].standing().stable == 0


def test_a_replica_whose_state_differs_stops_loudly() -> None:
    talk = executed_two()
    other = digest("other")
    events = []
    for member in (1, 2, 3):
        ready = talk.replicas[0].step(Received(member, vote(talk, member, other, 2)))
        events += ready.events
    kinds = [type(event) for event in events]
    assert StateDiverged in kinds
    assert Halted in kinds
    assert not talk.replicas[0].step(Received(1, vote(talk, 1, other, 2)))


def test_stable_checkpoints_only_go_up() -> None:
    talk = Conversation(interval=2)
    stable = []
    for i in range(7):
        talk.submit(0, f"k{i}", "1")
        talk.deliver()
        stable.append(talk.replicas[2].standing().stable)
    assert stable == sorted(stable)
    assert stable[-1] == 6
    old = vote(talk, 1, talk.state(0), 2)
    ready = talk.replicas[2].step(Received(1, old))
    assert not ready


@pytest.mark.parametrize("index", [1, 3])
def test_a_checkpoint_comes_only_where_it_is_due(index: int) -> None:
    talk = Conversation(interval=2)
    for i in range(3):
        talk.submit(0, f"k{i}", "1")
        talk.deliver()
    ready = talk.replicas[2].step(Received(1, vote(talk, 1, talk.state(0), index)))
    assert not any(isinstance(event, CheckpointStable) for event in ready.events)
    assert talk.replicas[2].standing().stable == 2
