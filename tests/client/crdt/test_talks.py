"""Many documents over many links: windows, turns, bounds."""

from __future__ import annotations

import pytest

from client.crdt.people import document, rules, signers
from dwcp.crdt import Store
from dwcp.crdt import talks as talks_module
from dwcp.crdt.talks import RETRY_MS, WINDOW_BYTES, Talks
from dwcp.wire.documents import SyncMessage
from dwcp.wire.gossip import Taken, decode_client_gossip

A_TO_B, B_TO_A = 1, 2


class Pair:
    """Two sides and what they say; nothing is lost unless a test drops it."""

    def __init__(self) -> None:
        self.woken: list[int] = []
        self.a = Talks(Store(rules()), self.woken.append)
        self.b = Talks(Store(rules()), self.woken.append)
        self.a.add(A_TO_B)
        self.b.add(B_TO_A)

    def write(self, name: str, *texts: str) -> None:
        doc = document(name)
        for text in texts:
            with doc.edit(signers(2)[0], epoch=0) as edit:
                edit.insert("body", 0, text)
            assert edit.operation is not None
            self.a.store.receive(edit.operation)
        self.a.begin(A_TO_B, name, 0)

    def said_by(self, side: Talks, now_ms: int = 0) -> list[bytes]:
        link = A_TO_B if side is self.a else B_TO_A
        frames = []
        while (frame := side.say(link, now_ms)) is not None:
            frames.append(frame)
        return frames

    def tell(self, frames: list[bytes], side: Talks, now_ms: int = 0) -> None:
        link = A_TO_B if side is self.a else B_TO_A
        for frame in frames:
            message = decode_client_gossip(frame)
            if isinstance(message, Taken):
                side.taken(link, message)
            else:
                assert isinstance(message, SyncMessage)
                side.receive(link, message, len(frame), now_ms)

    def talk(self) -> None:
        for _ in range(20):
            self.tell(self.said_by(self.a), self.b)
            self.tell(self.said_by(self.b), self.a)

    def level(self, *names: str) -> bool:
        return all(self.a.store.find(name).heads == self.b.store.find(name).heads for name in names)


def test_what_was_said_and_not_worked_off_is_bounded() -> None:
    pair = Pair()
    pair.write("big", *("x" * 200_000 for _ in range(40)))
    pair.tell(pair.said_by(pair.a), pair.b)
    pair.tell(pair.said_by(pair.b), pair.a)
    flood = pair.said_by(pair.a)
    assert WINDOW_BYTES <= sum(map(len, flood)) < WINDOW_BYTES + 300_000
    pair.tell(flood, pair.b)
    pair.talk()
    assert pair.level("big")


def test_a_false_taken_opens_no_more_than_was_sent() -> None:
    pair = Pair()
    pair.write("big", *("x" * 200_000 for _ in range(40)))
    pair.a.taken(A_TO_B, Taken(2**60))
    pair.tell(pair.said_by(pair.a), pair.b)
    pair.tell(pair.said_by(pair.b), pair.a)
    assert sum(map(len, pair.said_by(pair.a))) < WINDOW_BYTES + 300_000


def test_silence_is_answered_by_beginning_again() -> None:
    pair = Pair()
    pair.write("notes", "hello")
    pair.said_by(pair.a)  # lost
    pair.a.tick(RETRY_MS - 1)
    assert not pair.said_by(pair.a, RETRY_MS - 1)
    pair.a.tick(RETRY_MS)
    pair.tell(pair.said_by(pair.a, RETRY_MS), pair.b)
    pair.talk()
    assert pair.level("notes")
    assert pair.a.counts["retries"] == 1


def test_level_sides_fall_silent() -> None:
    pair = Pair()
    pair.write("notes", "hello")
    pair.talk()
    for side in (pair.a, pair.b):
        side.tick(60_000)
        assert not pair.said_by(side, 60_000)


def test_documents_take_turns() -> None:
    pair = Pair()
    for name in ("one", "two"):
        pair.write(name, *("x" * 200_000 for _ in range(4)))
    pair.tell(pair.said_by(pair.a), pair.b)
    pair.tell(pair.said_by(pair.b), pair.a)
    order = [decode_client_gossip(frame) for frame in pair.said_by(pair.a)]
    names = [message.document for message in order if isinstance(message, SyncMessage)]
    assert names[:4] == ["one", "two", "one", "two"]


def test_an_empty_document_is_not_kept() -> None:
    """A stranger that speaks of a thousand names makes no thousand documents."""
    pair = Pair()
    for number in range(1000):
        pair.a.begin(A_TO_B, f"ghost {number}", 0)
    pair.talk()
    assert len(pair.a.store) == len(pair.b.store) == 0


def test_talks_of_a_link_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talks_module, "TALKS_MAX", 10)
    pair = Pair()
    names = [f"doc {number}" for number in range(30)]
    for name in names:
        pair.write(name, "hello")
        pair.talk()
    assert pair.level(*names)
    assert pair.a.about(A_TO_B, names[0]) is None
    assert pair.a.about(A_TO_B, names[-1]) is not None
