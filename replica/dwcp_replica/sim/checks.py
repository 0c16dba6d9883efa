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
from dwcp.wire.epochs import Ready
from dwcp.wire.operations import EnvelopeFailure, RangeRequest
from dwcp.wire.peer import PeerMessage
from dwcp.wire.records import EpochRecord
from dwcp_replica.core.effects import (
    CertificateRecord,
    CheckpointStable,
    EpochBegun,
    Event,
    EvidenceFound,
    Halted,
    MessageRefused,
    Record,
    Retired,
    StateDiverged,
    TransferDone,
    ViewChangeStarted,
    ViewEntered,
    VoiceFound,
)
from dwcp_replica.core.state import IN_FLIGHT_MAX, WINDOW_INTERVALS
from dwcp_replica.sim.client import Call
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.ledger import BrokenPromiseError
from dwcp_replica.sim.linear import key_histories, key_step, linearizable
from dwcp_replica.sim.promises import Promises
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
        self._crash = scenario.trust == "Crash"
        self.epochs = 1
        self._window = WINDOW_INTERVALS * max(scenario.interval, IN_FLIGHT_MAX)
        self._promises: dict[int, Promises] = {}
        self._records: dict[int, EpochRecord] = {}
        self._who: dict[bytes, int] = {}
        self._final_top: dict[int, int] = {}
        self._reached: dict[int, int] = {}
        self._outcomes: dict[int, tuple[Outcome, ...]] = {}
        self._places: dict[bytes, int] = {}
        self._position: dict[int, tuple[int, int]] = {}
        self._stable: dict[tuple[int, int], int] = {}
        self._states: dict[int, bytes] = {}
        self._certified: dict[tuple[int, int, int], bytes] = {}

    # --- a life begins, records, messages ------------------------------------------------------

    def started(self, host: Host) -> None:
        """A new life executes on from the state that its disk holds."""
        self._who[host.identity] = host.me
        self._records.setdefault(0, host.genesis)
        if host.honest:
            self._promises.setdefault(host.me, Promises(self._window))
        index = host.store.applied_index
        self._position[host.me] = (host.life, index)
        if host.store.target is None:
            self._reached[host.me] = max(self._reached.get(host.me, 0), index)
        if index % self._interval == 0 and index and host.store.target is None:
            self._same_state(host, index, host.store.digest())

    def durable(self, host: Host, record: Record) -> None:
        """A record is synced: a certificate must have a quorum behind it."""
        if host.me not in self._promises:
            return
        try:
            self._promises[host.me].durable(record)
        except BrokenPromiseError as broken:
            self._fail(host, f"promise: {broken}")
        if isinstance(record, EpochBegun):
            self._begun(host, record.certified.record, record.certified.view)
        if not isinstance(record, CertificateRecord):
            return
        header, kind = record.certificate.header, record.certificate.kind
        hash_ = header.hash()
        if kind == "prepare":
            key = (header.epoch, header.term, header.index)
            if self._certified.setdefault(key, hash_) != hash_:
                self._fail(host, f"agreement: two CCs for epoch, term, index {key}")
            holders = {m for m, one in self._promises.items() if hash_ in one.entries}
            self._needs_quorum(host, holders, f"CC at {header.index}", header.epoch)
        elif kind == "commit":
            self._final(host, header.index, hash_, header.epoch)

    def _follow(self, host: Host) -> None:
        """What is executed may be final by a record that nobody's disk holds yet: it is decided.

        The mute write nothing, and may be the first to execute up to where an epoch starts. Others
        make the record durable before they execute by it, and are judged then: in memory their own
        vote for it may stand that is not durable yet.
        """
        for certified in host.core.certified[len(self._records) - 1 :]:
            self._begun(host, certified.record, certified.view)

    def _begun(self, host: Host, record: EpochRecord, view: int) -> None:
        """An epoch's record is durable: the same for all, decided by a quorum, no final lost."""
        epoch, value = record.epoch, record.hash()
        if self._records.setdefault(epoch, record).hash() != value:
            self._fail(host, f"agreement: two records of epoch {epoch}")
        self.epochs = max(self.epochs, epoch + 1)
        behind = {m for m, one in self._promises.items() if one.committed(epoch - 1, view, value)}
        self._needs_quorum(host, behind, f"record of epoch {epoch}", epoch - 1)
        top = self._final_top.get(epoch - 1, 0)
        if record.start_index < top:
            self._fail(host, f"final: epoch {epoch} starts below the final entry {top}")
        self._starts(host, record.start_index)

    def _starts(self, host: Host, index: int) -> None:
        """Where a record starts, everybody executes what it names."""
        for record in self._records.values():
            here = self.chain.get(index)
            if record.start_index == index and here not in (None, record.start_hash) and index:
                self._fail(host, f"final: epoch {record.epoch} starts on another chain")

    def _final(self, host: Host, index: int, hash_: bytes, epoch: int) -> None:
        """A quorum certified the entry, or a decided record starts above it."""
        place = (index, hash_)
        if self._crash:  # executed at the first certificate
            holders = {m for m, one in self._promises.items() if hash_ in one.entries}
        else:
            holders = {m for m, one in self._promises.items() if place in one.certified}
        following = self._records.get(epoch + 1)
        if following is not None and index <= following.start_index:
            return  # checked where the record starts: the hash there covers it
        self._needs_quorum(host, holders, f"final entry at {index}", epoch)
        self._final_top[epoch] = max(self._final_top.get(epoch, 0), index)

    def sent(self, host: Host, message: PeerMessage) -> None:
        """An honest member's message leaves."""
        if isinstance(message, Ready):
            start = self._records[message.epoch].start_index
            if self._reached.get(host.me, 0) < start:
                self._fail(host, f"promise: READY in epoch {message.epoch} without its start state")
        try:
            mute = host.disk.mute is not None
            self._promises[host.me].sent(message, host.life, mute=mute)
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
        self._reached[host.me] = max(self._reached.get(host.me, 0), index)
        if index not in self.chain:
            if host.disk.mute is not None:
                self._follow(host)
            self._final(host, index, hash_, self._epoch_of(index))
            self._once(host, index, outcomes)
        if self.chain.setdefault(index, hash_) != hash_:
            self._fail(host, f"agreement: executed another entry than others at {index}")
        self._starts(host, index)
        if self._outcomes.setdefault(index, outcomes) != outcomes:
            self._fail(host, f"agreement: has other results than others at {index}")
        for outcome in outcomes:
            if outcome.request not in self.submitted:
                self._fail(host, f"validity: executed at {index} what no client sent")

    def _epoch_of(self, index: int) -> int:
        """The epoch that an entry which is executed belongs to."""
        ended = [e - 1 for e, r in self._records.items() if e and index <= r.start_index]
        return min(ended, default=max(self._records))

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
        self._reached[host.me] = max(self._reached.get(host.me, 0), index)
        self._same_state(host, index, state)

    def digested(self, host: Host, index: int, state: bytes) -> None:
        """A state was digested: equal for all."""
        if host.honest:
            self._promises[host.me].states[index] = state
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
        self._changed(host, event)
        match event:
            case MessageRefused(_, _, reason):
                self.refused[reason] += 1
            case EvidenceFound(member, _, proof):
                record = self._records[proof.first.epoch]
                who = self._who.get(record.members[member].identity)
                if who not in self._liars:
                    self._fail(host, f"integrity: convicted the honest member {who}")
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
                epoch = host.record.epoch
                ledgers = {m: one.of(epoch) for m, one in self._promises.items()}
                asked = {m for m, o in ledgers.items() if view in o.changes or view in o.votes}
                self._needs_quorum(host, asked, f"view {view}", epoch)

    def _changed(self, host: Host, event: Event) -> None:
        """Who speaks again, and who may stop serving."""
        match event:
            case VoiceFound(epoch):
                if epoch <= self._promises[host.me].spoke_in:
                    self._fail(host, f"voice: back in epoch {epoch}, where it may have voted")
            case Retired(epoch):
                self._may_retire(host, epoch)

    def _stabilised(self, host: Host, index: int, state: bytes) -> None:
        key = (host.me, host.life if host.disk.mute else 0)  # a damaged log forgets
        if index <= self._stable.get(key, 0):
            self._fail(host, f"checkpoint: went from {self._stable[key]} to {index}")
        self._stable[key] = index
        same = {m for m, one in self._promises.items() if one.states.get(index) == state}
        self._needs_quorum(host, same, f"stable checkpoint {index}", host.record.epoch)

    def _may_retire(self, host: Host, epoch: int) -> None:
        """Old state may go once f'+1 honest new members hold the start state."""
        record = self._records[epoch]
        members = {self._who.get(member.identity) for member in record.members}
        holders = [
            m
            for m in self._promises
            if m in members and self._reached.get(m, 0) >= record.start_index
        ]
        if len(holders) <= (len(record.members) - 1) // 3:
            self._fail(host, f"retired: only {holders} hold the start of epoch {epoch}")

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

    def _needs_quorum(self, host: Host, members: set[int], what: str, epoch: int) -> None:
        record = self._records[epoch]
        voters = {self._who[m.identity] for m in record.members if m.identity in self._who}
        behind = (members | self._faulty) & voters
        if len(behind) < 2 * ((len(record.members) - 1) // 3) + 1:  # spelled out: trusts no one
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
