"""A replica with a damaged log tail signs nothing, but learns, and never stops the others."""

from __future__ import annotations

from dwcp.wire.epochs import FetchEpoch, FetchHistory
from dwcp.wire.peer import Fetch, FetchBodies, FetchElections, Forward, Status
from dwcp_replica.core.effects import Submit, Tick
from dwcp_replica.core.replica import Replica
from replica.core.conversation import WALL_MS, Conversation

UNSIGNED = Status | Fetch | FetchBodies | FetchElections | Forward | FetchEpoch | FetchHistory


def muted(talk: Conversation, member: int) -> None:
    """Start a member again that had to drop its log's tail."""
    talk.replicas[member] = Replica(
        genesis=talk.genesis,
        me=member,
        signer=talk.signers[member],
        verifier=talk.verifier,
        records=talk.records[member][:-1],
        mute="damaged tail",
    )
    talk.executed[member].clear()
    talk._act(member, Tick(talk.now_ms, WALL_MS + talk.now_ms))


def test_it_learns_and_signs_nothing() -> None:
    talk = Conversation(interval=2, timeout_ms=400)
    talk.submit(0, "a", "1")
    talk.deliver()
    muted(talk, 3)
    said = []
    receive = talk.receive
    talk.receive = lambda m, s, msg: (said.append((s, msg)), receive(m, s, msg))[1]  # type: ignore[func-returns-value, misc]
    talk.cut.add((3, 1))  # so that no quorum tells it how far epochs have come
    talk.submit(0, "b", "2")
    talk.wait(2000)
    assert talk.values(3) == [b"1", b"2"]
    mine = [message for sender, message in said if sender == 3]
    assert mine
    assert all(isinstance(message, UNSIGNED) for message in mine), {type(m) for m in mine}


def test_a_mute_primary_is_replaced_and_takes_requests_all_the_same() -> None:
    talk = Conversation(timeout_ms=400)
    talk.submit(0, "a", "1")
    talk.deliver()
    muted(talk, 0)
    talk._act(0, Submit(talk.envelope("b", "2")))
    talk.submit(1, "c", "3")
    talk.wait(3000)
    assert talk.replicas[1].standing().primary != 0
    for member in range(4):
        assert talk.values(member)[0] == b"1"
        assert set(talk.values(member)) == {b"1", b"2", b"3"}
