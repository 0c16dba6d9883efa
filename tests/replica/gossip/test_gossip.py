"""Gossip between members in virtual time: news, rounds, partitions, restarts."""

from __future__ import annotations

import msgspec
import pytest

from client.crdt.people import document, rules, signers
from dwcp.crdt import Document, Operation
from dwcp.wire.documents import SyncMessage
from dwcp.wire.gossip import decode_frame, encode_gossip
from dwcp_replica.gossip import ROUND_MS
from replica.gossip.world import World
from replica.mutations import mutated

LIMIT_MS = 5_000


def typed(person: int, doc: Document, text: str) -> Operation:
    """An operation that types a text at the end."""
    with doc.edit(signers(8)[person], epoch=0) as edit:
        edit.insert("body", len(str(doc.get("body", "text") or "")), text)
    assert edit.operation is not None
    return edit.operation


def test_news_reaches_all_members_in_about_one_round_trip() -> None:
    world = World(4, seed=1, one_way_ms=50)
    world.join_all()
    mine = document()
    world.submit(0, typed(0, mine, "first"))
    world.run(world.level)
    world.submit(0, typed(0, mine, " second"))
    took = world.run(world.level)
    assert took <= 60, took  # a talk has begun: news is pushed
    assert world.document(3).view() == {"body": "first second"}


def test_many_documents_become_level_in_one_comparison() -> None:
    world = World(4, seed=2)
    for number in range(300):
        member = number % 2
        world.submit(member, typed(member, document(f"doc-{number}"), f"text {number}"))
    world.join_all()
    took = world.run(world.level)
    assert took < 500, took
    assert len(world.members[3].store) == 300


def test_thirteen_members_hear_of_news_by_way_of_others() -> None:
    world = World(13, seed=3)
    world.join_all()
    world.pass_ms(100)
    world.submit(5, typed(0, document(), "hello"))
    took = world.run(world.level)
    assert took <= 2 * ROUND_MS, took


def test_a_round_finds_what_news_has_missed() -> None:
    """A member's words are lost without a sign: the next round begins the talk again."""
    world = World(4, seed=4)
    world.join_all()
    world.pass_ms(200)
    world.lies[0] = lambda _me, _to, _frame: []
    world.submit(0, typed(0, document(), "unheard"))
    world.pass_ms(300)
    assert not world.level()
    del world.lies[0]
    took = world.run(world.level)
    assert took <= 2 * ROUND_MS, took


def test_both_sides_of_a_partition_write_and_become_equal_again() -> None:
    world = World(4, seed=5, one_way_ms=50, loss=0.01)
    left, right = document(), document()
    world.join_all([[0, 1], [2, 3]])
    for number in range(40):
        world.submit(number % 2, typed(0, left, f"L{number} "))
        world.submit(2 + number % 2, typed(1, right, f"R{number} "))
    world.run(lambda: world.level(0, 1) and world.level(2, 3))
    assert not world.level()
    world.join_all()
    took = world.run(world.level)
    assert took < LIMIT_MS, took
    body = str(world.document(0).get("body", "text"))
    assert body.count("L") == body.count("R") == 40


def test_a_member_that_starts_again_in_the_middle_catches_up() -> None:
    world = World(4, seed=6, one_way_ms=20)
    mine = document()
    world.join_all([[0, 1, 2], [3]])
    for number in range(200):
        world.submit(number % 3, typed(0, mine, f"{number} "))
    world.join_all()
    world.pass_ms(25)
    world.restart(3)
    world.run(world.level)
    assert world.document(3).view() == mine.view()


def lying(world: World, liars: tuple[int, ...]) -> None:
    """These members send each operation only to whom they please, twist words, and say nothing
    of what the other half has."""
    draw = world.random

    def lie(_me: int, to: int, frame: bytes) -> list[bytes]:
        message = decode_frame(frame)
        if not isinstance(message, SyncMessage):
            return [] if draw.random() < 0.5 else [frame]
        chosen = tuple(one for one in message.operations if (one.hash()[0] + to) % 2)
        summary = message.summary
        if summary is not None and draw.random() < 0.3:
            summary = msgspec.structs.replace(summary, state=draw.randbytes(32), retry=True)
        said = [encode_gossip(SyncMessage(message.document, summary, chosen))]
        if draw.random() < 0.2:
            said.append(mutated(frame, draw))
        return said * draw.choice((1, 1, 2))

    for liar in liars:
        world.lies[liar] = lie


@pytest.mark.parametrize(
    ("seed", "liars"),
    [*((seed, (0, 3)) for seed in range(4)), *((seed, (0, 1, 3, 4, 6)) for seed in range(4))],
)
def test_lying_members_and_equivocating_authors_do_not_divide_the_honest(
    seed: int, liars: tuple[int, ...]
) -> None:
    """n = 7, with f liars, and with more than any quorum bears: authors that fork their own past
    through members that send selectively."""
    world = World(7, seed, one_way_ms=20, loss=0.01)
    lying(world, liars)
    world.join_all([[0, 1, 2, 3], [3, 4, 5, 6]] if seed % 2 else None)
    honest = [number for number in range(7) if number not in liars]
    forks = [document(), document()]
    for number in range(30):
        author = number % 2  # one key on two devices that never heard of each other
        fork = forks[author]
        world.submit(liars[author], typed(7, fork, f"{author}{number} "))
        near = honest[number % len(honest)]  # an honest author builds on what its member shows it
        seen = Document.restore(world.document(near).dump(), rules())
        world.submit(near, typed(number % 5, seen, "honest "))
        world.pass_ms(100)
    world.join_all()
    world.run(lambda: world.level(*honest))
    first, *others = (world.document(number) for number in honest)
    for other in others:
        assert other.view() == first.view()
        assert other.graph.equivocations.keys() == first.graph.equivocations.keys()
    assert first.graph.equivocations, "the forked author was not noticed"
    assert str(first.get("body", "text")).count("honest") == 30
    assert len(first.graph) > 30, "nothing of the forks came through"


def heal(seed: int, missing: int, elsewhere: int) -> tuple[int, World]:
    """Two members lack `missing` operations, the two others `elsewhere`."""
    world = World(4, seed, one_way_ms=50, loss=0.01)
    world.join_all([[0, 1], [2, 3]])
    left, right = document(), document()
    for number in range(missing):
        world.submit(0, typed(number % 2, left, "ab"))
    for _ in range(elsewhere):
        world.submit(2, typed(2, right, "cd"))
    world.run(lambda: world.level(0, 1) and world.level(2, 3))
    world.join_all()
    return world.run(world.level), world


def test_a_small_partition_heals_in_time() -> None:
    took, world = heal(8, 300, 100)
    assert took < LIMIT_MS
    assert len(world.document(0).graph) == 400


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ten_thousand_missing_operations_arrive_within_five_seconds() -> None:
    """100 ms round trips, 1 % of packets lost, 100 Mbit/s: rounds, windows and all."""
    took, world = heal(9, 10_000, 500)
    print(f"level after {took} ms, {world.sent_bytes / 1e6:.1f} MB, {world.lost} packets lost")
    assert took < LIMIT_MS
    assert world.lost
