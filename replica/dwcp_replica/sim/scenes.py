"""What is explored: scenes that begin where a promise is at stake, with the bound of each.

Each narrows the messages that travel to those that matter to its question. Together they cover an
epoch's end and the next one's beginning; `whole` lives through both epochs, to a smaller bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import msgspec

from dwcp.wire.epochs import Seal, SwitchProof
from dwcp.wire.peer import Certificate, Commit, Prepare, PrePrepare, VoteSig
from dwcp.wire.records import Protocol
from dwcp_replica.core.effects import Alarm, Received
from dwcp_replica.sim.engines import Together
from dwcp_replica.sim.explore import Bound, Cluster, Explored, delayed, everything
from dwcp_replica.sim.memo import hashes_remembered
from dwcp_replica.sim.staging import Stage

WAITS: Final = 3
BODIES: Final = frozenset({"FetchBodies", "Bodies"})


def two_faces_pbft() -> Cluster:
    """PBFT's primary proposes two entries for one place and votes for both; epochs may end."""
    kinds = frozenset({"PrePrepare", "Prepare", "Commit", "Panics"})
    stage = Stage("pbft", kinds, liar=0, twins=True)
    for twin, value in enumerate(("this", "that")):
        stage.give_twin(twin, stage.put(value))
    for number in stage.sent(PrePrepare, 1):
        stage.lie(stage.votes(0, stage.proposed(number))[1])
    stage.dismiss_twins()
    stage.lie(stage.panics(0, 1))
    return stage.cluster


def two_faces_raft() -> Cluster:
    """Raft's leader is two engines with one key, each with another entry; epochs may end."""
    kinds = frozenset({"Append", "Prepare", "Commit", "Panics"})
    stage = Stage("raft", kinds, liar=0, twins=True)
    for twin, value in enumerate(("this", "that")):
        stage.give_twin(twin, stage.put(value))
    stage.lie(stage.panics(0, 1))
    return stage.cluster


def one_certificate() -> Cluster:
    """An honest primary proposes; a liar votes for it, so that its CC may be at one member only."""
    stage = Stage("pbft", frozenset({"PrePrepare", "Prepare", "Commit", "Panics"}), liar=3)
    stage.give(0, stage.put("an entry"), settle=False)
    (number,) = stage.sent(PrePrepare, 2)
    for vote in stage.votes(3, stage.proposed(number)):
        stage.lie(vote)
    stage.lie(stage.panics(0, 3))
    return stage.cluster


def seal_sets() -> Cluster:
    """An entry is final at the primary alone, by a liar's votes; epochs may end.

    The next slot's primary lacks the entry, and the liar's SEAL shows nothing, or an entry of a
    term that nobody was elected for.
    """
    stage = Stage("pbft", liar=3)
    stage.give(0, stage.put("final at one"), settle=False)
    stage.hear(2, PrePrepare)
    (number,) = stage.sent(PrePrepare, 2)
    for vote in stage.votes(3, stage.proposed(number)):
        stage.hear(0, Prepare)
        stage.hear(2, Prepare)
        for member in (0, 2):
            stage.give(member, Received(3, vote), settle=False)
    stage.hear(0, Commit)
    trigger = stage.panics(0, 3)
    stage.engines.only(frozenset({"Panics", "Seal", "SlotProposal", "SlotVote", *BODIES}))
    stage.lie(trigger)
    stage.lie(stage.bare_seal(3, trigger))
    invented = msgspec.structs.replace(stage.proposed(number), term=2, sig=bytes(64))
    stage.lie(stage.bare_seal(3, trigger, invented))
    return stage.cluster


def lying_switch(*, admin: bool) -> Cluster:
    """The primary alone wants another epoch: it proposes that, shows proofs, and PANICs twice.

    What it proposes is its own request, or an order that the admin has signed for another epoch.
    """
    stage = Stage("pbft", frozenset({"PrePrepare", "Prepare", "Panics", "SwitchProof"}), liar=0)
    switch = stage.order_of(epoch=1) if admin else stage.request_of(0)
    entry = stage.entry_of(0, switch)
    stage.lie(PrePrepare(entry))
    vote = VoteSig(0, stage.votes(0, entry.header)[0].sig)
    stage.lie(SwitchProof(entry, (), Certificate("prepare", entry.header, b"", (vote,))))
    stage.lie(stage.panics(0))
    stage.lie(stage.panics(0, 0))
    stage.cluster.lasting = True
    return stage.cluster


