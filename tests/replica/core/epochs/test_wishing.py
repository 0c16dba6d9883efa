"""A wish becomes a signed request once the cool-down allows it, and says itself again."""

from __future__ import annotations

from dwcp.wire.peer import PeerMessage
from dwcp.wire.switch import SwitchRequest
from dwcp_replica.core.effects import Tick
from dwcp_replica.core.epochs.wishing import Wish
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
    first = asked(replica, Wish("raft"))
    assert [m.protocol for m in first if isinstance(m, SwitchRequest)] == ["raft"]
    assert asked(replica, Wish("raft")) == first


def test_a_wish_for_what_runs_asks_for_nothing() -> None:
    assert asked(a_member(), Wish("pbft")) == []
