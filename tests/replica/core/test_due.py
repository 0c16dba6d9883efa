"""Agreed time goes on though no client asks for anything: an entry is proposed when one is due."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Batch, batch_digest
from dwcp.wire.peer import Entry, Header, PrePrepare
from dwcp.wire.records import scope_of
from dwcp_replica.core.due import GAP_MS
from replica.core.conversation import WALL_MS, Conversation

LEASE_MS = 500


def talk_with_lease() -> Conversation:
    """A put makes a lease of 500 ms, which the first entry from then on ends."""
    talk = Conversation()
    due_ms = WALL_MS + talk.now_ms + LEASE_MS
    talk.next_due = lambda stamp_ms: due_ms if stamp_ms < due_ms else None
    talk.submit(0, "lease", "granted")
    talk.deliver()
    assert [replica.standing().final for replica in talk.replicas] == [1] * 4
    return talk


def test_an_idle_cluster_executes_one_entry_when_one_is_due() -> None:
    talk = talk_with_lease()
    talk.wait(LEASE_MS - 100)
    assert [replica.standing().final for replica in talk.replicas] == [1] * 4
    talk.wait(200)
    assert [replica.standing().final for replica in talk.replicas] == [2] * 4
    talk.wait(2000)
    assert [replica.standing().last for replica in talk.replicas] == [2] * 4, "and no more"
    assert [replica.standing().view for replica in talk.replicas] == [1] * 4


def empty_entry(talk: Conversation, index: int, prev: bytes, stamp_ms: int) -> PrePrepare:
    body = msgspec.msgpack.encode(Batch(stamp_ms, ()))
    header = Header(0, 1, index, batch_digest(body), prev, bytes(64))
    scope = scope_of(talk.genesis, talk.genesis)
    sig = talk.signers[0].sign(header.signing_bytes(scope))
    return PrePrepare(Entry(msgspec.structs.replace(header, sig=sig), body))


def test_a_liar_can_not_fill_the_log_with_nothing() -> None:
    """Empty entries before anything is due, or at once after another one, are refused."""
    talk = talk_with_lease()
    core = talk.replicas[1]._core
    tip = core.log.tip
    granted_ms = core.log.stamp_ms
    talk.said.clear()
    talk.receive(1, 0, empty_entry(talk, 2, tip.hash, granted_ms + LEASE_MS - 1))
    assert core.log.last == 1
    assert any("empty" in line for line in talk.said)
    first = empty_entry(talk, 2, tip.hash, granted_ms + LEASE_MS)
    talk.receive(1, 0, first)
    assert core.log.last == 2
    second = empty_entry(talk, 3, first.entry.header.hash(), granted_ms + LEASE_MS + GAP_MS - 1)
    talk.receive(1, 0, second)
    assert core.log.last == 2


def test_a_primary_that_lets_time_pass_is_replaced() -> None:
    """Its clock stands still: the others wait as long as clocks may differ, and a timeout."""
    talk = talk_with_lease()
    skew_ms = talk.genesis.parameters.max_clock_skew_ms
    talk.clock_behind_ms[0] = 10 * skew_ms
    talk.wait(LEASE_MS + skew_ms)
    assert [replica.standing().view for replica in talk.replicas] == [1] * 4
    talk.wait(2000)
    assert {replica.standing().view for replica in talk.replicas[1:]} == {2}
    assert {replica._core.log.stamp_ms > WALL_MS + skew_ms for replica in talk.replicas} == {True}
