"""Mutated frames of every kind between members: no crash, no state change, each one counted.

`DWCP_FUZZ_FRAMES` sets how many of each kind; `make long` uses 100,000.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import get_args

import pytest

from dwcp.wire.peer import PeerMessage
from dwcp_replica.core.effects import MessageRefused, Received
from replica.core.conversation import Conversation
from replica.core.interference import KINDS, LIVES, Interference, Make
from replica.mutations import Tally, smallest

FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "600"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))


def test_mutated_frames_change_nothing() -> None:
    """At every moment of several lives, and the lives go on unharmed."""
    print(f"replay: DWCP_FUZZ_SEED={SEED} DWCP_FUZZ_FRAMES={FRAMES} pytest {__name__}")
    tally = Tally(FRAMES)
    Interference(tally, Random(SEED)).run()
    print("\n".join(tally.lines()))
    assert set(tally.counts) == KINDS
    assert all(counts.total() == FRAMES for counts in tally.counts.values())
    for kind in KINDS - {"Status", "Fetch", "FetchBodies", "FetchElections"}:
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


@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_the_lives_are_those_of_a_cluster_at_peace(live: Callable[[Make], None]) -> None:
    """Without interference they end as with it."""
    live(lambda interval: Conversation(interval=interval, timeout_ms=400))
