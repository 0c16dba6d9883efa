"""A wish becomes a signed request once the cool-down allows it, and says itself again."""

from __future__ import annotations

import msgspec

from dwcp.wire.peer import PeerMessage
from dwcp.wire.records import ModePolicy
from dwcp.wire.switch import SwitchRequest
from dwcp_replica.core.effects import Tick
from dwcp_replica.core.epochs.cooldown import FIRST_MS, NORMAL_MS
from dwcp_replica.core.epochs.wishing import Wish, first_protocol
from dwcp_replica.core.replica import Replica
from replica.core.conversation import Conversation


def asked(replica: Replica, wish: Wish) -> list[PeerMessage]:
    return [
        out.message for out in replica.step(wish).send if isinstance(out.message, SwitchRequest)
    ]


def a_member() -> Replica:
    replica = Conversation(4).replicas[1]
    replica.step(Tick(1000, 1_700_000_000_000))
    return replica


def test_a_wish_for_another_protocol_is_signed_and_repeated_as_it_is() -> None:
    replica = a_member()
    first = asked(replica, Wish("raft", "pbft"))
    assert [m.protocol for m in first if isinstance(m, SwitchRequest)] == ["raft"]
    assert asked(replica, Wish("raft", "pbft")) == first


def test_a_wish_for_what_runs_asks_for_nothing() -> None:
    assert asked(a_member(), Wish("pbft", "pbft")) == []


def runs(talk: Conversation) -> set[str]:
    return {replica.standing().record.protocol for replica in talk.replicas}


def in_raft_by_wish() -> Conversation:
    talk = Conversation(modes=ModePolicy(detect=True))
    talk.wish(range(4), "raft", "pbft")
    talk.wait(500)
    assert runs(talk) == {"raft"}
    return talk


def test_a_switch_that_a_laggard_did_not_wish_for_is_no_fail_over() -> None:
    """Two ask for PBFT; the others had wished for Raft last, and may all go back at once."""
    talk = in_raft_by_wish()
    talk.wish((0, 1), "pbft", "raft")
    talk.wait(500)
    assert runs(talk) == {"pbft"}
    talk.wish((2, 3), "raft", "pbft")
    talk.wait(500)
    assert runs(talk) == {"raft"}


def test_after_a_fail_over_the_way_back_is_longer_each_time() -> None:
    talk = in_raft_by_wish()
    for wait_ms in (FIRST_MS, 2 * FIRST_MS):
        talk.alarm(1)
        talk.alarm(2)
        talk.wait(500)
        assert runs(talk) == {"pbft"}
        talk.wish(range(4), "raft", "raft")
        talk.wait(wait_ms - 2000)
        talk.wish(range(4), "raft", "raft")
        talk.wait(500)
        assert runs(talk) == {"pbft"}, "too early"
        talk.wait(2000)
        talk.wish(range(4), "raft", "raft")
        talk.wait(500)
        assert runs(talk) == {"raft"}


def test_who_is_pinned_to_the_first_protocol_goes_back_and_no_sooner_than_its_cool_down() -> None:
    """Two of four are, so that the others' wishes could move the cluster to and fro for ever."""
    talk = in_raft_by_wish()
    record = talk.replicas[0].standing().record
    wish = first_protocol(talk.genesis, record)
    assert wish == Wish("pbft", "pbft", patient=True)
    for member in (0, 1):
        assert asked(talk.replicas[member], wish) == [], "the cluster has just switched"
    talk.wait(NORMAL_MS)
    for member in (0, 1):
        talk.wish([member], "pbft", "pbft", patient=True)
    talk.wait(500)
    assert runs(talk) == {"pbft"}
    record = talk.replicas[0].standing().record
    assert first_protocol(talk.genesis, record) is None
    held = msgspec.structs.replace(record, protocol="raft", forced="raft")
    assert first_protocol(talk.genesis, held) is None, "what the admin holds stands above"
