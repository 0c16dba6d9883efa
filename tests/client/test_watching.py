"""The sans-IO part of watches, where epochs and members change while it is asked and told."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from client.members import Members
from dwcp.identity import Ed25519Signer
from dwcp.watching import Delivery, WatchCore
from dwcp.wire.epochs import CertifiedRecord, slot_signing_bytes
from dwcp.wire.operations import KeyValue
from dwcp.wire.peer import VoteSig
from dwcp.wire.records import Member, scope_of
from dwcp.wire.signing import digest
from dwcp.wire.watch import LAST, Page, Pull, WatchEvent, encode_events, page_signing_bytes

replace = msgspec.structs.replace


class Watching:
    """A watch of the key k by a client, and members that answer it as the test says."""

    def __init__(self) -> None:
        self.members = Members()
        self.keys = {s.public_key: s for s in self.members.signers}
        self.checker = self.members.checker
        self.core = WatchCore(self.checker)
        for member in self.checker.current:
            self.core.connected(member)
        self.watch = self.core.add(b"k", b"", 1)

    def stranger(self, number: int) -> Member:
        """Somebody who is no member yet."""
        key = Ed25519Signer(digest("test-key", b"stranger %d" % number))
        self.keys[key.public_key] = key
        url = f"http://127.0.0.1:{number}"
        return Member(f"test-{number}", key.public_key, digest("cert", b"s"), "127.0.0.1:1", url)

    def next_record(self, members: Sequence[Member]) -> CertifiedRecord:
        """A record of these members that a quorum of the present ones has decided."""
        genesis, before = self.members.genesis, self.checker.records.current
        record = replace(
            before, epoch=before.epoch + 1, previous=before.hash(), members=tuple(members)
        )
        scope = scope_of(genesis, before)
        signed = slot_signing_bytes(scope, "slot-commit", before.epoch, 0, record.hash())
        votes = tuple(
            VoteSig(i, self.keys[before.members[i].identity].sign(signed))
            for i in range(self.checker.quorum)
        )
        return CertifiedRecord(record, 0, votes)

    def enter(self, members: Sequence[Member]) -> None:
        """The client verifies such a record, and reaches everybody whom it names."""
        before = set(self.checker.current)
        assert self.checker.learn([self.next_record(members)]) is None
        self.core.entered()
        for member in sorted(set(self.checker.current) - before):
            self.core.connected(member)

    def pulls(self) -> dict[int, Pull]:
        """The newest pull to each member since the last call."""
        return dict(self.core.poll().send)

    def page(self, member: int, pull: Pull, value: bytes, record: CertifiedRecord | None) -> Page:
        """What a member says happened in revision 2, signed under a record or the present one."""
        present = self.checker.records.current if record is None else record.record
        identity = self.checker.peers[member].identity
        number = present.member_with(identity)
        assert number is not None, "it is a member"
        events = encode_events((WatchEvent("PUT", KeyValue(b"k", 2, 2, 1, value)),))
        page = Page(pull.digest(), (2, LAST), events, 0, present.epoch, number, bytes(64))
        scope = scope_of(self.members.genesis, present)
        sig = self.keys[identity].sign(page_signing_bytes(scope, page))
        return replace(page, sig=sig)

    def tell(
        self, member: int, pull: Pull, value: bytes = b"v", record: CertifiedRecord | None = None
    ) -> list[Delivery]:
        """Have a member answer; what is delivered then."""
        self.core.received(member, self.page(member, pull, value, record))
        return self.delivered()

    def delivered(self) -> list[Delivery]:
        """The events since the last call."""
        news = self.core.poll().news
        return [one for one in news if isinstance(one, Delivery) and one.events]


def test_whoever_spoke_of_an_unknown_epoch_is_asked_again() -> None:
    world = Watching()
    members = world.members.genesis.members
    following = world.next_record(members)
    for member, pull in world.pulls().items():
        assert not world.tell(member, pull, record=following)
    assert world.core.refused == {"another-epoch": 4}
    assert world.checker.wants_records
    world.enter(members)
    asked = world.pulls()
    assert set(asked) == {0, 1, 2, 3}
    assert not world.tell(0, asked[0])
    (delivery,) = world.tell(1, asked[1])
    assert delivery.revision == 2


def test_an_answer_of_the_epoch_before_still_counts() -> None:
    """It was on its way when the record was learned; history is the same in every epoch."""
    world = Watching()
    asked = world.pulls()
    answers = [world.page(member, asked[member], b"v", None) for member in (2, 3)]
    world.enter(world.members.genesis.members)
    for member, answer in zip((2, 3), answers, strict=True):
        world.core.received(member, answer)
    assert [news.revision for news in world.delivered()] == [2]
    assert not world.core.refused


def test_who_left_has_no_voice_and_who_came_has_one() -> None:
    world = Watching()
    asked = world.pulls()
    assert not world.tell(0, asked[0], b"forged")
    world.enter((*world.members.genesis.members[1:], world.stranger(4)))
    again = world.pulls()
    assert set(again) == {1, 2, 3, 4}
    assert not world.tell(1, again[1], b"forged"), "one of them was the other voice for it"
    assert not world.tell(2, again[2])
    (delivery,) = world.tell(4, again[4])
    assert delivery.events[0].kv.value == b"v"
    assert world.core.lies.keys() == {1}


def test_more_members_need_more_voices() -> None:
    world = Watching()
    world.enter((*world.members.genesis.members, *map(world.stranger, (4, 5, 6))))
    asked = world.pulls()
    assert set(asked) == set(range(7))
    assert not world.tell(0, asked[0], b"forged")
    assert not world.tell(5, asked[5], b"forged"), "f is 2 now"
    for member in (1, 2):
        assert not world.tell(member, asked[member])
    (delivery,) = world.tell(6, asked[6])
    assert delivery.events[0].kv.value == b"v"


def test_fewer_members_need_fewer_voices_at_once() -> None:
    """What was short of a voice is delivered when the record that asks for less is known."""
    world = Watching()
    genesis = world.members.genesis.members
    world.enter((*genesis, *map(world.stranger, (4, 5, 6))))
    asked = world.pulls()
    for member in (0, 1):
        assert not world.tell(member, asked[member])
    world.enter(genesis)
    assert world.delivered()


def test_a_hurried_watch_is_answered_across_an_epoch() -> None:
    """Who was asked how far the history is may answer in an epoch that is not known yet."""
    world = Watching()
    world.pulls()
    world.core.hurry(world.watch)
    following = world.next_record(world.members.genesis.members)
    for member, pull in world.pulls().items():
        assert pull.prompt
        world.tell(member, pull, record=following)
    world.enter(world.members.genesis.members)
    again = world.pulls()
    assert all(pull.prompt for pull in again.values())
