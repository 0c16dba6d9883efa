"""What our checker calls linearizable, porcupine does too: two programs that share no line."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dwcp_replica.sim.linear import Operation, key_histories
from dwcp_replica.sim.run import Simulation
from dwcp_replica.sim.scenario import derive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LIVES = 36
OPERATIONS = 300
"""In one life, by three clients at once."""


def lines(life: int, key: bytes, history: list[Operation]) -> Iterator[str]:
    for number, operation in enumerate(history):
        kind, value = operation.action  # type: ignore[misc]
        shown = value.decode() if isinstance(value, bytes) else value
        one: dict[str, Any] = {
            "client": number,
            "kind": kind,
            "key": f"{life}/{key.decode()}",
            "value": shown,
            "call": operation.called,
            "return": operation.returned,
        }
        yield json.dumps(one)


def verdict(program: Path, history: list[str]) -> str:
    text = "\n".join(history) + "\n"
    done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def porcupine(peer: Callable[[str], Path]) -> Path:
    return peer("porcupine") / "porcupine"


def test_histories_under_faults_are_linearizable(
    porcupine: Path, tell: Callable[[str], None]
) -> None:
    """Ours has judged each life when it ends; here the other one judges all of them."""
    history: list[str] = []
    for seed in range(LIVES):
        life = Simulation(derive(seed, 4, OPERATIONS))
        life.run()
        calls = [call for client in life.clients for call in client.calls]
        for key, one in sorted(key_histories(calls).items()):
            history += lines(seed, key, one)
    assert len(history) >= 10_000
    assert verdict(porcupine, history) == "ok"
    tell(f"porcupine: {len(history)} operations of {LIVES} lives under faults are linearizable")


def test_a_stale_read_is_noticed(porcupine: Path) -> None:
    writes = [Operation(1, 2, ("put", b"x")), Operation(3, 4, ("put", b"y"))]
    stale = Operation(5, 6, ("get", b"x"))
    assert verdict(porcupine, list(lines(0, b"k", [*writes, stale]))) == "illegal"
