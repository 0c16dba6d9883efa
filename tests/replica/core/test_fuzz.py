"""Mutated frames of every kind between members: no crash, no state change, each one counted.

`DWCP_FUZZ_FRAMES` sets how many of each kind; `make long` uses 100,000.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import get_args

import pytest

from dwcp.wire.peer import Append, PeerMessage
from dwcp_replica.core.effects import MessageRefused, Received, TermRecord
from dwcp_replica.core.raft import following
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.state import Core
from dwcp_replica.sim.planting import Patches
from dwcp_replica.sim.raft_bugs import vote_without_log_check
from replica.core.conversation import Conversation
from replica.core.interference import KINDS, LIVES, Interference, raft_passes_the_lead_on
from replica.mutations import Tally, smallest

FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "600"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))

QUESTIONS = {
    "Appended",
    "Fetch",
    "FetchBodies",
    "FetchCheckpoint",
    "FetchElections",
    "FetchState",
    "PreVote",
    "Status",
}
QUESTIONS |= {"FetchValue", "FetchHistory", "FetchEpoch", "EpochBound"}
"""Changed, they are questions again, or hints that nobody believes."""
FOLLOWED = {"Records", "Panics", "SwitchProof"}
"""Who has followed them looks at them no further: tests/replica/core/epochs forges them."""


@pytest.mark.slow
def test_mutated_frames_change_nothing() -> None:
    """At every moment of several lives, and the lives go on unharmed."""
    print(f"replay: DWCP_FUZZ_SEED={SEED} DWCP_FUZZ_FRAMES={FRAMES} pytest {__name__}")
    tally = Tally(FRAMES)
    Interference(tally, Random(SEED)).run()
    print("\n".join(tally.lines()))
    assert set(tally.counts) == KINDS
    assert all(counts.total() == FRAMES for counts in tally.counts.values())
    for kind in KINDS - QUESTIONS - FOLLOWED:
        assert tally.counts[kind]["refused"] > FRAMES // 50, f"{kind}: no check was reached"


def test_kinds_that_occur_in_no_life_are_refused() -> None:
    """A kind that is new in the union must be mutated, or be of no use to anybody."""
    for kind in get_args(PeerMessage):
        if kind.__name__ in KINDS:
            continue
        engine = Conversation().replicas[0]
        before = engine.standing()
        ready = engine.step(Received(1, smallest(kind)))
        assert any(isinstance(event, MessageRefused) for event in ready.events), kind
        assert (ready.persist, ready.send, ready.apply) == ([], [], []), kind
        assert engine.standing() == before, kind


def test_every_kind_is_heard_in_some_life() -> None:
    """Without interference the lives end as with it, and each kind occurs."""
    heard: set[str] = set()

    def hear(_engine: Replica, _sender: int, message: PeerMessage) -> None:
        heard.add(type(message).__name__)

    for live in LIVES:
        live(hear)
    assert heard == KINDS


def any_term_is_believed(patches: Patches) -> None:
    """A follower takes over the term that an APPEND names."""
    proper = following.on_append

    def on_append(core: Core, sender: int, message: Append) -> None:
        if message.term > core.view:
            core.persist(TermRecord(message.term, None))
        proper(core, sender, message)

    patches.set(following, "on_append", on_append)


@pytest.mark.parametrize("plant", [any_term_is_believed, vote_without_log_check])
def test_what_a_part_of_a_message_does_is_looked_at(plant: Callable[[Patches], None]) -> None:
    """An APPEND keeps an entry under another term; a request for a vote shows less of a log."""
    interference = Interference(Tally(400), Random(1))
    patches = Patches()
    plant(patches)
    try:
        with pytest.raises(AssertionError) as caught:
            raft_passes_the_lead_on(interference.disturb)
    finally:
        patches.undo()
    assert {"take_the_part", "binds_what_was_shown"} & {frame.name for frame in caught.traceback}
