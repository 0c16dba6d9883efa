"""A primary that signs two proposals for one place is convicted at its first such entry."""

from __future__ import annotations

import pytest

from dwcp.wire.peer import Prepare, PrePrepare
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
    assert {r.standing().view for r in talk.replicas[1:]} == {2}


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
