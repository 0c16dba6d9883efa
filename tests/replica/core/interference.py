"""Mutated copies of every message between members, delivered just before the message itself.

The messages are those of busy lives, so that every kind is met where an engine could take it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import get_args

import msgspec

from dwcp.wire.epochs import (
    EpochBound,
    History,
    Panics,
    Records,
    SlotProposal,
    SlotVote,
    SwitchProof,
)
from dwcp.wire.peer import (
    Bodies,
    Certificate,
    Commit,
    DoubleVote,
    Elections,
    Entries,
    Equivocation,
    Fork,
    Forward,
    Header,
    PeerMessage,
    Prepare,
    Status,
    decode_message,
    encode_message,
    vote_signing_bytes,
)
from dwcp.wire.records import Protocol, scope_of
from dwcp.wire.state import FetchCheckpoint, StableCheckpoint, StateChunk, StateNode
from dwcp_replica.core.effects import Alarm, MessageRefused, Ready, Received
from dwcp_replica.core.replica import Replica, Standing
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.mutation import mutated as field_mutated
from dwcp_replica.sim.planting import Setting
from dwcp_replica.sim.run import Simulation
from dwcp_replica.sim.scenario import Cut
from dwcp_replica.sim.world import Link
from replica.core.conversation import Conversation
from replica.core.partly import says_a_part, take_the_part
from replica.mutations import Tally, mutated

UNHEARD: frozenset[str] = frozenset()
"""Kinds that a PBFT engine takes from nobody: test_fuzz.py sees each of them refused. Whoever
makes an engine take one writes a life here in which it occurs, and takes it out."""
KINDS = {kind.__name__ for kind in get_args(PeerMessage)} - UNHEARD
LIVES_MAX = 20_000


Hear = Callable[[Replica, int, PeerMessage], None]
"""Called with an engine, a sender and a message just before the engine gets it."""


Live = Callable[[Hear], None]
"""A life that is lived to its end, whatever it is told to hear."""


class Interference:
    """Lives of a cluster in which every message comes with mutated copies."""

    def __init__(self, tally: Tally, draw: Random) -> None:
        self.tally = tally
        self.draw = draw
        self.copies = max(50, tally.frames // 200)
        self.heard: set[str] = set()

    def run(self) -> None:
        """Live until every kind has had its frames."""
        brings: dict[Live, set[str]] = {live: set(KINDS) for live in LIVES}
        for _ in range(LIVES_MAX):
            wanted = {kind for kind in KINDS if self.tally.room(kind) > 0}
            if not wanted:
                return
            for live in LIVES:
                if brings[live] & wanted:
                    self.heard = brings[live] = set()
                    live(self.disturb)
            missing = sorted(KINDS - set(self.tally.counts))
            assert not missing, f"{missing} occur in no life: write one in {__name__}"
        raise AssertionError(f"too rare: {self.tally.lines()}")

    def disturb(self, engine: Replica, sender: int, message: PeerMessage) -> None:
        """Mutated copies of one message."""
        kind = type(message).__name__
        self.heard.add(kind)
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
        if says_a_part(changed, message):
            take_the_part(engine, sender, changed, message)
            return "a part"
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
    if isinstance(changed, StateChunk) and isinstance(message, StateChunk):
        return (
            (changed.index, changed.state) == (message.index, message.state)
            and some_of(*(tuple(map(content, one.nodes)) for one in (changed, message)))
            and some_of(changed.values, message.values)
        )
    if isinstance(changed, Records | EpochBound) and isinstance(message, Records | EpochBound):
        genuine = {one.record.hash() for one in message.records}
        return any(one.record.hash() in genuine for one in changed.records)
    if isinstance(changed, Fork) and isinstance(message, Fork):  # a part of it proves it too
        shown = tuple(map(unsigned, changed.other))
        part = tuple(map(unsigned, message.other[: len(shown)]))
        return changed.first == message.first and shown == part
    return meaning(changed) == meaning(message)


def content(node: StateNode) -> tuple[object, ...]:
    """What a node's hash covers; a value may be left out of it, and asked for by itself."""
    pairs = sorted((record.key, record.hash) for record in node.records)
    return (node.place, node.children, tuple(pairs))


