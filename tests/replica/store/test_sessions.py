"""Each envelope is executed at most once, whatever is repeated, reordered or made up."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.wire.envelope import Envelope
from dwcp.wire.operations import (
    CloseSession,
    DeleteRangeRequest,
    EnvelopeFailure,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SessionClosed,
    SessionOpened,
)
from dwcp_replica.store import Outcome, Refusal, RefusalReason, SessionLimits, StoreLimits
from dwcp_replica.store.sessions import ANSWER_DROPPED
from replica.store.driver import (
    ALICE,
    BOB,
    EVENT,
    NOW_MS,
    ROOT,
    SESSION,
    Driver,
    envelope,
    open_envelope,
    results_of,
)

MINUTE_MS = 60_000
PUT = PutRequest(b"k", b"v")


def failure(outcome: Outcome) -> EnvelopeFailure:
    (result,) = results_of(outcome)
    assert isinstance(result, EnvelopeFailure), result
    return result


def assert_refused(driver: Driver, item: Envelope, code: int) -> EnvelopeFailure:
    """Refused, and nothing but the applied index changed."""
    driver.apply()  # what time alone collects
    before = dict(driver.store.records())
    outcome = driver.one(item)
    after = dict(driver.store.records())
    assert {k: v for k, v in before.items() if k != ROOT} == {
        k: v for k, v in after.items() if k != ROOT
    }
    assert failure(outcome).code == code
    assert not outcome.duplicate
    return failure(outcome)


def test_numbers_ascend_and_are_never_reused() -> None:
    driver = Driver()
    assert [driver.open(), driver.open(BOB)] == [1, 2]
    driver.one(envelope(1, 1, CloseSession()))
    driver.stamp_ms += 3 * 60 * MINUTE_MS
    assert driver.open() == 3


@pytest.mark.parametrize("off_ms", [-10 * MINUTE_MS, 10 * MINUTE_MS])
def test_opens_up_to_the_tolerance(off_ms: int) -> None:
    driver = Driver()
    assert results_of(driver.one(open_envelope(1, NOW_MS + off_ms))) == (SessionOpened(1),)


@pytest.mark.parametrize(
    ("off_ms", "final"), [(-10 * MINUTE_MS - 1, True), (10 * MINUTE_MS + 1, False)]
)
def test_a_clock_too_far_off_opens_nothing(off_ms: int, final: bool) -> None:
    driver = Driver()
    item = open_envelope(1, NOW_MS + off_ms)
    assert "clock" in assert_refused(driver, item, 9).message
    found = driver.lookup(item)
    assert isinstance(found, Refusal) if final else found is None


def test_a_replayed_open_finds_its_session_or_is_too_old() -> None:
    driver = Driver()
    item = open_envelope(1)
    first = driver.one(item)
    again = driver.one(item)
    assert again == msgspec.structs.replace(first, duplicate=True)
    assert driver.lookup(item) == again
    other = driver.one(open_envelope(1, NOW_MS + 1))
    assert results_of(other) == (SessionOpened(1),)
    assert not other.duplicate
    driver.one(envelope(1, 1, CloseSession()))
    assert driver.one(item) == again
    driver.stamp_ms += 10 * MINUTE_MS + 1
    assert_refused(driver, item, 9)
    assert not [name for name, _ in driver.store.records() if name.startswith(SESSION)]


def test_clients_share_no_nonces() -> None:
    driver = Driver()
    assert results_of(driver.one(open_envelope(1, signer=ALICE))) == (SessionOpened(1),)
    assert results_of(driver.one(open_envelope(1, signer=BOB))) == (SessionOpened(2),)


def test_bounds_of_open_and_closed_sessions() -> None:
    limits = SessionLimits(per_client=3, closed_per_client=2)
    driver = Driver(StoreLimits(sessions=limits))
    for _ in range(3):
        driver.open()
    assert "3 open sessions" in assert_refused(driver, open_envelope(99), 8).message
    assert driver.open(BOB) == 4
    for session in (1, 2):
        driver.one(envelope(session, 1, CloseSession()))
    assert "keep a session open" in assert_refused(driver, open_envelope(99), 8).message
    driver.stamp_ms += 10 * MINUTE_MS + 1
    assert driver.open() == 5


def test_default_bound_is_256_open_sessions() -> None:
    driver = Driver()
    for _ in range(256):
        driver.open()
    assert_refused(driver, open_envelope(999), 8)


def test_a_repetition_repeats_the_first_answer() -> None:
    driver = Driver()
    session = driver.open()
    item = envelope(session, 1, PUT, RangeRequest(b"k"))
    first = driver.one(item)
    driver.one(envelope(session, 2, PUT))
    again = driver.one(item)
    assert again == msgspec.structs.replace(first, duplicate=True)
    assert driver.lookup(item) == again
    assert driver.store.revision == 3


def test_twice_in_one_batch_executes_once() -> None:
    driver = Driver()
    item = envelope(driver.open(), 1, PUT)
    first, second = driver.apply(item, item)
    assert (first.duplicate, second.duplicate) == (False, True)
    assert driver.store.revision == 2


def test_other_content_under_a_used_number() -> None:
    driver = Driver()
    session = driver.open()
    driver.one(envelope(session, 1, PUT))
    other = envelope(session, 1, PutRequest(b"k", b"other"))
    assert_refused(driver, other, 9)
    found = driver.lookup(other)
    assert isinstance(found, Refusal)
    assert found.reason is RefusalReason.SEQUENCE_REUSED


def test_acknowledged_answers_are_collected() -> None:
    driver = Driver()
    session = driver.open()
    first = envelope(session, 1, PUT)
    driver.one(first)
    driver.one(envelope(session, 2, PUT, acked=1))
    assert "already answered and collected" in assert_refused(driver, first, 9).message
    assert isinstance(driver.lookup(first), Refusal)


def test_an_acknowledgement_never_passes_what_was_not_executed() -> None:
    driver = Driver()
    session = driver.open()
    driver.one(envelope(session, 60, PUT, acked=59))
    late = driver.one(envelope(session, 1, PUT))
    assert results_of(late) == (PutResponse(),)


def test_window() -> None:
    driver = Driver()
    session = driver.open()
    ahead = envelope(session, 65, PUT)
    assert_refused(driver, ahead, 9)
    assert driver.lookup(ahead) is None, "it may be executed later"
    for sequence in (64, *range(1, 64)):
        driver.one(envelope(session, sequence, PUT))
    assert_refused(driver, ahead, 9)
    assert results_of(driver.one(envelope(session, 65, PUT, acked=1))) == (PutResponse(),)


def test_unknown_foreign_and_closed_sessions_look_alike() -> None:
    driver = Driver()
    session = driver.open(BOB)
    foreign = assert_refused(driver, envelope(session, 1, PUT), 5)
    unknown = assert_refused(driver, envelope(7, 1, PUT), 5)
    assert foreign.message.replace("1", "7") == unknown.message
    assert driver.lookup(envelope(7, 1, PUT)) is None, "session 7 may be opened yet"
    assert isinstance(driver.lookup(envelope(session, 1, PUT)), Refusal)
    driver.one(envelope(session, 1, CloseSession(), signer=BOB))
    assert assert_refused(driver, envelope(session, 2, PUT, signer=BOB), 5) == foreign


def test_a_repeated_close_is_answered() -> None:
    driver = Driver()
    item = envelope(driver.open(), 1, PUT, CloseSession())
    first = driver.one(item)
    assert results_of(first) == (PutResponse(), SessionClosed())
    assert driver.one(item) == msgspec.structs.replace(first, duplicate=True)
    assert driver.lookup(item) == msgspec.structs.replace(first, duplicate=True)


def test_idle_sessions_expire_and_refusals_do_not_keep_them() -> None:
    driver = Driver()
    busy, idle = driver.open(), driver.open()
    first = envelope(idle, 1, PUT)
    driver.one(first)
    driver.stamp_ms += 60 * MINUTE_MS
    assert driver.one(first).duplicate
    driver.one(envelope(idle, 99, PUT))
    driver.one(envelope(busy, 1, PUT))
    driver.stamp_ms += 1
    assert_refused(driver, envelope(idle, 2, PUT), 5)
    assert results_of(driver.one(envelope(busy, 2, PUT))) == (PutResponse(),)


def test_agreed_time_never_goes_back() -> None:
    driver = Driver()
    driver.apply()
    driver.stamp_ms = 5
    driver.apply()
    assert driver.store.stamp_ms == NOW_MS


def small_replies() -> Driver:
    return Driver(StoreLimits(sessions=SessionLimits(reply_bytes=1000)))


def test_dropped_answer_of_a_write_says_that_it_was_executed() -> None:
    driver = small_replies()
    session = driver.open()
    driver.one(envelope(session, 1, PutRequest(b"k", bytes(600))))
    written = [
        envelope(session, sequence, PutRequest(b"k", bytes(600), prev_kv=True))
        for sequence in (2, 3)
    ]
    first, _ = (driver.one(item) for item in written)
    revision = driver.store.revision
    again = driver.one(written[0])
    assert (again.duplicate, again.index, again.revision) == (True, first.index, first.revision)
    assert failure(again).code == ANSWER_DROPPED
    assert "executed" in failure(again).message
    assert driver.lookup(written[0]) == again
    assert driver.store.revision == revision
    assert isinstance(results_of(driver.one(written[1]))[0], PutResponse)


def test_dropped_answer_of_a_read_is_read_again() -> None:
    driver = small_replies()
    session = driver.open()
    driver.one(envelope(session, 1, PutRequest(b"k", bytes(2000))))
    item = envelope(session, 2, RangeRequest(b"k"))
    first = driver.one(item)
    driver.one(envelope(session, 3, PutRequest(b"k", b"new")))
    assert driver.lookup(item) is None
    again = driver.one(item)
    assert not again.duplicate
    assert again.index > first.index
    (result,) = results_of(again)
    assert isinstance(result, RangeResponse)
    assert result.kvs[0].value == b"new"
    assert driver.one(item).duplicate, "the new answer fits and is kept"


def test_reading_again_does_not_prolong_a_session() -> None:
    driver = small_replies()
    session = driver.open()
    driver.one(envelope(session, 1, PutRequest(b"k", bytes(2000))))
    item = envelope(session, 2, RangeRequest(b"k"))
    driver.one(item)
    driver.stamp_ms += 60 * MINUTE_MS
    assert not driver.one(item).duplicate
    driver.stamp_ms += 1
    assert_refused(driver, item, 5)


def test_reads_are_dropped_before_writes() -> None:
    driver = small_replies()
    session = driver.open()
    driver.one(envelope(session, 1, PutRequest(b"k", bytes(400))))
    write = envelope(session, 2, PutRequest(b"k", bytes(400), prev_kv=True))
    read = envelope(session, 3, RangeRequest(b"k"))
    driver.one(write)
    driver.one(read)
    driver.one(envelope(session, 4, PutRequest(b"k", b"", prev_kv=True)))
    assert isinstance(results_of(driver.one(write))[0], PutResponse)
    assert driver.lookup(read) is None


STEPS = st.lists(
    st.tuples(st.integers(1, 5), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=40
)


@settings(deadline=None)
@given(STEPS)
def test_no_delivery_executes_an_envelope_twice(steps: list[tuple[int, int, int]]) -> None:
    """Each (sequence, content) writes a key of its own, whose version counts executions."""
    driver = Driver()
    session = driver.open()
    accepted: dict[int, int] = {}
    for sequence, acked, content in steps:
        if acked >= sequence:
            continue
        name = b"%d/%d" % (sequence, content)
        item = envelope(session, sequence, PutRequest(name), acked=acked)
        outcome = driver.one(item)
        if not outcome.duplicate and isinstance(results_of(outcome)[0], PutResponse):
            assert accepted.setdefault(sequence, content) == content
    driver.one(envelope(session, 60, DeleteRangeRequest(b"\0", b"\0", prev_kv=True)))
    read = [r for n, r in driver.store.records() if n.startswith(EVENT)]
    assert len(read) == 2 * len(accepted)
