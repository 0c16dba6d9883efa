"""A second look at the start of views and at catch-up; more than one liar where f allows it."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Batch, batch_digest
from dwcp.wire.peer import (
    CheckpointVote,
    Election,
    Entries,
    Entry,
    Fetch,
    Header,
    NewView,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    vote_signing_bytes,
)
from dwcp.wire.records import scope_of
from replica.core.conversation import WALL_MS, Conversation
from replica.core.pbft.test_view_start import Stage


def signed_entry(talk: Conversation, member: int, term: int, index: int, prev: bytes,
                 batch: Batch) -> Entry:  # fmt: skip
    """An entry signed by a member."""
    body = msgspec.msgpack.encode(batch)
    header = Header(0, term, index, batch_digest(body), prev, bytes(64))
    sig = talk.signers[member].sign(header.signing_bytes(scope_of(talk.genesis, talk.genesis)))
    return Entry(msgspec.structs.replace(header, sig=sig), body)


def signed_change(talk: Conversation, member: int, view: int) -> ViewChange:
    """A member's VIEW-CHANGE with an empty log."""
    change = ViewChange(0, view, None, (), None, (), (), member, bytes(64))
    sig = talk.signers[member].sign(change.signing_bytes(scope_of(talk.genesis, talk.genesis)))
    return msgspec.structs.replace(change, sig=sig)


def test_a_refused_new_view_changes_nothing() -> None:
    """n = 7, members 0 and 1 lie. Member 6 has prepared an entry in view 1. It is shown a NEW-VIEW
    for view 2 whose start holds and whose stamp does not: adopt() has replaced its log before the
    stamp is checked, the NEW-VIEW is refused, and it is still active in view 1, without the entry.
    The primary of view 1 proposes another for the same place, and the honest member votes twice.
    """
    talk = Conversation(n=7, timeout_ms=4000)
    talk.down |= {0, 1}
    start, now = talk.genesis.start_hash, WALL_MS + talk.now_ms
    first = signed_entry(talk, 0, 1, 1, start, Batch(now, (talk.envelope("a", "1"),)))
    talk.receive(6, 0, PrePrepare(first))
    changes = {m: signed_change(talk, m, 2) for m in (0, 1)}
    for member in (2, 3, 4):
        talk.receive(member, 0, changes[0])  # the primary resigns: they ask for view 2
    for _, _, message in talk.step():
        if isinstance(message, ViewChange) and message.view == 2:
            changes[message.member] = message
    election = Election(0, 2, tuple(changes[m] for m in range(5)))
    bad = signed_entry(talk, 1, 2, 1, start, Batch(2**60, ()))
    talk.receive(6, 1, NewView(election, bad))
    other = signed_entry(talk, 0, 1, 1, start, Batch(now, (talk.envelope("a", "2"),)))
    talk.step()
    talk.receive(6, 0, PrePrepare(other))
    votes = {m.header.hash() for _, _, m in talk.step() if isinstance(m, Prepare)}
    assert not votes - {first.header.hash()}, "a second vote for one place in one view"
    assert talk.replicas[6]._core.log.hash_at(1) == first.header.hash(), "the log has changed"


def test_a_long_run_by_a_liar_does_not_silence_a_member() -> None:
    """A member cut off for more than a window fetches from the liar, which proves the whole
    run by a commit certificate, far above the member's stable checkpoint, and then resigns. The
    member's VIEW-CHANGE shows more entries of one term than an honest member accepts, is refused
    as "window" by all, and is resent as it is for ever: no quorum without it.
    """
    stage = Stage(liar=0, interval=4, timeout_ms=2000)
    stage.lost = lambda s, t, m: 3 in (s, t)
    prev = stage.genesis.start_hash
    entries: list[Entry] = []
    for index in range(1, 16):
        batch = Batch(WALL_MS + stage.now_ms, (stage.envelope("k", str(index)),))
        entry = stage.entry(1, index, prev, batch)
        prev = entry.header.hash()
        entries.append(entry)
        stage.tell([1, 2], PrePrepare(entry))
        stage.deliver()
        stage.tell([1, 2], stage.commit(entry.header))
        help_checkpoint(stage, entry.header)
        stage.deliver()
    assert stage.replicas[1].standing().final == 15
    certificate = stage.replicas[1]._core.final_certificate
    assert certificate is not None
    assert certificate.kind == "commit"
    stage.lost = lambda s, t, m: t == 3 and isinstance(m, Entries)
    stage.heard.clear()
    status = stage.replicas[1].standing()
    stage.receive(
        3, 0, Status(0, 1, active=True, last=15, prepared=15, final=15, stable=status.stable)
    )
    stage.deliver()
    assert any(isinstance(m, Fetch) for s, m in stage.heard if s == 3)
    stage.receive(3, 0, Entries(tuple(entries), (), certificate, ()))
    stage.tell([1, 2, 3], stage.change(2, ()))
    stage.deliver()
    stage.lost = lambda s, t, m: False
    assert stage.goes_on(60_000)


def help_checkpoint(stage: Stage, header: Header) -> None:
    """The liar signs the checkpoints of members 1 and 2 with them, so that they are stable."""
    state = stage.replicas[1]._core.states.get(header.index)
    if state is not None:
        signed = vote_signing_bytes(stage.scope, "checkpoint", header, state)
        vote = CheckpointVote(header, state, 0, stage.signers[0].sign(signed))
        stage.tell([1, 2], vote)


def test_an_entry_holds_an_envelope_once() -> None:
    """A batch with one envelope twice is refused: a read that is executed twice at one index has
    two answers, and clients take the honest replicas that sign both for liars.
    """
    stage = Stage(liar=0)
    envelope = stage.envelope("a", "1")
    batch = Batch(WALL_MS + stage.now_ms, (envelope, envelope))
    entry = stage.entry(1, 1, stage.genesis.start_hash, batch)
    stage.tell([1, 2, 3], PrePrepare(entry))
    stage.deliver()
    assert stage.replicas[1].standing().last == 0