def slot(*, late: bool) -> Cluster:
    """All have sealed; the slot's primary lies: two values for one record, and both its votes.

    It shows one value to member 0, the other to 3, both to 2. Member 0 alone holds an entry, so
    that the values differ in where the next epoch starts. When it is `late`, each member may lose
    patience once: then view 1 has an honest primary.
    """
    stage = Stage("pbft", liar=1)
    stage.give(0, stage.put("held by one"), settle=False)
    trigger = stage.panics(0, 1)
    for member in (0, 2, 3):
        stage.give(member, Received(1, trigger), settle=False)
    bare = stage.bare_seal(1, trigger)
    for member in (0, 2, 3):
        stage.hear(member, Seal)
        stage.give(member, Received(1, bare), settle=False)
    seals = [stage.sent_seal(0), bare, stage.sent_seal(2), stage.sent_seal(3)]
    stage.engines.only(frozenset({"SlotProposal", "SlotVote", "SlotChange"}))
    for shown, told in (((0, 1, 2), (0, 2)), ((1, 2, 3), (2, 3))):
        value = stage.value(0, tuple(seals[member] for member in shown))
        proposal = stage.slot_proposal(1, value)
        votes = [Received(1, vote) for vote in stage.slot_votes(1, 0, value.record.hash())]
        for to in told:  # whoever passes it on is asked for what it rests on
            stage.anyhow(to, Together((Received(2 if to == 0 else 0, proposal), *votes)))
    if late:
        stage.lie(stage.slot_change(1, 1))
    for number in stage.later(500) if late else ():
        stage.cluster.anyhow |= 1 << number
    return stage.cluster


def whole(protocol: Protocol, *, crashes: bool, liar: int | None = None) -> Cluster:
    """Two epochs: two operations, PANIC in the middle of the second, two operations more.

    A liar is two engines with one key, of which one has proposed something else first.
    """
    stage = Stage(protocol, liar=liar, twins=True, crashes=crashes, timely=True)
    cause = stage.engines.cause
    other = () if liar is None else stage.give_twin(1, stage.put("other"))
    script = [
        (
            *other,
            cause(0, stage.put("first")),
        ),
        (cause(0, stage.put("second")), cause(1, Alarm()), cause(2, Alarm())),
        (cause(1, stage.put("third")), cause(2, stage.put("fourth"))),
        *(stage.later(100) for _ in range(WAITS)),
    ]
    stage.cluster.script = tuple(script)
    return stage.cluster


@dataclass(frozen=True, slots=True)
class Scene:
    """What is explored, in which way, and how far: in a moment, or at length."""

    what: str
    begin: Callable[[], Cluster]
    how: Literal["everything", "delayed"]
    short: Bound
    long: Bound


ALL: Final = Bound(depth_max=1000, states_max=1_000_000)
"""As far as a scene goes: to its end."""


def runs(delays: int) -> Bound:
    """Whole runs with so many disturbances."""
    return Bound(depth_max=10_000, states_max=1_000_000, delays_max=delays)


SCENES: Final = {
    "two-faces-pbft": Scene(
        "a PBFT primary proposes two entries for one place, votes for both; epochs may end",
        two_faces_pbft,
        "everything",
        Bound(3, 100_000),
        ALL,
    ),
    "two-faces-raft": Scene(
        "a Raft leader is two engines with one key, each with an entry of its own; epochs may end",
        two_faces_raft,
        "everything",
        Bound(6, 100_000),
        ALL,
    ),
    "one-certificate": Scene(
        "an honest PBFT primary proposes one entry, a liar votes for it; epochs may end",
        one_certificate,
        "everything",
        ALL,
        ALL,
    ),
    "lying-switch": Scene(
        "the primary alone wants another epoch, by its own request, false proofs and PANICs",
        partial(lying_switch, admin=False),
        "everything",
        ALL,
        ALL,
    ),
    "old-order": Scene(
        "the primary alone wants another epoch, by what the admin has signed for another one",
        partial(lying_switch, admin=True),
        "everything",
        ALL,
        ALL,
    ),
    "seal-sets": Scene(
        "an entry is final at one member, the next slot's primary lacks it, a liar denies it",
        seal_sets,
        "everything",
        Bound(3, 100_000),
        ALL,
    ),
    "slot": Scene(
        "the slot's primary shows two values for the next record, and votes for both",
        partial(slot, late=False),
        "everything",
        ALL,
        ALL,
    ),
    "slot-late": Scene(
        "the same, and members lose patience: another view of the slot",
        partial(slot, late=True),
        "everything",
        Bound(2, 100_000),
        Bound(1000, 2000),
    ),
    "whole-pbft": Scene(
        "two epochs of PBFT with losses, overtaking and crashes",
        partial(whole, "pbft", crashes=True),
        "delayed",
        runs(0),
        runs(1),
    ),
    "whole-raft": Scene(
        "Raft, then PBFT, with losses, overtaking and crashes",
        partial(whole, "raft", crashes=True),
        "delayed",
        runs(0),
        runs(1),
    ),
    "whole-lying-pbft": Scene(
        "the primary of the first epoch lies",
        partial(whole, "pbft", crashes=False, liar=0),
        "delayed",
        runs(0),
        runs(1),
    ),
    "whole-lying-raft": Scene(
        "the leader of the first epoch lies",
        partial(whole, "raft", crashes=False, liar=0),
        "delayed",
        runs(0),
        runs(1),
    ),
}
"""By name."""


def explore(
    name: str,
    bound: Bound | None = None,
    *,
    at_length: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Explored:
    """Explore a scene to its bound, or to this one."""
    scene = SCENES[name]
    bound = bound or (scene.long if at_length else scene.short)
    with hashes_remembered():
        cluster = scene.begin()
        cluster.name = name
        return (everything if scene.how == "everything" else delayed)(cluster, bound, stop)