def some_of(parts: tuple[object, ...], genuine: tuple[object, ...]) -> bool:
    """Genuine parts, each once."""
    return len(set(parts)) == len(parts) and set(parts) <= set(genuine)


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
        case Panics(panics):
            return Panics(tuple(sorted(panics, key=lambda panic: panic.member)))
        case SwitchProof():
            return msgspec.structs.replace(message, certificate=in_order(message.certificate))
        case History() if message.certificate is not None:
            return msgspec.structs.replace(message, certificate=in_order(message.certificate))
        case Entries():  # each election certificate stands or falls by itself
            return msgspec.structs.replace(
                message, elections=(), certificate=in_order(message.certificate)
            )
        case StableCheckpoint():
            return msgspec.structs.replace(message, certificate=in_order(message.certificate))
    return message


def in_order(certificate: Certificate) -> Certificate:
    """The order of votes says nothing."""
    votes = sorted(certificate.votes, key=lambda vote: vote.member)
    return msgspec.structs.replace(certificate, votes=tuple(votes))


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


def cluster(hear: Hear, interval: int, protocol: Protocol = "pbft") -> Conversation:
    """Four engines whose messages are heard; checkpoints every `interval` entries."""
    talk = Conversation(interval=interval, timeout_ms=400, protocol=protocol)
    receive = talk.receive

    def tapped(member: int, sender: int, message: PeerMessage) -> None:
        place = talk.place_of(member, sender)
        if place is not None:
            hear(talk.replicas[member], place, message)
        receive(member, sender, message)

    talk.receive = tapped  # type: ignore[method-assign]
    return talk


def silence_and_catch_up(hear: Hear) -> None:
    """A member is cut off and comes back; views change by time-out and by hand-over."""
    talk = cluster(hear, 2)
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


def a_body_is_missing(hear: Hear) -> None:
    """A new primary must start from an entry whose body it never got."""
    talk = cluster(hear, 2)
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


def elections_are_missing(hear: Hear) -> None:
    """A member that missed two views hears statements that rest on them."""
    talk = cluster(hear, 100)
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


def a_primary_equivocates(hear: Hear) -> None:
    """Its two headers reach one member, and from there all."""
    talk = cluster(hear, 4)
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


def a_backup_votes_twice(hear: Hear) -> None:
    """Its two votes reach one member, and from there all."""
    talk = cluster(hear, 4)
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


def a_state_is_fetched(hear: Hear) -> None:
    """Simulated lives in which a member is cut off until the others' logs no longer reach back."""
    heard: set[str] = set()
    for seed in range(1, 40):
        cut = Cut((3,), 100, 1500)
        setting = Setting(4, 60, 2, {}, (cut,), Link(1, 3))
        life = Simulation(replace(setting.scenario(seed), real=False))
        for host in life.hosts:
            heard_by(life, host, hear, heard)
        report = life.run()
        assert report.operations == 60
        for host in life.hosts:  # what a member asks that has lost its state
            hear(host.core, (host.me + 1) % 4, FetchCheckpoint(0))
        if {"FetchState", "StateChunk", "StableCheckpoint"} <= heard:
            return
    raise AssertionError(f"no state was fetched in so many lives: {sorted(heard)}")


def heard_by(life: Simulation, host: Host, hear: Hear, heard: set[str]) -> None:
    """Hear all that this host gets."""
    receive = host.receive

    def tapped(sender: bytes, frame: PeerMessage | bytes) -> None:
        assert not isinstance(frame, bytes), "only lives with real signatures encode"
        if host.up:
            heard.add(type(frame).__name__)
            place = host.places.get(sender)
            assert place is not None
            hear(host.core, place, frame)
        receive(sender, frame)

    host.receive = tapped  # type: ignore[method-assign]


def raft_passes_the_lead_on(hear: Hear) -> None:
    """Elections, a replaced tail, a hand-over, catch-up."""
    talk = cluster(hear, 100, "raft")
    talk.submit(2, "a", "1")
    talk.deliver()
    talk.isolate(0)
    talk.submit(0, "x", "lost")
    talk.submit(1, "d", "2")
    talk.wait(2000)
    talk.cut.clear()
    talk.wait(2000)
    talk.hand_over(talk.replicas[1]._core.primary)
    talk.deliver()
    talk.submit(3, "e", "3")
    talk.wait(3000)
    values = [sorted(talk.values(member)) for member in range(talk.n)]
    assert values == [[b"1", b"2", b"3", b"lost"]] * talk.n, values


