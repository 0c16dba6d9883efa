"""Collection below a frontier, dumps, and what both must not change."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from client.crdt.people import document, rules, signers
from dwcp.crdt import Document, Refused
from dwcp.crdt.sync import SyncState, generate, receive
from dwcp.wire.documents import Operation

KINDS = ("text", "list", "counter", "set", "register", "map")


def random_edit(replica: Document, author: int, random: Random) -> Operation:
    """One operation with some edits on a document that uses every kind."""
    with replica.edit(signers(8)[author], epoch=0) as edit:
        edit.insert("text", random.randint(0, len(replica.get("text", "text") or "")), "ab")
        for kind in random.sample(KINDS, 2):
            match kind:
                case "text":
                    length = len(replica.get("text", "text"))
                    edit.delete("text", random.randrange(length), 1)
                case "list":
                    edit.insert("list", 0, [random.randint(0, 9), {"k": [author]}])
                case "counter":
                    edit.increment(("deep", "count"), random.randint(-3, 3))
                case "set":
                    edit.add("set", random.randint(0, 3))
                    edit.discard("set", random.randint(0, 3))
                    edit.add("two", random.randint(0, 3), kind="2p-set")
                    edit.discard("two", random.randint(0, 3), kind="2p-set")
                case "register":
                    edit.set("mv", random.randint(0, 9), kind="mv")
                    edit.set("lww", [random.randint(0, 9)])
                case "map":
                    edit.remove(random.choice(["deep", "set", "list"]))
    assert edit.operation is not None
    return edit.operation


def history(seed: int, count: int = 40, replicas: int = 3) -> list[Document]:
    """Replicas that exchanged some of their operations."""
    random = Random(seed)
    documents = [document() for _ in range(replicas)]
    for _ in range(count):
        author = random.randrange(replicas)
        random_edit(documents[author], author, random)
        source, target = random.sample(documents, 2)
        if random.random() < 0.4:
            for operation in list(source.operations()):
                target.receive(operation)
    return documents


def merged(documents: list[Document]) -> Document:
    whole = document()
    for source in documents:
        for operation in source.operations():
            whole.receive(operation)
    return whole


def typed(replica: Document, author: int, text: str) -> Operation:
    with replica.edit(signers(8)[author], epoch=0) as transaction:
        transaction.insert("text", 0, text)
    assert transaction.operation is not None
    return transaction.operation


@pytest.mark.parametrize("seed", range(10))
def test_a_dump_restores_the_document(seed: int) -> None:
    whole = merged(history(seed))
    again = Document.restore(whole.dump(), rules())
    assert again.heads == whole.heads
    assert again.view() == whole.view()
    assert again.dump() == whole.dump()


def test_a_dump_keeps_what_is_held() -> None:
    source, replica = document(), document()
    first, second = typed(source, 0, "a"), typed(source, 0, "b")
    replica.receive(second)
    again = Document.restore(replica.dump(), rules())
    assert len(again.held) == 1
    again.receive(first)
    assert again.view() == source.view()


def test_a_damaged_dump_is_an_error() -> None:
    source = document()
    typed(source, 0, "a")
    with pytest.raises(msgspec.DecodeError):
        Document.restore(source.dump()[:-5], rules())


@pytest.mark.parametrize("seed", range(10))
def test_collecting_changes_no_view_and_later_edits_still_merge(seed: int) -> None:
    """One replica collects at a common version, the other does not: they stay equal."""
    random = Random(seed)
    a = merged(history(seed))
    b = merged([a])
    frontier = a.heads
    before = a.view()
    assert a.collect(frontier) == []
    assert a.view() == before
    assert a.heads == frontier
    assert list(a.operations()) == []
    for _ in range(20):
        random_edit(a, 0, random)
        random_edit(b, 1, random)
        if random.random() < 0.3:
            for operation in list(b.operations()):
                assert a.receive(operation).outcome in {"applied", "known"}
            for operation in list(a.operations()):
                assert b.receive(operation).outcome in {"applied", "known"}
    c = Document.restore(a.dump(), rules())
    for operation in list(b.operations()):
        for replica in (a, c):
            assert replica.receive(operation).outcome in {"applied", "known"}
    for operation in list(a.operations()):
        b.receive(operation)
    assert a.heads == b.heads == c.heads
    assert a.view() == b.view() == c.view()


@pytest.mark.parametrize("seed", range(10))
def test_replicas_agree_whatever_they_held_when_they_learned_of_the_frontier(seed: int) -> None:
    documents = history(seed)
    frontier = documents[0].heads
    first, second = documents[0], merged(documents)
    stranded_first = first.collect(frontier)
    stranded_second = second.collect(frontier)
    assert stranded_first == []
    for operation in stranded_second:
        assert first.receive(operation).outcome in {"refused", "held"}
    for operation in list(second.operations()):
        first.receive(operation)
    assert first.heads == second.heads
    assert first.view() == second.view()


def test_an_edit_based_below_the_frontier_is_told_to_rebase() -> None:
    a, late = document(), document()
    late.receive(typed(a, 0, "old"))
    typed(a, 0, "new ")
    a.collect(a.heads)
    edit = typed(late, 1, "late ")
    assert a.receive(edit).reason == "rebase"
    assert a.view() == {"text": "new old"}


def test_what_did_not_follow_the_frontier_is_stranded_and_replayed() -> None:
    a, b = document(), document()
    b.receive(typed(a, 0, "base"))
    agreed = typed(a, 0, "agreed ")
    late = typed(b, 1, "late ")
    b.receive(agreed)
    after = typed(b, 1, "after ")
    assert b.collect([agreed.hash()]) == [late, after]
    assert b.view() == {"text": "agreed base"}
    typed(b, 1, "late ")
    assert b.view() == {"text": "late agreed base"}


def test_a_frontier_moves_forward_only() -> None:
    a = document()
    first, second = typed(a, 0, "1"), typed(a, 0, "2")
    with pytest.raises(Refused, match="not here yet"):
        a.collect([b"u" * 32])
    with pytest.raises(Refused, match="past of another"):
        a.collect([first.hash(), second.hash()])
    a.collect([second.hash()])
    with pytest.raises(Refused, match="never moves back"):
        a.collect([first.hash()])
    assert a.collect([second.hash()]) == []
    third = typed(a, 0, "3")
    assert a.collect([third.hash()]) == []
    assert a.view() == {"text": "321"}


def test_two_operations_may_be_the_frontier() -> None:
    a, b = document(), document()
    b.receive(typed(a, 0, "base"))
    heads = [typed(a, 0, "left ").hash(), typed(b, 1, "right ").hash()]
    for operation in list(b.operations()):
        a.receive(operation)
    for operation in list(a.operations()):
        b.receive(operation)
    a.collect(heads)
    later = typed(b, 1, "on both ")
    assert a.receive(later).outcome == "applied"
    assert a.view() == b.view()


class TestEviction:
    """A frontier record says what an evicted author still counts for."""

    def world(self) -> tuple[Document, list[bytes], Operation, Operation]:
        """The evicted author 3 wrote once before the frontier and once beside it; 1 built on it."""
        a = document()
        typed(a, 3, "early ")
        frontier = [typed(a, 0, "agreed ").hash()]
        return a, frontier, typed(a, 3, "late "), typed(a, 1, "after ")

    def test_only_the_frontiers_past_counts(self) -> None:
        a, frontier, late, after = self.world()
        assert a.evict(signers(8)[3].public_key, frontier) == [late, after]
        assert a.view() == {"text": "agreed early "}
        assert a.receive(late).reason == "evicted"
        assert a.receive(after).outcome == "held"

    def test_replicas_agree_whenever_they_learn_of_it(self) -> None:
        a, frontier, late, after = self.world()
        b, c = document(), document()
        for operation in a.operations():
            if operation not in (late, after):
                b.receive(operation)
        b.evict(signers(8)[3].public_key, frontier)
        for operation in (late, after):
            b.receive(operation)
        for operation in a.operations():
            c.receive(operation)
        typed(c, 2, "also after ")
        for replica in (a, c):
            replica.evict(signers(8)[3].public_key, frontier)
        again = Document.restore(c.dump(), rules())
        assert a.view() == b.view() == c.view() == again.view() == {"text": "agreed early "}
        assert a.heads == b.heads == c.heads == again.heads
        assert again.receive(late).reason == "evicted"

    def test_it_waits_for_the_frontier(self) -> None:
        a, frontier, _, _ = self.world()
        with pytest.raises(Refused, match="not here yet"):
            document().evict(signers(8)[3].public_key, frontier)
        assert a.view()["text"].startswith("after")


def test_a_collected_document_is_smaller() -> None:
    a = document()
    for _ in range(300):
        typed(a, 0, "x")
    before = len(a.dump())
    a.collect(a.heads)
    assert len(a.dump()) < before / 3


def test_anti_entropy_with_a_collected_replica() -> None:
    """A peer that has the frontier gets what is above it; one that lags is told apart."""
    a, b, new = document(), document(), document()
    for _ in range(5):
        b.receive(typed(a, 0, "x"))
    a.collect(a.heads)
    typed(a, 0, "news")
    states = SyncState(), SyncState()
    for _ in range(4):
        if (message := generate(a, states[0])) is not None:
            receive(b, states[1], message)
        if (message := generate(b, states[1])) is not None:
            receive(a, states[0], message)
    assert a.view() == b.view()
    assert not states[0].lacks_image
    ours, theirs = SyncState(), SyncState()
    message = generate(new, theirs)
    assert message is not None
    receive(a, ours, message)
    assert ours.lacks_image
