"""Mutated frames of every kind between members: no crash, no state change, each one counted.

`DWCP_FUZZ_FRAMES` sets how many of each kind; `make long` uses 100,000.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from replica.core.conversation import Conversation
from replica.core.interference import KINDS, LIVES, Interference
from replica.mutations import Tally

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


@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_the_lives_are_those_of_a_cluster_at_peace(live: object) -> None:
    """Without interference they end as with it."""
    assert callable(live)
    live(lambda interval: Conversation(interval=interval, timeout_ms=400))
