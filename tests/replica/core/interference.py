"""Mutated copies of every message between members, delivered just before the message itself.

The messages are those of busy lives, so that every kind is met where an engine could take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import get_args

import msgspec

from dwcp.wire.peer import (
    Bodies,
    Commit,
    DoubleVote,
    Elections,
    Entries,
    Equivocation,
    Forward,
    Header,
    PeerMessage,
    Prepare,
    Status,
    decode_message,
    encode_message,
    vote_signing_bytes,
)
from dwcp.wire.records import scope_of
from dwcp_replica.core.effects import MessageRefused, Ready, Received
from dwcp_replica.core.replica import Replica, Standing
from dwcp_replica.sim.mutation import mutated as field_mutated
from replica.core.conversation import Conversation
from replica.mutations import Tally, mutated

UNHEARD: frozenset[str] = frozenset(
    {
        "AdminSwitch",
        "EpochBound",
        "FetchEpoch",
        "FetchHistory",
        "FetchValue",
        "Fork",
        "History",
        "Panic",
        "Panics",
        "Ready",
        "Records",
        "Seal",
        "SlotChange",
        "SlotProposal",
        "SlotValue",
        "SlotVote",
        "SwitchProof",
        "SwitchRequest",
    }
)
"""Kinds that a PBFT engine takes from nobody: test_fuzz.py sees each of them refused. Whoever
makes an engine take one writes a life here in which it occurs, and takes it out."""
KINDS = {kind.__name__ for kind in get_args(PeerMessage)} - UNHEARD
LIVES_MAX = 20_000


class Interference:
    """Lives of a cluster in which every message comes with mutated copies."""

    def __init__(self, tally: Tally, draw: Random) -> None:
        self.tally = tally
        self.draw = draw
        self.copies = max(20, tally.frames // 200)

    def run(self) -> None:
        """Live until every kind has had its frames."""
        for _ in range(LIVES_MAX):
            for live in LIVES:
                live(self.cluster)
            missing = sorted(KINDS - set(self.tally.counts))
            assert not missing, f"{missing} occur in no life: write one in {__name__}"
            if all(self.tally.room(kind) <= 0 for kind in KINDS):
                return
        raise AssertionError(f"too rare: {self.tally.lines()}")

    def cluster(self, interval: int) -> Conversation:
        """Four engines whose messages are interfered with."""
        talk = Conversation(interval=interval, timeout_ms=400)
        receive = talk.receive

        def tapped(member: int, sender: int, message: PeerMessage) -> None:
            self.disturb(talk.replicas[member], sender, message)
            receive(member, sender, message)

        talk.receive = tapped  # type: ignore[method-assign]
        return talk

    def disturb(self, engine: Replica, sender: int, message: PeerMessage) -> None:
        """Mutated copies of one message."""
        kind = type(message).__name__
        frame = encode_message(message)
        for turn in range(min(self.copies, self.tally.room(kind))):
            if turn % 2:  # bytes, most of which then decode no more; or one field
                changed = mutated(frame, self.draw)
            else:
                changed = encode_message(field_mutated(message, self.draw))
            self.tally.note(kind, self.outcome(engine, sender, message, changed))

    def outcome(self, engine: Replica, sender: int, message: PeerMessage, frame: bytes) -> str:
        """How the engine took a changed frame; asserts that it did nothing because of it."""
        try:
            changed = decode_message(frame)
        except msgspec.DecodeError:
            return "undecodable"
        if says_the_same(changed, message):
            return "same"
        before = observed(engine.standing())
        ready = engine.step(Received(sender, changed))
        assert observed(engine.standing()) == before, changed
        assert not ready.persist, changed
        assert not ready.apply, changed
        if any(isinstance(event, MessageRefused) for event in ready.events):
            return "refused"
        assert answers_only(ready), changed
        return "of no consequence"


def says_the_same(changed: PeerMessage, message: PeerMessage) -> bool:
    """True when the change is not in what the message says, or leaves a part of it that holds.

    Envelopes, bodies and election certificates each stand or fall by themselves.
    """
    if isinstance(changed, Forward) and isinstance(message, Forward):
        return bool(set(changed.envelopes) & set(message.envelopes))
    if isinstance(changed, Bodies) and isinstance(message, Bodies):
        return bool(set(changed.bodies) & set(message.bodies))
    if isinstance(changed, Elections) and isinstance(message, Elections):
        genuine = {election.digest() for election in message.elections}
        return any(election.digest() in genuine for election in changed.elections)
    return meaning(changed) == meaning(message)


def meaning(message: PeerMessage) -> PeerMessage:
    """What a message says: a vote names an entry by its hash, which leaves the signature of the
    echoed header out."""
    match message:
        case Prepare() | Commit():
            return msgspec.structs.replace(message, header=unsigned(message.header))
        case DoubleVote():
            return msgspec.structs.replace(
                message, first=unsigned(message.first), second=unsigned(message.second)
            )
        case Entries():  # each election certificate stands or falls by itself
            votes = tuple(sorted(message.certificate.votes, key=lambda vote: vote.member))
            certificate = msgspec.structs.replace(message.certificate, votes=votes)
            return msgspec.structs.replace(message, elections=(), certificate=certificate)
    return message


def unsigned(header: Header) -> Header:
    return msgspec.structs.replace(header, sig=bytes(64))


def observed(standing: Standing) -> Standing:
    """All that must not change: what peers say of themselves is a hint and does."""
    return replace(standing, peers={})


def answers_only(ready: Ready) -> bool:
    """Nothing but answers to whoever asked, or questions about what was named."""
    return all(
        not isinstance(out.message, Status | DoubleVote | Equivocation | Elections) or out.to >= 0
        for out in ready.send
    )


# --- lives in which every kind of message occurs ------------------------------------------

Make = Callable[[int], Conversation]
"""An undisturbed or disturbed cluster, by its checkpoint interval."""


def silence_and_catch_up(make: Make) -> None:
    """A member is cut off and comes back; views change by time-out and by hand-over."""
    talk = make(2)
    talk.submit(2, "a", "1")
    talk.deliver()
    talk.isolate(0)
    talk.submit(0, "x", "lost")
    talk.submit(1, "d", "2")
    talk.wait(2000)
    talk.cut.clear()
    talk.wait(2000)
    talk.hand_over(1)
    talk.deliver()
    talk.submit(3, "e", "3")
    talk.wait(3000)
    all_have(talk, [b"1", b"2", b"lost", b"3"])


def a_body_is_missing(make: Make) -> None:
    """A new primary must start from an entry whose body it never got."""
    talk = make(2)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.cut.add((0, 1))
    talk.submit(0, "b", "2")
    talk.deliver_once()
    talk.isolate(0)
    talk.wait(2000)
    talk.cut.clear()
    talk.wait(2000)
    all_have(talk, [b"1", b"2"])


def elections_are_missing(make: Make) -> None:
    """A member that missed two views hears statements that rest on them."""
    talk = make(100)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.isolate(3)
    talk.hand_over(0)
    talk.deliver()
    talk.submit(1, "b", "2")
    talk.deliver()
    talk.hand_over(1)
    talk.deliver()
    talk.submit(2, "c", "3")
    talk.deliver()
    talk.cut.clear()
    talk.hand_over(2)
    talk.deliver()
    talk.submit(3, "d", "4")
    talk.wait(2000)
    all_have(talk, [b"1", b"2", b"3", b"4"])


def a_primary_equivocates(make: Make) -> None:
    """Its two headers reach one member, and from there all."""
    talk = make(4)
    talk.submit(0, "a", "1")
    talk.deliver()
    first = header_of(talk, 1)
    unsigned_second = msgspec.structs.replace(first, batch=bytes(32))
    scope = scope_of(talk.genesis, talk.genesis)
    sig = talk.signers[0].sign(unsigned_second.signing_bytes(scope))
    second = msgspec.structs.replace(unsigned_second, sig=sig)
    talk.receive(2, 3, Equivocation(first, second))
    talk.deliver()
    talk.submit(1, "b", "2")
    talk.wait(3000)
    all_have(talk, [b"1", b"2"])
    assert all(0 in {e.member for e in r.standing().evidence} for r in talk.replicas[1:])


def a_backup_votes_twice(make: Make) -> None:
    """Its two votes reach one member, and from there all."""
    talk = make(4)
    talk.submit(0, "a", "1")
    talk.deliver()
    first = header_of(talk, 1)
    second = msgspec.structs.replace(first, batch=bytes(32))
    scope = scope_of(talk.genesis, talk.genesis)
    sigs = [talk.signers[3].sign(vote_signing_bytes(scope, "commit", h)) for h in (first, second)]
    talk.receive(1, 2, DoubleVote("commit", 3, first, b"", sigs[0], second, b"", sigs[1]))
    talk.deliver()
    talk.submit(1, "b", "2")
    talk.wait(1000)
    all_have(talk, [b"1", b"2"])
    assert all(3 in {e.member for e in r.standing().evidence} for r in talk.replicas[:3])


LIVES = (
    silence_and_catch_up,
    a_body_is_missing,
    elections_are_missing,
    a_primary_equivocates,
    a_backup_votes_twice,
)


def header_of(talk: Conversation, index: int) -> Header:
    """A header that the primary has signed, from a member's disk."""
    entries = [getattr(record, "entry", None) for record in talk.records[1]]
    return next(e.header for e in entries if e is not None and e.header.index == index)


def all_have(talk: Conversation, values: list[bytes]) -> None:
    done = [talk.values(member) for member in range(talk.n)]
    assert done == [values] * talk.n, f"it did not go on as if nothing had happened: {done}"
