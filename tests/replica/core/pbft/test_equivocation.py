"""A primary that signs two proposals for one place is convicted at its first such entry."""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.peer import (
    CheckpointVote,
    Commit,
    DoubleVote,
    Prepare,
    PrePrepare,
    VoteKind,
    vote_signing_bytes,
)
from dwcp.wire.records import scope_of
from dwcp.wire.signing import digest
from dwcp_replica.core.effects import MessageRefused, Received
from dwcp_replica.sim.strategies import Equivocator
from replica.core.conversation import Conversation


def lying(talk: Conversation) -> list[tuple[int, PrePrepare]]:
    """What a lying primary 0 sends instead of its honest proposal: member and message."""
    split = Equivocator(talk.genesis, 0, talk.signers[0])
    honest = next(m for _, _, m in talk.step() if isinstance(m, PrePrepare))
    variant = PrePrepare(split.variant(honest.entry))
    return [(1, variant), (2, honest), (3, honest)]


def convicted(talk: Conversation) -> list[list[int]]:
    return [[e.member for e in r.standing().evidence] for r in talk.replicas[1:]]


@pytest.mark.parametrize("late", [False, True], ids=["in-order", "variant-last"])
def test_everyone_learns_it_from_one_entry(late: bool) -> None:
    talk = Conversation()
    talk.submit(0, "a", "1")
    sent = lying(talk)
    for member, message in sent[1:] if late else sent:
        talk.receive(member, 0, message)
    if late:  # member 1 hears the others' votes, and only then its own proposal
        for source, target, message in talk.step():
            talk.receive(target, source, message)
        talk.receive(1, 0, sent[0][1])
    talk.deliver()
    assert convicted(talk) == [[0], [0], [0]]
    assert {r.standing().epoch for r in talk.replicas} == {1}, "the proof ends the epoch"
    assert {r.standing().record.barred for r in talk.replicas} == {(0,)}


def test_a_vote_that_comes_after_the_entry_is_final_still_convicts() -> None:
    talk = Conversation()
    talk.submit(0, "a", "1")
    sent = lying(talk)
    late: list[tuple[int, int, Prepare]] = []
    for member, message in sent:
        talk.receive(member, 0, message)
    for _ in range(5):
        for source, target, message in talk.step():
            if source == 1 and isinstance(message, Prepare):
                late.append((source, target, message))
            elif target != 1:
                talk.receive(target, source, message)
    assert talk.values(2) == talk.values(3) == [b"1"], "q of four went on without member 1"
    assert convicted(talk)[1:] == [[], []]
    for source, target, message in late:
        talk.receive(target, source, message)
    talk.deliver()
    assert convicted(talk) == [[0], [0], [0]]


def double(talk: Conversation, kind: VoteKind, member: int, forged: bool = False) -> DoubleVote:
    """Two votes of a member at index 1: one for the primary's entry, one for another."""
    talk.submit(0, "a", "1")
    first = next(m for _, _, m in talk.step() if isinstance(m, PrePrepare)).entry.header
    second = first if kind == "checkpoint" else msgspec.structs.replace(first, batch=digest("b"))
    states = (digest("x"), digest("y")) if kind == "checkpoint" else (b"", b"")
    scope = scope_of(talk.genesis, talk.genesis)
    signer = talk.signers[member]
    sigs = [
        signer.sign(vote_signing_bytes(scope, kind, header, state))
        for header, state in zip((first, second), states, strict=True)
    ]
    if forged:
        sigs[1] = talk.signers[(member + 1) % 4].sign(b"something else")
    return DoubleVote(kind, member, first, states[0], sigs[0], second, states[1], sigs[1])


@pytest.mark.parametrize("kind", ["prepare", "commit", "checkpoint"])
def test_two_votes_for_one_place_convict_the_voter(kind: VoteKind) -> None:
    talk = Conversation()
    talk.receive(1, 0, double(talk, kind, member=2))
    talk.deliver()
    found = talk.replicas[3].standing().evidence
    assert [(e.member, e.kind) for e in found] == [(2, f"double-{kind}")]
    assert talk.replicas[3].standing().view == 1, "a backup's lie costs no view"
    talk.restart(3)
    assert [e.member for e in talk.replicas[3].standing().evidence] == [2], "kept for good"


@pytest.mark.parametrize("kind", ["prepare", "commit", "checkpoint"])
def test_a_forged_proof_convicts_nobody(kind: VoteKind) -> None:
    talk = Conversation()
    proof = double(talk, kind, member=2, forged=True)
    same = msgspec.structs.replace(
        double(Conversation(), kind, member=2),
        second=proof.first,
        second_state=proof.first_state,
        second_sig=proof.first_sig,
    )
    for message in (proof, same):
        ready = talk.replicas[1].step(Received(3, message))
        assert [e.reason for e in ready.events if isinstance(e, MessageRefused)]
        assert not ready.persist
    assert talk.replicas[1].standing().evidence == ()


def test_votes_convict_as_they_come_in() -> None:
    """Nobody has to hand the proof over: the second vote is enough."""
    talk = Conversation(interval=2)
    scope = scope_of(talk.genesis, talk.genesis)
    talk.submit(0, "a", "1")
    mine = next(m for _, t, m in talk.step() if t == 1 and isinstance(m, PrePrepare))
    talk.receive(1, 0, mine)
    header = mine.entry.header
    liar = talk.signers[2]
    talk.receive(1, 2, Commit(header, 2, liar.sign(vote_signing_bytes(scope, "commit", header))))
    assert talk.replicas[1].standing().evidence == ()
    for state in (digest("x"), digest("y")):
        two = msgspec.structs.replace(header, index=2)
        two = msgspec.structs.replace(two, sig=talk.signers[0].sign(two.signing_bytes(scope)))
        sig = liar.sign(vote_signing_bytes(scope, "checkpoint", two, state))
        talk.receive(1, 2, CheckpointVote(two, state, 2, sig))
    assert [e.kind for e in talk.replicas[1].standing().evidence] == ["double-checkpoint"]
