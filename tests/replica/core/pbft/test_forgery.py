"""What forged, stale or mismatched messages do: nothing but be counted (brief.md, flaws 4-7)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dwcp.wire.envelope import Batch, Envelope, batch_digest
from dwcp.wire.peer import (
    Commit,
    Entry,
    Forward,
    Header,
    PeerMessage,
    Prepare,
    PrePrepare,
    vote_signing_bytes,
)
from dwcp.wire.records import scope_of
from dwcp.wire.signing import digest
from dwcp_replica.core.effects import MessageRefused, Received
from dwcp_replica.sim.crypto import HashSigner
from replica.core.conversation import WALL_MS, Conversation

STRANGER = HashSigner(digest("stranger"))


def refusals(talk: Conversation, member: int, sender: int, message: PeerMessage) -> list[str]:
    """Hand a message over; it must change nothing; the reasons why it was refused."""
    before = talk.replicas[member].standing()
    ready = talk.replicas[member].step(Received(sender, message))
    assert not ready.persist
    assert not ready.send
    assert not ready.apply
    assert talk.replicas[member].standing() == before
    return [event.reason for event in ready.events if isinstance(event, MessageRefused)]


def proposal(
    talk: Conversation,
    signer: HashSigner,
    content: Batch | None = None,
    **changes: int | bytes,
) -> PrePrepare:
    """A proposal for index 1 of view 1, signed by `signer`, with some fields changed."""
    scope = scope_of(talk.genesis, talk.genesis)
    content = content or Batch(WALL_MS + talk.now_ms, (talk.envelope("a", "1"),))
    body = msgspec.msgpack.encode(content)
    header = Header(0, 1, 1, batch_digest(body), talk.genesis.start_hash, bytes(64))
    header = msgspec.structs.replace(header, **changes)  # type: ignore[arg-type]
    sig = signer.sign(header.signing_bytes(scope))
    return PrePrepare(Entry(msgspec.structs.replace(header, sig=sig), body))


def test_forged_pre_prepare_and_ghost_commits_execute_nothing() -> None:
    """The predecessor executed a forged proposal after three commits of members it had not."""
    talk = Conversation()
    forged = proposal(talk, STRANGER)
    assert refusals(talk, 1, 0, forged) == ["signature"]
    scope = scope_of(talk.genesis, talk.genesis)
    header = forged.entry.header
    for ghost in (4, 5, 6):
        sig = STRANGER.sign(vote_signing_bytes(scope, "commit", header))
        assert refusals(talk, 1, 2, Commit(header, ghost, sig)) == ["signature"]
    assert talk.values(1) == []


Change = Callable[[Conversation], PrePrepare]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda t: proposal(t, t.signers[1]), "signature"),
        (lambda t: proposal(t, t.signers[1], epoch=2), "epoch"),
        (lambda t: proposal(t, t.signers[0], index=10_000), "watermark"),
        (lambda t: proposal(t, t.signers[0], prev=digest("elsewhere")), "prev"),
        (lambda t: proposal(t, t.signers[0], batch=digest("other")), "digest"),
        (lambda t: proposal(t, t.signers[0], Batch(WALL_MS + t.now_ms, ())), "empty"),
        (
            lambda t: proposal(t, t.signers[0], Batch(WALL_MS + 9**9, (t.envelope("a", "1"),))),
            "skew",
        ),
        (
            lambda t: proposal(
                t, t.signers[0], Batch(WALL_MS + t.now_ms, (t.envelope("a", "1", STRANGER),))
            ),
            "client",
        ),
        (
            lambda t: proposal(
                t, t.signers[0], Batch(WALL_MS + t.now_ms, (tampered(t.envelope("a", "1")),))
            ),
            "client-signature",
        ),
        (lambda t: proposal(t, t.signers[0], twice(t)), "twice"),
    ],
    ids=[
        "not-the-primary",
        "epoch",
        "beyond-the-high-water-mark",
        "not-on-my-log",
        "body-is-another",
        "empty",
        "from-the-future",
        "unknown-client",
        "altered-envelope",
        "one-envelope-twice",
    ],
)
def test_a_bad_proposal_is_refused(make: Change, reason: str) -> None:
    talk = Conversation()
    assert refusals(talk, 1, 0, make(talk)) == [reason]


def twice(talk: Conversation) -> Batch:
    """Executed twice at one index, an envelope would be answered in two ways by honest members."""
    return Batch(WALL_MS + talk.now_ms, (talk.envelope("a", "1"),) * 2)


def tampered(envelope: Envelope) -> Envelope:
    return msgspec.structs.replace(envelope, body=envelope.body + b"!")


def test_votes_for_another_entry_do_not_add_up() -> None:
    """Two prepares for what the primary proposed, and a forged third for something else."""
    talk = Conversation()
    talk.submit(0, "a", "1")
    sent = talk.step()
    mine = next(m for _, target, m in sent if target == 1)
    assert isinstance(mine, PrePrepare)
    talk.receive(1, 0, mine)
    scope = scope_of(talk.genesis, talk.genesis)
    other = msgspec.structs.replace(mine.entry.header, batch=digest("other"))
    vote = Prepare(other, 2, talk.signers[2].sign(vote_signing_bytes(scope, "prepare", other)))
    assert refusals(talk, 1, 2, vote) == ["header-signature"]
    assert talk.replicas[1].standing().prepared == 0


def test_a_vote_counts_once() -> None:
    """The same commit from one member, many times, is one commit."""
    talk = Conversation()
    talk.submit(0, "a", "1")
    header = next(m for _, _, m in talk.step() if isinstance(m, PrePrepare)).entry.header
    scope = scope_of(talk.genesis, talk.genesis)
    commit = Commit(header, 2, talk.signers[2].sign(vote_signing_bytes(scope, "commit", header)))
    for _ in range(5):
        talk.receive(0, 2, commit)
    assert talk.replicas[0].standing().final == 0


def test_a_prepare_of_the_primary_is_refused() -> None:
    """Its proposal is its vote; a second one would be counted twice."""
    talk = Conversation()
    talk.submit(0, "a", "1")
    header = next(m for _, _, m in talk.step() if isinstance(m, PrePrepare)).entry.header
    scope = scope_of(talk.genesis, talk.genesis)
    sig = talk.signers[0].sign(vote_signing_bytes(scope, "prepare", header))
    assert refusals(talk, 1, 0, Prepare(header, 0, sig)) == ["primary-prepares"]


def test_a_forwarded_forgery_is_refused() -> None:
    talk = Conversation()
    forged = tampered(talk.envelope("a", "1"))
    assert refusals(talk, 0, 1, Forward((forged,))) == ["client-signature"]


def test_two_proposals_for_one_place_convict_the_primary() -> None:
    talk = Conversation()
    first, second = proposal(talk, talk.signers[0]), proposal(talk, talk.signers[0])
    assert first.entry.header.hash() != second.entry.header.hash()
    talk.receive(1, 0, first)
    talk.receive(1, 0, second)
    standing = talk.replicas[1].standing()
    assert [found.member for found in standing.evidence] == [0]
    assert standing.view == 2, "its view is given up at once"
    talk.deliver()
    for replica in talk.replicas[1:]:
        assert [found.member for found in replica.standing().evidence] == [0]
