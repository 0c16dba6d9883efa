"""What must hold, checked while it happens, by somebody who sees all disks and all messages.

Agreement, total order, validity, exactly once, integrity; and, since those break late, what they
rest on: no certificate without a quorum behind it that had made durable what it voted for, and no
promise of an honest member broken (ledger.py). The log is one witness of the clients' history;
the search in linear.py is another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dwcp.matching import Lie
from dwcp.outcomes import Answered
from dwcp.wire.envelope import decode_results
from dwcp.wire.operations import EnvelopeFailure, RangeRequest
from dwcp.wire.peer import PeerMessage
from dwcp_replica.core.effects import (
    CertificateRecord,
    CheckpointStable,
    Event,
    EvidenceFound,
    Halted,
    MessageRefused,
    Record,
    StateDiverged,
    TransferDone,
    ViewChangeStarted,
    ViewEntered,
)
from dwcp_replica.core.state import IN_FLIGHT_MAX, WINDOW_INTERVALS
from dwcp_replica.sim.client import Call
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.ledger import BrokenPromiseError, Ledger
from dwcp_replica.sim.linear import key_histories, key_step, linearizable
from dwcp_replica.sim.scenario import Scenario
from dwcp_replica.store.store import Outcome, Store


class Violation(Exception):  # noqa: N818 - the field's word
    """A promise was broken; the message says which, where and when."""


class Checker:
    """Holds everything that honest replicas did against what they promise."""

    def __init__(self, scenario: Scenario) -> None:
        self.submitted: set[bytes] = set()
        self.chain: dict[int, bytes] = {}
        self.events: list[tuple[int, Event]] = []
        self.refused: Counter[str] = Counter()
        self.views = 1
        self.transfers = 0
        self._liars = frozenset(scenario.liars)
        self._faulty = scenario.faulty
        self._interval = scenario.interval
        self.convicted = False
        self._crash = scenario.trust == "Crash"
        # spelled out: a checker trusts no one
        self._q = scenario.n // 2 + 1 if self._crash else 2 * ((scenario.n - 1) // 3) + 1
        window = WINDOW_INTERVALS * max(scenario.interval, IN_FLIGHT_MAX)
        self._ledgers = {m: Ledger(window) for m in range(scenario.n) if m not in self._liars}
        self._outcomes: dict[int, tuple[Outcome, ...]] = {}
        self._places: dict[bytes, int] = {}
        self._position: dict[int, tuple[int, int]] = {}
        self._stable: dict[tuple[int, int], int] = {}
        self._states: dict[int, bytes] = {}
        self._certified: dict[tuple[int, int], bytes] = {}

    # --- a life begins, records, messages ------------------------------------------------------

    def started(self, host: Host) -> None:
        """A new life executes on from the state that its disk holds."""
        index = host.store.applied_index
        self._position[host.me] = (host.life, index)
        if index % self._interval == 0 and index and host.store.target is None:
            self._same_state(host, index, host.store.digest())

    def durable(self, host: Host, record: Record) -> None:
        """A record is synced: a certificate must have a quorum behind it."""
        ledger = self._ledgers.get(host.me)
        if ledger is None:
            return
        ledger.durable(record)
        if not isinstance(record, CertificateRecord):
            return
        header, kind = record.certificate.header, record.certificate.kind
        hash_ = header.hash()
        if kind == "prepare":
            key = (header.term, header.index)
            if self._certified.setdefault(key, hash_) != hash_:
                self._fail(host, f"agreement: two CCs for term {key[0]}, index {key[1]}")
            holders = {m for m, one in self._ledgers.items() if hash_ in one.entries}
            self._needs_quorum(host, holders, f"CC at {header.index}")
        elif kind == "commit":
            self._final(host, header.index, hash_)

    def _final(self, host: Host, index: int, hash_: bytes) -> None:
        place = (index, hash_)
        if self._crash:  # executed at the first certificate
            holders = {m for m, one in self._ledgers.items() if hash_ in one.entries}
        else:
            holders = {m for m, one in self._ledgers.items() if place in one.certified}
        self._needs_quorum(host, holders, f"final entry at {index}")

    def sent(self, host: Host, message: PeerMessage) -> None:
        """An honest member's message leaves."""
        try:
            mute = host.disk.mute is not None
            self._ledgers[host.me].sent(message, host.life, mute=mute)
        except BrokenPromiseError as broken:
            self._fail(host, f"promise: {broken}")

    # --- execution -----------------------------------------------------------------------------

    def executed(self, host: Host, index: int, hash_: bytes, outcomes: tuple[Outcome, ...]) -> None:
        """An entry was executed: in order, the same for all, each request once, each signed."""
        if not host.honest:
            return
        life, before = self._position[host.me]
        if index != before + 1 or life != host.life:
            self._fail(host, f"order: index {index} follows {before}")
        self._position[host.me] = (life, index)
        if index not in self.chain:
            self._final(host, index, hash_)
            self._once(host, index, outcomes)
        if self.chain.setdefault(index, hash_) != hash_:
            self._fail(host, f"agreement: executed another entry than others at {index}")
        if self._outcomes.setdefault(index, outcomes) != outcomes:
            self._fail(host, f"agreement: has other results than others at {index}")
        for outcome in outcomes:
            if outcome.request not in self.submitted:
                self._fail(host, f"validity: executed at {index} what no client sent")

    def _once(self, host: Host, index: int, outcomes: tuple[Outcome, ...]) -> None:
        """A repetition gets the first answer or is refused; it is never executed."""
        for outcome in outcomes:
            refused = any(isinstance(r, EnvelopeFailure) for r in decode_results(outcome.results))
            if outcome.duplicate or refused:
                continue
            first = self._places.get(outcome.request)
            if first is not None:
                self._fail(host, f"exactly once: executed a request of {first} again at {index}")
            self._places[outcome.request] = index

    def restored(self, host: Host, index: int, state: bytes) -> None:
        """A state came from others: it is the one that was certified, and execution goes on."""
        self._position[host.me] = (host.life, index)
        self._same_state(host, index, state)

    def digested(self, host: Host, index: int, state: bytes) -> None:
        """A state was digested: equal for all."""
        if host.honest:
            self._ledgers[host.me].states[index] = state
            self._same_state(host, index, state)

    def _same_state(self, host: Host, index: int, state: bytes) -> None:
        if host.honest and self._states.setdefault(index, state) != state:
            self._fail(host, f"state: differs from others after {index}")

    # --- events --------------------------------------------------------------------------------

    def event(self, host: Host, event: Event) -> None:
        """An engine reports: no honest member is ever convicted, no stable checkpoint goes back."""
        if not host.honest:
            return
        self.events.append((host.me, event))
        match event:
            case MessageRefused(_, _, reason):
                self.refused[reason] += 1
            case EvidenceFound(member) if member not in self._liars:
                self._fail(host, f"integrity: convicted the honest member {member}")
            case EvidenceFound():
                self.convicted = True
            case StateDiverged(index):
                self._fail(host, f"state: differs from the stable checkpoint {index}")
            case TransferDone():
                self.transfers += 1
            case Halted(reason):
                self._fail(host, f"halt: {reason}")
            case CheckpointStable(index, state):
                self._stabilised(host, index, state)
            case ViewChangeStarted(view):
                self.views = max(self.views, view)
            case ViewEntered(view) if view > 1:
                self.views = max(self.views, view)
                asked = {
                    m
                    for m, one in self._ledgers.items()
                    if view in one.changes or view in one.votes
                }
                self._needs_quorum(host, asked, f"view {view}")

    def _stabilised(self, host: Host, index: int, state: bytes) -> None:
        key = (host.me, host.life if host.disk.mute else 0)  # a damaged log forgets
        if index <= self._stable.get(key, 0):
            self._fail(host, f"checkpoint: went from {self._stable[key]} to {index}")
        self._stable[key] = index
        same = {m for m, one in self._ledgers.items() if one.states.get(index) == state}
        self._needs_quorum(host, same, f"stable checkpoint {index}")

    # --- the end -------------------------------------------------------------------------------

    def history(self, calls: Sequence[Call]) -> None:
        """The clients' history is linearizable: by the log's order, and by search."""
        returned = [call for call in calls if _ordered(call)]
        for call in returned:
            self._answer_holds(call)
        by_return = sorted(returned, key=lambda call: call.returned_ms or 0)
        by_invoke = sorted(returned, key=lambda call: call.invoked_ms)
        highest = done = 0
        for call in by_invoke:
            while done < len(by_return) and _before(by_return[done], call):
                highest = max(highest, _index(by_return[done]))
                done += 1
            if _index(call) < highest:
                raise Violation(
                    f"linearizability: {call.client}'s operation at {call.invoked_ms} ms stands "
                    f"at index {_index(call)}, after {highest} had been answered"
                )
        for key, operations in key_histories(calls).items():
            if not linearizable(operations, key_step, None):
                raise Violation(f"linearizability: no order of the operations on {key!r} fits")

    def reads(self, calls: Sequence[Call], store: Store) -> None:
        """Every read beside the log shows the keys as they were at the revision it names."""
        for call in calls:
            if not isinstance(call.outcome, Answered) or call.outcome.ordered:
                continue
            assert isinstance(call.operation, RangeRequest), "only reads go beside the log"
            revision = call.outcome.revision
            then = RangeRequest(call.operation.key, revision=revision)
            said = decode_results(store.read(b"", (then,))[1]) if revision <= store.revision else ()
            if said != call.outcome.results:
                raise Violation(
                    f"read: {call.client} was told at {call.invoked_ms} ms what revision "
                    f"{revision} never was"
                )

    def lies(self, client: str, lies: Sequence[Lie]) -> None:
        """A client names only members that lie."""
        for lie in lies:
            if lie.member not in self._liars:
                raise Violation(f"integrity: {client} named the honest member {lie.member}")

    def _answer_holds(self, call: Call) -> None:
        outcome = call.outcome
        assert isinstance(outcome, Answered)
        for executed in self._outcomes.get(outcome.index, ()):
            results = decode_results(executed.results)
            if all(result in results for result in outcome.results):
                return
        raise Violation(f"answer: {call.client} was told what index {outcome.index} never said")

    def _needs_quorum(self, host: Host, members: set[int], what: str) -> None:
        behind = members | self._faulty
        if len(behind) < self._q:
            self._fail(host, f"quorum: {what} has only {sorted(behind)} behind it")

    def _fail(self, host: Host, what: str) -> None:
        kind, rest = what.split(": ", 1)
        raise Violation(f"{kind}: {host.name} at {host.world.now_ms} ms: {rest}")


def _ordered(call: Call) -> bool:
    return isinstance(call.outcome, Answered) and call.outcome.ordered


def _index(call: Call) -> int:
    assert isinstance(call.outcome, Answered)
    return call.outcome.index


def _before(first: Call, second: Call) -> bool:
    assert first.returned_ms is not None
    return first.returned_ms < second.invoked_ms
