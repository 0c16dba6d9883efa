"""What a follower takes from a leader, and what it does not (epochs.md, ACK and CERT-ACK)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from dwcp.wire.envelope import Batch, batch_digest
from dwcp.wire.epochs import Seal
from dwcp.wire.peer import (
    Append,
    Appended,
    Certificate,
    Commit,
    Entry,
    Equivocation,
    Header,
    PeerMessage,
    Prepare,
    PrePrepare,
    VoteCertificate,
    VoteSig,
)
from dwcp.wire.records import scope_of
from dwcp_replica.core.effects import (
    EpochSealed,
    EvidenceFound,
    Learners,
    MessageRefused,
    Received,
    Tick,
)
from dwcp_replica.core.replica import Replica
from dwcp_replica.sim.crypto import HashSigner
from replica.core.conversation import WALL_MS, Conversation


def cluster(n: int = 4) -> Conversation:
    talk = Conversation(n=n, protocol="raft")
    talk.submit(0, "a", "1")
    talk.deliver()
    return talk


def entry(talk: Conversation, signer: int, **changes: int | bytes) -> Entry:
    """An entry that follows the leader's first one, with some fields changed, signed."""
    below = talk.replicas[0]._core.log.tip
    body = msgspec.msgpack.encode(Batch(WALL_MS + talk.now_ms, (talk.envelope("b", "2"),)))
    header = Header(0, 1, below.index + 1, batch_digest(body), below.hash, bytes(64))
    header = msgspec.structs.replace(header, **changes)  # type: ignore[arg-type]
    scope = scope_of(talk.genesis, talk.genesis)
    sig = talk.signers[signer].sign(header.signing_bytes(scope))
    return Entry(msgspec.structs.replace(header, sig=sig), body)


def append(talk: Conversation, *entries: Entry, **changes: object) -> Append:
    """The leader's message with these entries."""
    below = talk.replicas[0]._core.log.tip
    message = Append(0, 1, below.index, below.term, below.hash, entries)
    return msgspec.structs.replace(message, **changes)  # type: ignore[arg-type]


def refusals(talk: Conversation, member: int, sender: int, message: PeerMessage) -> list[str]:
    """Hand a message over: nothing may be written, acked or executed because of it."""
    before = talk.replicas[member].standing()
    ready = talk.replicas[member].step(Received(sender, message))
    assert not ready.persist
    assert not ready.apply
    assert all(isinstance(out.message, Appended) for out in ready.send)
    assert talk.replicas[member].standing() == before
    return [event.reason for event in ready.events if isinstance(event, MessageRefused)]


LIES: dict[str, tuple[Callable[[Conversation], Append], str]] = {
    "another member's signature": (lambda t: append(t, entry(t, 2)), "signature"),
    "another body": (
        lambda t: append(t, Entry(entry(t, 0).header, msgspec.msgpack.encode(Batch(1, ())))),
        "digest",
    ),
    "a gap": (lambda t: append(t, entry(t, 0, index=3)), "link"),
    "another chain": (lambda t: append(t, entry(t, 0, prev=bytes(32))), "link"),
    "another term": (lambda t: append(t, entry(t, 0, term=5)), "not-an-extension"),
    "another epoch": (lambda t: append(t, epoch=2), "epoch"),
    "an entry of another epoch": (lambda t: append(t, entry(t, 0, epoch=1)), "signature"),
}


@pytest.mark.parametrize("what", LIES)
def test_what_does_not_hold_changes_nothing(what: str) -> None:
    talk = cluster()
    make, reason = LIES[what]
    assert refusals(talk, 1, 0, make(talk)) == [reason]


def test_who_does_not_lead_is_not_followed() -> None:
    talk = cluster()
    assert refusals(talk, 1, 2, append(talk, entry(talk, 0))) == ["not-its-term"]
    assert refusals(talk, 1, 2, append(talk, entry(talk, 2, term=3), term=3)) == ["no-election"]


def certificate(talk: Conversation, voters: int, forged: int = 0) -> VoteCertificate:
    """Votes for member 2 in term 3, of that many members; the last ones forged."""
    tip = talk.replicas[2]._core.log.tip
    scope = scope_of(talk.genesis, talk.genesis)
    unsigned = VoteCertificate(0, 3, tip.term, tip.index, tip.hash, ())
    message = unsigned.signing_bytes(scope)
    votes = [VoteSig(m, talk.signers[m].sign(message)) for m in range(voters - forged)]
    votes += [VoteSig(voters - 1 - k, bytes(64)) for k in reversed(range(forged))]
    return msgspec.structs.replace(unsigned, votes=tuple(votes))


@pytest.mark.parametrize(
    ("voters", "forged", "reason"), [(2, 0, "quorum"), (4, 0, "quorum"), (3, 1, "signature")]
)
def test_a_certificate_of_too_few_votes_elects_nobody(
    voters: int, forged: int, reason: str
) -> None:
    talk = cluster()
    shown = (certificate(talk, voters, forged),)
    lie = append(talk, entry(talk, 2, term=3), term=3, elections=shown)
    assert refusals(talk, 1, 2, lie) == [reason, "no-election"]


