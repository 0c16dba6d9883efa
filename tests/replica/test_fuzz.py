"""Mutated frames of every kind that strangers send: no crash, no state change, each one counted."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, get_args

import msgspec
import pytest

import dwcp
import dwcp_operator
import dwcp_replica
from dwcp.connection import Incoming
from dwcp.wire.decoding import decoder_of
from replica.mutations import Tally, mutated
from replica.strangers import Answers, targets
from replica.waiting import in_loop

FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "400"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))
NEVER_REFUSED = {"Challenge", "ServerHello", "EnvelopeBody", "QueryBody", "Pull"}
"""A nonce is answered whatever it is; what a client signs is its own."""


@in_loop
async def test_mutated_frames_change_nothing(tmp_path: Path) -> None:
    print(f"replay: DWCP_FUZZ_SEED={SEED} DWCP_FUZZ_FRAMES={FRAMES} pytest {__name__}")
    tally, draw = Tally(FRAMES), Random(SEED)
    for target in targets(tmp_path):
        target.disturb(tally, draw)
    print("\n".join(tally.lines()))
    assert {kind.__name__ for kind in get_args(Incoming)} <= set(tally.counts)
    for kind, counts in tally.counts.items():
        assert counts.total() == FRAMES
        reached = FRAMES - counts["undecodable"]
        assert reached > FRAMES // 50, f"{kind}: nothing decodes"
        assert counts["refused"] or kind in NEVER_REFUSED, f"{kind}: no check was reached"


@pytest.mark.parametrize("kind", ["Reply"])
def test_a_client_that_heard_mutated_answers_still_believes_the_true_ones(kind: str) -> None:
    answers = Answers(kind)
    answers.target().disturb(Tally(FRAMES), Random(SEED))
    assert answers.answered()


DEEP = [
    b"\x91" * 100_000 + b"\xc0",
    b"\x81\xa3zzz" + b"\x91" * 100_000 + b"\xc0",
    b'{"zzz":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]
"""Nested deeper than a decoder that recurses can go, also where a field is skipped."""


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """Every decoder that a module keeps, by its name."""
    made_by = decoder_of(int).__qualname__
    found = {}
    for package in (dwcp, dwcp_replica, dwcp_operator):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if module.name.endswith("__main__"):
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if getattr(value, "__qualname__", "") == made_by:
                    found[f"{module.name}.{name}"] = value
    return found


@in_loop
async def test_every_decoder_raises_one_kind_of_error(tmp_path: Path) -> None:
    """Whatever bytes come in, a decoder returns or raises msgspec.DecodeError."""
    draw = Random(SEED)
    pool = [frame for target in targets(tmp_path) for frame in target.genuine]
    frames = [mutated(pool[turn % len(pool)], draw) for turn in range(FRAMES)]
    frames += DEEP
    assert len(decoders()) > 10
    for name, decode in decoders().items():
        for frame in frames:
            try:
                decode(frame)
            except msgspec.DecodeError:
                continue
            except Exception as error:
                raise AssertionError(f"{name}({frame[:200]!r})") from error
