"""The search for an order, against histories whose verdict others have recorded."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dwcp_replica.sim.linear import Operation, Step, UndecidedError, key_step, linearizable


def cas_step(state: Hashable, action: Any) -> tuple[bool, Hashable]:
    kind, value, answer = action
    if kind == "read":
        return answer == state, state
    if kind == "write":
        return True, value
    expected, new = value
    if answer == "unknown":
        return True, new if state == expected else state
    return (state == expected) == (answer == "ok"), new if answer == "ok" else state


def append_step(state: Hashable, action: Any) -> tuple[bool, Hashable]:
    kind, value, answer = action
    assert isinstance(state, str)
    if kind == "get":
        return answer == state, state
    return True, value if kind == "put" else state + value


def operations(lines: list[dict[str, Any]]) -> dict[Hashable, list[Operation]]:
    """The calls of a history, by key."""
    open_calls: dict[int, tuple[int, dict[str, Any]]] = {}
    found: dict[Hashable, list[Operation]] = defaultdict(list)

    def close(process: int, at: int | None, answer: str, value: Any) -> None:
        called, call = open_calls.pop(process)
        given = tuple(call["value"]) if isinstance(call["value"], list) else call["value"]
        shown = value if call["f"] in ("read", "get") else answer
        if call["f"] in ("read", "get") and answer != "ok":
            return  # a read that tells nothing
        found[call.get("key")].append(Operation(called, at, (call["f"], given, shown)))

    for at, line in enumerate(lines):
        if line["type"] == "invoke":
            open_calls[line["process"]] = (at, line)
        elif line["type"] == "info":
            close(line["process"], None, "unknown", None)
        else:
            close(line["process"], at, line["type"], line["value"])
    for process in list(open_calls):
        close(process, None, "unknown", None)
    return found


def test_every_recorded_verdict_is_found(conformance: Path) -> None:
    histories = conformance / "histories"
    steps: dict[str, tuple[Step, Hashable]] = {
        "cas-register": (cas_step, None),
        "kv-append": (append_step, ""),
    }
    verdicts: list[dict[str, Any]] = json.loads((histories / "verdicts.json").read_text())
    found = {True: 0, False: 0}
    for case in verdicts:
        text = (histories / case["file"]).read_text().splitlines()
        step, initial = steps[case["model"]]
        by_key = operations([json.loads(line) for line in text])
        verdict = all(linearizable(calls, step, initial) for calls in by_key.values())
        assert verdict == case["linearizable"], case["id"]
        found[verdict] += 1
    print(f"histories: {found[True]} linearizable, {found[False]} not, as recorded")
    assert sum(found.values()) >= 57
    assert min(found.values()) > 10


def dumb(calls: list[Operation]) -> bool:
    """Every order, tried."""
    for order in permutations(calls):
        times_fit = all(
            not (late.returned is not None and late.returned < early.called)
            for at, early in enumerate(order)
            for late in order[at + 1 :]
        )
        state: Hashable = None
        fits = True
        for call in order if times_fit else ():
            good, state = key_step(state, call.action)
            fits = fits and good
        if times_fit and fits:
            return True
    return False


def test_it_agrees_with_trying_every_order() -> None:
    dice = Random(5)
    seen = {True: 0, False: 0}
    for _ in range(600):
        calls = []
        for number in range(dice.randint(1, 5)):
            called = dice.randint(0, 8)
            action: tuple[str, Hashable] = dice.choice(
                [("put", number), ("get", dice.choice([None, 0, 1, 2])), ("delete", True)]
            )
            calls.append(Operation(called, called + dice.randint(0, 5), action))
        expected = dumb(calls)
        assert linearizable(calls, key_step, None) == expected, calls
        seen[expected] += 1
    assert min(seen.values()) > 50, "both verdicts must occur"


def test_an_unanswered_write_may_or_may_not_have_happened() -> None:
    write = Operation(0, None, ("put", 1))
    assert linearizable([write, Operation(5, 6, ("get", 1))], key_step, None)
    assert linearizable([write, Operation(5, 6, ("get", None))], key_step, None)
    later = [write, Operation(5, 6, ("get", 1)), Operation(7, 8, ("get", None))]
    assert not linearizable(later, key_step, None)


def test_a_search_without_an_end_says_so() -> None:
    calls = [Operation(0, 10, ("put", number)) for number in range(8)]
    with pytest.raises(UndecidedError):
        linearizable([*calls, Operation(11, 12, ("get", 99))], key_step, None, steps_max=50)