def test_a_term_begins_with_an_empty_entry_on_what_the_votes_bind() -> None:
    talk = cluster()
    elected = (certificate(talk, 3),)
    full = append(talk, entry(talk, 2, term=3), term=3, elections=elected)
    ready = talk.replicas[1].step(Received(2, full))
    assert [e.reason for e in ready.events if isinstance(e, MessageRefused)] == ["not-empty"]
    lower = talk.genesis.start_hash
    first = entry(talk, 2, term=3, index=1, prev=lower)
    unbound = append(
        talk, first, term=3, elections=elected, prev_index=0, prev_term=0, prev_hash=lower
    )
    ready = talk.replicas[1].step(Received(2, unbound))
    assert [e.reason for e in ready.events if isinstance(e, MessageRefused)] == ["start"]
    assert not ready.persist


def test_two_entries_for_one_place_convict_the_leader() -> None:
    talk = cluster()
    first, second = entry(talk, 0), entry(talk, 0)
    assert first.header.hash() != second.header.hash()
    talk.receive(1, 0, append(talk, first))
    ready = talk.replicas[1].step(Received(0, append(talk, second)))
    told = [type(out.message) for out in ready.send if out.to < 0]
    assert told == [Equivocation, Equivocation, Seal], "the proof, and with it the end"
    assert [e.member for e in ready.events if isinstance(e, EvidenceFound)] == [0]
    assert any(isinstance(event, EpochSealed) for event in ready.events)
    assert not any(isinstance(out.message, Prepare) for out in ready.send)
    third = append(talk, entry(talk, 0), prev_index=2, prev_hash=first.header.hash())
    ready = talk.replicas[1].step(Received(0, third))
    assert not ready, "nothing is signed in a sealed epoch"


def test_a_certificate_without_a_quorum_is_not_cert_acked() -> None:
    talk = Conversation(protocol="raft")
    talk.submit(0, "a", "1")
    talk.deliver_once()
    acks = [m for _, _, m in talk.step() if isinstance(m, Prepare)]
    header = acks[0].header
    genuine = tuple(VoteSig(ack.member, ack.sig) for ack in acks[:2])
    for votes in (genuine[:1], (genuine[0], genuine[0]), (genuine[0], VoteSig(3, bytes(64)))):
        shown = (Certificate("prepare", header, b"", votes),)
        lie = Append(0, 1, 1, 1, header.hash(), (), shown)
        assert refusals(talk, 1, 0, lie) == ["certificate"]
        final = (Certificate("commit", header, b"", votes),)
        assert refusals(talk, 1, 0, msgspec.structs.replace(lie, certificates=final)) == [
            "certificate"
        ]
    talk.receive(1, 0, Append(0, 1, 1, 1, header.hash(), (), (
        Certificate("prepare", header, b"", genuine),
    )))  # fmt: skip
    assert [type(m) for _, to, m in talk.inbox if to == 0] == [Commit]


def test_a_certificate_of_entries_that_are_not_here_is_not_cert_acked() -> None:
    talk = Conversation(protocol="raft")
    talk.cut.add((0, 1))
    talk.submit(0, "a", "1")
    talk.deliver()
    cc = talk.replicas[0]._core.cc
    assert cc is not None
    ready = talk.replicas[1].step(
        Received(0, Append(0, 1, 0, 0, talk.genesis.start_hash, (), (cc,)))
    )
    assert not ready.persist
    assert not any(isinstance(out.message, Commit) for out in ready.send)


def test_votes_count_for_the_leader_of_the_term_only() -> None:
    talk = cluster()
    ack = Prepare(entry(talk, 0).header, 3, bytes(64))
    assert refusals(talk, 2, 3, ack) == ["term"]
    assert refusals(talk, 0, 3, ack) == ["signature"]
    own = msgspec.structs.replace(ack, member=0)
    assert refusals(talk, 0, 3, own) == ["primary-prepares"]


def test_messages_of_the_other_protocol_are_refused() -> None:
    talk = cluster()
    assert refusals(talk, 1, 0, PrePrepare(entry(talk, 0))) == ["protocol"]
    assert refusals(Conversation(), 1, 0, append(talk, entry(talk, 0))) == ["protocol"]


def test_a_learner_receives_and_is_not_counted() -> None:
    """It signs nothing, executes what is final, and stands in no quorum."""
    talk = Conversation(protocol="raft")
    learner = Replica(
        genesis=talk.genesis,
        me=4,
        signer=HashSigner(bytes(32)),
        verifier=talk.verifier,
        mute="learner",
        draw=talk.dice[0].randrange,
    )
    learner.step(Tick(talk.now_ms, WALL_MS + talk.now_ms))
    talk.replicas[0].step(Learners(frozenset({4})))
    executed: list[int] = []
    said: set[type] = set()

    def exchange() -> None:
        for source, target, message in talk.step():
            if target < talk.n and target not in talk.down:
                talk.receive(target, source, message)
            elif target == 4:
                ready = learner.step(Received(source, message))
                executed.extend(one.header.index for one in ready.apply)
                said.update(type(out.message) for out in ready.send)
                for out in ready.send:
                    talk.receive(0, 4, out.message)

    talk.submit(0, "a", "1")
    for _ in range(8):
        exchange()
    assert executed == [1]
    talk.down |= {2, 3}
    talk.submit(0, "b", "2")
    for _ in range(8):
        exchange()
    assert talk.replicas[0]._core.raft.progress[4].match == 2
    assert executed == [1], "two members and a learner are no quorum"
    assert said == {Appended}