def epochs_follow_each_other(hear: Hear) -> None:
    """The admin orders one, members PANIC; the slot's first primary is down, or unheard."""
    talk = cluster(hear, 2)
    talk.submit(0, "a", "1")
    talk.wait(200)
    talk.order([0, 1, 2, 3])
    unheard(talk, 2, votes=False)
    talk.crash(1)  # so that 2 must propose, in the next view, what it never saw
    talk.wait(2000)
    talk.restart(1)
    talk.wait(1000)
    for member in (2, 3):
        talk._act(member, Alarm())
    unheard(talk, 0, votes=True)
    talk.wait(300)
    talk.crash(3)  # it leads the slot of epoch 3
    talk.order([0, 1, 2, 3])
    talk.wait(3000)
    talk.restart(3)
    talk.wait(1500)
    talk.submit(2, "b", "2")
    talk.wait(2000)
    all_have(talk, [b"1", b"2"])
    assert {r.standing().epoch for r in talk.replicas} == {3}


def unheard(talk: Conversation, member: int, *, votes: bool) -> None:
    """Deliver what there is, but no proposal of the slot to one member, and perhaps no COMMIT."""
    for _ in range(12):
        for source, target, message in talk.step():
            lost = isinstance(message, SlotProposal | Records) and target == member
            commit = isinstance(message, SlotVote) and message.phase == "slot-commit"
            if not lost and (votes or not commit):
                talk.receive(target, source, message)


def a_new_member_joins(hear: Hear) -> None:
    """It fetches two epochs that are over, and the present one."""
    talk = cluster(hear, 2)
    for turn in range(2):
        talk.submit(0, "a", str(turn))
        talk.wait(200)
        talk.order([0, 1, 2, 3])
        talk.wait(300)
    newcomer = talk.join()
    talk.order([0, 1, 2, newcomer])
    talk.wait(2000)
    talk.submit(1, "b", "2")
    talk.wait(1000)
    all_have(talk, [b"0", b"1", b"2"])
    assert talk.replicas[newcomer].standing().me == 3


def a_tail_is_lost(hear: Hear) -> None:
    """Its replica asks how far epochs have come, and for another one."""
    talk = cluster(hear, 2)
    talk.submit(0, "a", "1")
    talk.deliver()
    talk.damaged[3] = "damaged tail"
    talk.records[3].pop()
    talk.restart(3)
    talk.wait(2000)
    assert talk.replicas[3].standing().mute is None
    talk.submit(1, "b", "2")
    talk.wait(1000)
    all_have(talk, [b"1", b"2"])


def a_view_is_begun_twice(hear: Hear) -> None:
    """The proof reaches one member, and from there all."""
    talk = cluster(hear, 100)
    for value in range(3):
        talk.submit(0, "a", str(value))
        talk.deliver()
    chain = tuple(header_of(talk, index) for index in (1, 2, 3))
    other = msgspec.structs.replace(chain[0], batch=bytes(32))
    signed = other.signing_bytes(scope_of(talk.genesis, talk.genesis))
    other = msgspec.structs.replace(other, sig=talk.signers[0].sign(signed))
    talk.receive(2, 3, Fork(other, chain))
    talk.wait(1000)
    all_have(talk, [b"0", b"1", b"2"])
    assert {r.standing().record.barred for r in talk.replicas} == {(0,)}


LIVES = (
    raft_passes_the_lead_on,
    epochs_follow_each_other,
    a_new_member_joins,
    a_tail_is_lost,
    a_view_is_begun_twice,
    silence_and_catch_up,
    a_body_is_missing,
    elections_are_missing,
    a_primary_equivocates,
    a_backup_votes_twice,
    a_state_is_fetched,
)


def header_of(talk: Conversation, index: int) -> Header:
    """A header that the primary has signed, from a member's disk."""
    entries = [getattr(record, "entry", None) for record in talk.records[1]]
    return next(e.header for e in entries if e is not None and e.header.index == index)


def all_have(talk: Conversation, values: list[bytes]) -> None:
    done = [talk.values(member) for member in range(talk.n)]
    assert done == [values] * talk.n, f"it did not go on as if nothing had happened: {done}"
