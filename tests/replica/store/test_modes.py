"""Reports through the log: the median decides, liars do not, and a forced mode is held."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from dwcp.wire.envelope import Batch, Envelope, EnvelopeBody, decode_results
from dwcp.wire.modes import ModeSetRequest, ModeSetResponse, NetworkReport, NetworkReported
from dwcp.wire.operations import (
    Access,
    AccessSetRequest,
    EnvelopeFailure,
    Failure,
    OpenSession,
    Operation,
    PutRequest,
    Result,
)
from dwcp.wire.records import EpochRecord, Member, ModePolicy, Parameters
from dwcp_replica.core.epochs.wishing import Wish
from dwcp_replica.core.quorum import faults
from dwcp_replica.store import RefusalReason, Store
from dwcp_replica.store.modes import REPORTS_LIVE
from dwcp_replica.store.records import MemoryRecords
from replica.store.driver import ALICE, BOB, GENESIS, NOW_MS

AUTO = ModePolicy(detect=True)
GBPS = 1_000_000_000


def genesis_of(n: int, policy: ModePolicy) -> EpochRecord:
    members = tuple(Member(f"m-{i}", bytes([i + 1]) * 32, bytes(32), "", "") for i in range(n))
    return msgspec.structs.replace(GENESIS, members=members, parameters=Parameters(modes=policy))


class Log:
    """A store, and whoever puts entries into its log."""

    def __init__(self, n: int = 4, policy: ModePolicy = AUTO) -> None:
        self.genesis = genesis_of(n, policy)
        self.store = Store(self.genesis)
        self.now_ms = NOW_MS
        self._session = 0
        self._sequence = 0

    def entry(self, *envelopes: Envelope) -> list[tuple[Result, ...]]:
        batch = Batch(self.now_ms, envelopes)
        outcomes = self.store.apply(self.store.applied_index + 1, batch)
        return [decode_results(outcome.results) for outcome in outcomes]

    def report(self, member: int, report: NetworkReport) -> Result:
        ((result,),) = self.entry(envelope(self.genesis.members[member].identity, report))
        return result

    def round(self, rtts_ms: Iterable[float | None], rate_bps: int | None = 10 * GBPS) -> None:
        """Every member reports; then ten seconds pass."""
        for member, rtt_ms in enumerate(rtts_ms):
            rtt_us = None if rtt_ms is None else round(rtt_ms * 1000)
            self.report(member, NetworkReport(self.now_ms, rtt_us, rate_bps=rate_bps))
        self.now_ms += 10_000

    def client(self, operation: Operation, key: bytes = ALICE.public_key) -> Result:
        if not self._sequence:
            opening = OpenSession(bytes(16), self.now_ms)
            self.entry(envelope(ALICE.public_key, opening))
            self.entry(envelope(BOB.public_key, opening))
        self._sequence += 1
        session = 1 if key == ALICE.public_key else 2
        body = EnvelopeBody(session, self._sequence, 0, (operation,))
        ((result,),) = self.entry(Envelope(key, msgspec.msgpack.encode(body), bytes(64)))
        return result

    @property
    def mode(self) -> str:
        return self.store.modes.state.mode.value


def envelope(key: bytes, *operations: Operation, numbers: Sequence[int] = (0, 0, 0)) -> Envelope:
    body = EnvelopeBody(*numbers, operations)
    return Envelope(key, msgspec.msgpack.encode(body), bytes(64))


def test_the_members_reports_move_the_mode_after_the_dwell() -> None:
    log = Log()
    for _ in range(2):
        log.round([1, 1, 1, 1])
    assert log.mode == "Internet", "a switch waits for its dwell"
    log.round([1, 1, 1, 1])
    assert log.mode == "Datacenter"
    last = log.store.modes.state.last
    assert last is not None
    assert (last.before, last.after, last.reason) == ("Internet", "Datacenter", "network")
    assert (last.network.rtt_us, last.network.rate_bps) == (1000, 10 * GBPS)
    for _ in range(6):
        log.round([120, 120, 120, 120])
    assert log.mode == "Internet"
    assert log.store.modes.state.switches == 2


@pytest.mark.parametrize("n", [4, 7, 10, 13])
@pytest.mark.parametrize("lie_ms", [0.001, 3_000.0, None])
def test_f_liars_can_not_flip_the_mode(n: int, lie_ms: float | None) -> None:
    """Whatever they say, and whichever they are; f more would."""
    rng = Random(n)
    for truth_ms, mode in ((1.0, "Datacenter"), (25.0, "Hybrid"), (120.0, "Internet")):
        log = Log(n)
        liars = rng.sample(range(n), faults(n))
        for _ in range(10):
            log.round([lie_ms if m in liars else truth_ms for m in range(n)])
        assert log.mode == mode, f"{n} members, {faults(n)} say {lie_ms} ms where {truth_ms} is so"


def test_more_than_f_liars_do_flip_it() -> None:
    log = Log(4)
    for _ in range(10):
        log.round([120, 1, 1, 1])
    assert log.mode == "Datacenter"
    for _ in range(10):
        log.round([120, 120, 120, 1])
    assert log.mode == "Internet"


@pytest.mark.parametrize("silent", [1, 2])
def test_too_few_reports_decide_nothing(silent: int) -> None:
    log = Log(4)
    for _ in range(10):
        log.round([1] * (4 - silent))
    assert log.mode == ("Datacenter" if silent == 1 else "Internet")


def test_a_report_counts_until_it_is_too_old() -> None:
    log = Log(4)
    log.round([1, 1, 1, 1])
    assert log.store.modes.network(log.now_ms).rtt_us == 1000
    log.now_ms += REPORTS_LIVE * AUTO.measure_ms
    assert log.store.modes.network(log.now_ms).rtt_us is None


def test_an_old_report_brought_again_changes_nothing() -> None:
    log = Log(4)
    old = NetworkReport(log.now_ms, 120_000, rate_bps=GBPS)
    assert isinstance(log.report(0, old), NetworkReported)
    log.now_ms += 10_000
    log.report(0, NetworkReport(log.now_ms, 1000, rate_bps=GBPS))
    again = envelope(log.genesis.members[0].identity, old)
    before = log.store.digest()
    result = log.report(0, old)
    assert isinstance(result, Failure)
    held = log.store.modes.report_of_member(log.genesis.members[0].identity)
    assert held is not None
    assert held.report.rtt_us == 1000
    assert before != log.store.digest(), "the index counts, nothing else"
    body = msgspec.msgpack.decode(again.body, type=EnvelopeBody)
    refusal = log.store.lookup(again, body)
    assert getattr(refusal, "reason", None) is RefusalReason.SEQUENCE_REUSED


def test_a_clock_far_off_is_refused() -> None:
    log = Log(4)
    result = log.report(1, NetworkReport(log.now_ms + 31_000, 1000))
    assert isinstance(result, Failure)
    assert "clock" in result.message


STRANGER = bytes([99]) * 32
REPORT = NetworkReport(NOW_MS, 1000)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (envelope(STRANGER, REPORT), "not one of the cluster's clients"),
        (envelope(bytes([1]) * 32, PutRequest(b"k", b"v")), "nothing but a report"),
        (envelope(bytes([1]) * 32, REPORT, REPORT), "nothing but a report"),
        (envelope(bytes([1]) * 32, REPORT, numbers=(0, 1, 0)), "nothing but a report"),
        (envelope(ALICE.public_key, REPORT), "session 0 is for one OpenSession"),
        (envelope(ALICE.public_key, REPORT, numbers=(1, 1, 0)), "only members report"),
    ],
)
def test_what_is_no_report_of_a_member_is_refused(sent: Envelope, said: str) -> None:
    log = Log(4)
    ((result,),) = log.entry(sent)
    assert isinstance(result, EnvelopeFailure)
    assert said in result.message
    assert not log.store.modes.state.reports


def test_what_the_genesis_holds_is_held_until_it_is_released() -> None:
    log = Log(4, ModePolicy(detect=True, first="Datacenter", forced=True))
    for _ in range(20):
        log.round([120, 120, 120, 120])
        assert log.mode == "Datacenter", "lost on the next detection, once"
    assert log.client(ModeSetRequest()) == ModeSetResponse("Datacenter")
    for _ in range(4):
        log.round([120, 120, 120, 120])
    assert log.mode == "Internet"


def test_only_an_administrator_releases_a_mode() -> None:
    log = Log(4, ModePolicy(detect=True, first="Datacenter", forced=True))
    log.client(AccessSetRequest(BOB.public_key, Access()))
    result: Any = log.client(ModeSetRequest(), BOB.public_key)
    assert isinstance(result, Failure)
    assert result.code == 7
    for _ in range(4):
        log.round([120, 120, 120, 120])
    assert log.mode == "Datacenter"


def test_a_mode_is_not_held_in_the_log() -> None:
    """The epoch record holds it: two owners could contradict each other."""
    log = Log(4)
    result: Any = log.client(ModeSetRequest("Datacenter"))
    assert isinstance(result, Failure)
    assert "dwcp admin force-mode" in result.message
    log.round([120, 120, 120, 120])
    assert log.mode == "Internet"
    assert log.store.modes.state.forced is None


def test_a_pinned_cluster_refuses_and_stays() -> None:
    log = Log(4, ModePolicy(detect=True, pinned=True))
    assert isinstance(log.client(ModeSetRequest("Datacenter")), Failure)
    for _ in range(10):
        log.round([1, 1, 1, 1])
    assert log.mode == "Internet"


def test_without_detection_reports_change_nothing_and_nothing_is_held() -> None:
    log = Log(4, ModePolicy())
    assert isinstance(log.client(ModeSetRequest("Datacenter")), Failure)
    for _ in range(10):
        log.round([1, 1, 1, 1])
    assert log.mode == "Internet"


def test_former_members_reports_do_not_count() -> None:
    log = Log(4)
    for _ in range(2):
        log.round([1, 1, 1, 1])
    fresh = tuple(Member(f"n-{i}", bytes([i + 50]) * 32, bytes(32), "", "") for i in range(2))
    members = log.genesis.members[:2] + fresh
    log.store.enter(msgspec.structs.replace(log.genesis, epoch=1, members=members))
    assert log.store.modes.network(log.now_ms).rtt_us is None, "two of four are not a quorum"
    body = EnvelopeBody(0, 0, 0, (NetworkReport(log.now_ms, 1),))
    former = Envelope(log.genesis.members[3].identity, msgspec.msgpack.encode(body), bytes(64))
    assert log.store.check(former, body) is not None


def test_a_member_asks_for_what_was_decided_once_it_has_executed_enough() -> None:
    log = Log(4)
    book, genesis = log.store.modes, log.genesis
    assert book.wish(genesis, 0) is None, "PBFT runs, and nothing else was decided"
    for _ in range(3):
        log.round([1, 1, 1, 1])
    index = log.store.applied_index
    assert book.wish(genesis, index) == Wish("raft", "pbft")
    raft = msgspec.structs.replace(genesis, epoch=1, protocol="raft", start_index=index)
    log.store.enter(raft)
    assert book.wish(raft, index) is None
    back = msgspec.structs.replace(genesis, epoch=2, start_index=index + 1)
    assert book.wish(back, index) is None, "what was decided before its start is not known yet"
    assert book.wish(back, index + 1) == Wish("raft", "raft"), "a fail-over"
    log.store.enter(back)
    assert book.wish(back, index + 1) == Wish("raft", "raft")
    assert book.wish(msgspec.structs.replace(back, forced="pbft"), index + 1) is None
    for _ in range(6):
        log.round([120, 120, 120, 120])
    assert book.wish(back, log.store.applied_index) is None
    assert book.wish(msgspec.structs.replace(raft, epoch=2), log.store.applied_index) == Wish(
        "pbft", "raft"
    )


def test_a_restart_and_another_replica_hold_the_same() -> None:
    records = MemoryRecords()
    log = Log(4)
    log.store = Store(log.genesis, records=records)
    for _ in range(3):
        log.round([1, 1, 1, 1])
    log.store.commit()
    again = Store(log.genesis, records=MemoryRecords(records.committed))
    assert again.modes.state == log.store.modes.state
    assert again.modes.state.mode == "Datacenter"
    assert again.digest() == log.store.digest()


def test_a_cluster_that_never_reports_has_no_record_of_modes() -> None:
    store = Store(genesis_of(4, AUTO))
    store.apply(1, Batch(NOW_MS, ()))
    assert not [key for key, _ in store.records() if key.startswith(b"\x05")]
