"""What must hold, checked while it happens: one order for all, executed once, signed by a client.

The log is a witness of the order, so that no search is needed: an operation that returned before
another was invoked must stand before it, and every answer must be what executing the log gives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dwcp.outcomes import Answered
from dwcp.wire.envelope import decode_results
from dwcp_replica.core.effects import (
    CheckpointStable,
    Event,
    EvidenceFound,
    Halted,
    StateDiverged,
    ViewEntered,
)
from dwcp_replica.sim.client import Call
from dwcp_replica.sim.host import Host
from dwcp_replica.store.store import Outcome


class Violation(Exception):  # noqa: N818 - the field's word
    """A promise was broken; the message says which, where and when."""


@dataclass(slots=True)
class Checker:
    """Holds everything that honest replicas did against what they promise."""

    submitted: set[bytes]
    liars: set[int]
    chain: dict[int, bytes] = field(default_factory=dict)
    outcomes: dict[int, tuple[Outcome, ...]] = field(default_factory=dict)
    places: dict[bytes, int] = field(default_factory=dict)
    position: dict[tuple[int, int], int] = field(default_factory=dict)
    stable: dict[tuple[int, int], int] = field(default_factory=dict)
    events: list[tuple[int, Event]] = field(default_factory=list)
    views: int = 1

    def executed(self, host: Host, index: int, hash_: bytes, outcomes: tuple[Outcome, ...]) -> None:
        """An entry was executed: in order, the same for all, each request once, each signed."""
        if not host.honest:
            return
        where = f"{host.name} at {host.world.now_ms} ms, index {index}"
        before = self.position.get((host.me, host.life), 0)
        if index != before + 1:
            raise Violation(f"order: {where} follows {before}")
        self.position[(host.me, host.life)] = index
        if self.chain.setdefault(index, hash_) != hash_:
            raise Violation(f"agreement: {where} executed another entry than others")
        if self.outcomes.setdefault(index, outcomes) != outcomes:
            raise Violation(f"agreement: {where} has other results than others")
        for outcome in outcomes:
            if outcome.request not in self.submitted:
                raise Violation(f"validity: {where} executed what no client sent")
            if not outcome.duplicate and self.places.setdefault(outcome.request, index) != index:
                raise Violation(f"exactly once: {where} executed a request again")

    def event(self, host: Host, event: Event) -> None:
        """An engine reports: no honest member is ever convicted, no stable checkpoint goes back."""
        self.events.append((host.me, event))
        if not host.honest:
            return
        match event:
            case EvidenceFound(member) if member not in self.liars:
                raise Violation(f"integrity: {host.name} convicted the honest member {member}")
            case StateDiverged(index):
                raise Violation(f"state: {host.name} differs from the stable checkpoint {index}")
            case Halted(reason):
                raise Violation(f"halt: {host.name} at {host.world.now_ms} ms: {reason}")
            case CheckpointStable(index):
                key = (host.me, host.life)
                if index <= self.stable.get(key, 0):
                    raise Violation(f"checkpoint: {host.name} went back to {index}")
                self.stable[key] = index
            case ViewEntered(view):
                self.views = max(self.views, view)

    def history(self, calls: list[Call]) -> None:
        """The clients' history is linearizable, with the log as its order."""
        returned = [call for call in calls if isinstance(call.outcome, Answered)]
        for call in returned:
            self._answer_holds(call)
        by_return = sorted(returned, key=lambda call: call.returned_ms or 0)
        by_invoke = sorted(returned, key=lambda call: call.invoked_ms)
        highest = 0
        done = 0
        for call in by_invoke:
            while done < len(by_return) and _before(by_return[done], call):
                highest = max(highest, _index(by_return[done]))
                done += 1
            if _index(call) < highest:
                raise Violation(
                    f"linearizability: {call.client}'s operation at {call.invoked_ms} ms stands "
                    f"at index {_index(call)}, after {highest} had been answered"
                )

    def _answer_holds(self, call: Call) -> None:
        outcome = call.outcome
        assert isinstance(outcome, Answered)
        for executed in self.outcomes.get(outcome.index, ()):
            results = decode_results(executed.results)
            if all(result in results for result in outcome.results):
                return
        raise Violation(f"answer: {call.client} was told what index {outcome.index} never said")


def _index(call: Call) -> int:
    assert isinstance(call.outcome, Answered)
    return call.outcome.index


def _before(first: Call, second: Call) -> bool:
    assert first.returned_ms is not None
    return first.returned_ms < second.invoked_ms
