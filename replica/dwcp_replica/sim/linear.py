"""Is a history linearizable? A search, independent of the log that the checker otherwise trusts.

Wing and Gong 1993, with Lowe's memory of (what was placed, state) pairs (2017). An operation
may be placed when it was called before the first return among those not placed; where no
operation fits, the last choice is undone. An operation without a return may be placed at any
time after its call, the very end included.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from dwcp.outcomes import Answered
from dwcp.wire.operations import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
)
from dwcp_replica.sim.client import Call

STEPS_MAX = 20_000_000


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: `returned` is None when nobody knows; equal times count as concurrent."""

    called: int
    returned: int | None
    action: Hashable


Step = Callable[[Hashable, Hashable], tuple[bool, Hashable]]
"""(state, action with its answer) -> whether the answer fits, and the state after it."""


class UndecidedError(Exception):
    """The search took too many steps."""


class _Search:
    """The doubly linked list of events of one history, walked and unlinked in place."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        events: list[tuple[float, int, int]] = []
        for number, operation in enumerate(operations):
            end = float("inf") if operation.returned is None else float(operation.returned)
            events += [(float(operation.called), 0, number), (end, 1, number)]
        events.sort()
        self.size = len(events)
        self.next = [*range(1, self.size + 1), 0]
        self.before = [self.size, *range(self.size)]
        self.operation = [number for _, _, number in events]
        self.is_call = [kind == 0 for _, kind, _ in events]
        returns = {number: at for at, (_, kind, number) in enumerate(events) if kind == 1}
        self.return_of = [returns[number] for number in self.operation]

    def unlink(self, at: int) -> None:
        """Take an event out of the list."""
        self.next[self.before[at]] = self.next[at]
        self.before[self.next[at]] = self.before[at]

    def relink(self, at: int) -> None:
        """Put it back where it was."""
        self.next[self.before[at]] = at
        self.before[self.next[at]] = at


def linearizable(
    operations: Sequence[Operation], step: Step, initial: Hashable, steps_max: int = STEPS_MAX
) -> bool:
    """True when some order fits all answers. Raises UndecidedError after `steps_max` steps."""
    search = _Search(operations)
    head = search.size  # the list's anchor: its next is the first event
    search.next[head] = 0 if search.size else head
    state, placed = initial, 0
    seen: set[tuple[int, Hashable]] = set()
    choices: list[tuple[int, Hashable]] = []
    at = search.next[head]
    for _ in range(steps_max):
        if search.next[head] == head:
            return True
        if at != head and search.is_call[at]:
            number = search.operation[at]
            fits, after = step(state, operations[number].action)
            key = (placed | 1 << number, after)
            if fits and key not in seen:
                seen.add(key)
                choices.append((at, state))
                state, placed = after, key[0]
                search.unlink(at)
                search.unlink(search.return_of[at])
                at = search.next[head]
            else:
                at = search.next[at]
            continue
        if not choices:
            return False
        at, state = choices.pop()
        placed ^= 1 << search.operation[at]
        search.relink(search.return_of[at])
        search.relink(at)
        at = search.next[at]
    raise UndecidedError(f"no verdict after {steps_max} steps")


# --- what the simulated clients do: one register for each key ---------------------------------


def key_step(state: Hashable, action: Hashable) -> tuple[bool, Hashable]:
    """A key: put sets it, get returns it or None, delete says whether it was there."""
    assert isinstance(action, tuple), "an action is (kind, value)"
    kind, value = action
    if kind == "put":
        return True, value
    if kind == "get":
        return state == value, state
    return value == (state is not None), None


def key_histories(calls: Sequence[Call]) -> dict[bytes, list[Operation]]:
    """The clients' calls as one history for each key; unanswered reads say nothing, nor do those
    that may be old."""
    found: dict[bytes, list[Operation]] = {}
    for call in calls:
        if isinstance(call.operation, RangeRequest) and call.operation.serializable:
            continue
        action = _action(call)
        if action is not None:
            assert isinstance(call.operation, PutRequest | RangeRequest | DeleteRangeRequest)
            one = Operation(call.invoked_ms, call.returned_ms, action)
            found.setdefault(call.operation.key, []).append(one)
    return found


def _action(call: Call) -> tuple[str, Hashable] | None:
    answered = isinstance(call.outcome, Answered)
    match call.operation:
        case PutRequest(value=value):
            return ("put", value)
        case RangeRequest() if answered:
            response = _response(call)
            assert isinstance(response, RangeResponse), "a range is answered by a range"
            return ("get", response.kvs[0].value if response.kvs else None)
        case DeleteRangeRequest() if answered:
            response = _response(call)
            assert isinstance(response, DeleteRangeResponse), "a delete is answered by a delete"
            return ("delete", response.deleted > 0)
    return None


def _response(call: Call) -> object:
    assert isinstance(call.outcome, Answered)
    return call.outcome.results[0]
