from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.identity import Ed25519Signer
from dwcp.wire.envelope import Batch, Envelope, EnvelopeBody
from dwcp.wire.operations import (
    CloseSession,
    CompactionRequest,
    DeleteRangeRequest,
    EnvelopeFailure,
    Failure,
    LeaseGrantRequest,
    OpenSession,
    PutRequest,
    PutResponse,
    RangeRequest,
)
from dwcp_replica.store import RefusalReason, Store, StoreLimits, layout
from dwcp_replica.store.digest import Trie
from dwcp_replica.store.records import MemoryNodes, MemoryRecords
from replica.store.driver import (
    ALICE,
    BOB,
    GENESIS,
    NOW_MS,
    REPLY,
    ROOT,
    SESSION,
    Driver,
    envelope,
    open_envelope,
    results_of,
    seal,
)
from replica.store.history import scenario

PUT = PutRequest(b"k", b"v")
OPEN = OpenSession(bytes(16), NOW_MS)
DEEP = b"\x95\x01\x01\x00\x90" + b"\x91" * 100_000 + b"\xc0"


ALL_OF_KEYS = {
    layout.KEY_HEAD,
    layout.LIVE,
    layout.DEAD,
    layout.EVENT,
    layout.LEASE,
    layout.DUE,
    layout.ATTACHED,
}


def from_scratch(store: Store) -> bytes:
    tree = Trie(MemoryNodes())
    tree.update(dict(store.records()))
    return tree.root()


GOLDEN = "263bf804e5ee52ea808705d5cbf3e6c433d5fb2e86b5de04a466af6a6fc2d037"


def test_golden_digest() -> None:
    """The digest of a fixed history: the same on every platform, version and hash seed.

    It changes only with the state's format, and then no old replica agrees with a new one.
    """
    driver = Driver()
    scenario(driver)
    assert driver.store.digest().hex() == GOLDEN


def test_digest_sees_every_byte_of_every_record() -> None:
    driver = Driver()
    scenario(driver)
    records = dict(driver.store.records())
    assert {key[:1] for key in records} == {ROOT, SESSION, REPLY, *ALL_OF_KEYS}
    tree = Trie(MemoryNodes())
    tree.update(dict(records))
    right = tree.root()
    assert right == driver.store.digest()
    for key, record in records.items():
        for position in {0, len(record) // 2, len(record) - 1} if record else ():
            wrong = bytearray(record)
            wrong[position] ^= 0x40
            tree.update({key: bytes(wrong)})
            assert tree.root() != right
        tree.update({key: record})


def test_records_that_go_leave_the_digest() -> None:
    """Acknowledged replies, closed and expired sessions: each known to the digest before."""
    driver = Driver()
    alice, bob = driver.open(), driver.open(BOB)

    def assert_digest() -> None:
        assert driver.store.digest() == from_scratch(driver.store)

    for sequence in range(1, 6):
        driver.one(envelope(alice, sequence, PUT))
        driver.one(envelope(bob, sequence, PUT, signer=BOB))
    assert_digest()
    driver.one(envelope(alice, 6, PUT, acked=4))
    assert_digest()
    driver.one(envelope(bob, 6, CloseSession(), signer=BOB))
    assert_digest()
    driver.stamp_ms += 11 * 60_000
    driver.apply()
    assert_digest()
    driver.stamp_ms += 60 * 60_000
    driver.apply()
    assert_digest()
    kinds = {key[:1] for key, _ in driver.store.records()}
    assert kinds == {ROOT, layout.KEY_HEAD, layout.LIVE, layout.EVENT}


OPERATIONS = st.one_of(
    st.builds(PutRequest, key=st.sampled_from([b"a", b"b", b"c"]), value=st.binary(max_size=2)),
    st.builds(RangeRequest, key=st.just(b"a"), range_end=st.just(b"\0")),
    st.builds(
        DeleteRangeRequest,
        key=st.sampled_from([b"a", b"b"]),
        range_end=st.sampled_from([b"", b"c"]),
    ),
    st.builds(LeaseGrantRequest, st.integers(0, 900), st.integers(0, 2)),
    st.builds(PutRequest, key=st.sampled_from([b"a", b"d"]), lease=st.integers(1, 2)),
    st.builds(CompactionRequest, st.integers(1, 5)),
    st.just(CloseSession()),
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("open"), st.integers(1, 4), st.integers(-700_000, 700_000)),
        st.tuples(
            st.just("run"),
            st.integers(1, 4),
            st.integers(0, 6),
            st.integers(0, 5),
            st.lists(OPERATIONS, max_size=3),
        ),
        st.tuples(st.just("wait"), st.integers(0, 2_000_000)),
        st.tuples(st.just("digest")),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(EVENTS)
def test_incremental_digest_equals_from_scratch_and_replay(
    events: list[tuple[object, ...]],
) -> None:
    """Whenever it is asked, the digest is that of all records, and of a replay asked once.

    So it is for a store that was stopped and started again between any two envelopes.
    """
    driver, replay = Driver(), Store(GENESIS)
    kept = MemoryRecords()
    for event in events:
        match event:
            case ("open", int(nonce), int(off_ms)):
                item = open_envelope(nonce, driver.stamp_ms + off_ms)
            case ("run", int(session), int(sequence), int(acked), list(operations)):
                item = envelope(session, sequence, *operations, acked=acked)
            case ("wait", int(wait_ms)):
                driver.stamp_ms += wait_ms
                continue
            case _:
                assert driver.store.digest() == from_scratch(driver.store)
                continue
        outcome = driver.apply(item)
        batch = Batch(driver.stamp_ms, (item,))
        assert replay.apply(replay.applied_index + 1, batch) == outcome
        restarted = Store(GENESIS, records=MemoryRecords(kept.committed))
        kept = restarted.held  # type: ignore[assignment]
        assert restarted.apply(restarted.applied_index + 1, batch) == outcome
        restarted.commit()
    assert driver.store.digest() == from_scratch(driver.store) == replay.digest()
    assert kept.digest() == driver.store.digest() or driver.store.applied_index == 0


@pytest.mark.parametrize(
    ("item", "code"),
    [
        (seal(b""), 3),
        (seal(b"\xc1"), 3),
        (seal(DEEP), 3),
        (seal(b"\x94\x00\x00\x00\xdd\xff\xff\xff\xff"), 3),
        (seal(msgspec.msgpack.encode((1, 1, 0, ((*("put", b"k"), b"v"),)))), 3),
        (seal(msgspec.msgpack.encode(EnvelopeBody(1, 1, 0, (PUT,))) + b"\x00"), 3),
        (seal(bytes(1_572_865)), 3),
        (envelope(1, 1, *([PUT] * 4097)), 3),
        (envelope(1, 0, PUT), 3),
        (envelope(1, 1, PUT, acked=1), 3),
        (envelope(1, 1, OPEN), 3),
        (envelope(1, 1, PUT, OPEN), 3),
        (envelope(0, 0, OPEN, PUT), 3),
        (envelope(0, 0, OPEN, OPEN), 3),
        (envelope(0, 1, OPEN), 3),
        (envelope(0, 0, OPEN, acked=1), 3),
        (envelope(0, 0, PUT), 3),
        (envelope(0, 0), 3),
        (envelope(1, 1, CloseSession(), PUT), 3),
        (envelope(1, 1, PUT, signer=Ed25519Signer(b"x" * 32)), 7),
    ],
)
def test_bad_envelopes_fail_alike_everywhere_and_change_nothing(item: Envelope, code: int) -> None:
    driver = Driver()
    driver.open()
    before = [pair for pair in driver.store.records() if pair[0] != ROOT]
    outcome = driver.one(item)
    (result,) = results_of(outcome)
    assert isinstance(result, EnvelopeFailure)
    assert result.code == code
    assert outcome.request == item.digest()
    assert [pair for pair in driver.store.records() if pair[0] != ROOT] == before


@given(st.binary(max_size=60))
def test_no_body_makes_apply_raise(body: bytes) -> None:
    (result,) = results_of(Driver().one(seal(body)))
    assert isinstance(result, EnvelopeFailure)


def test_check_refuses_what_apply_refuses_before_it_is_proposed() -> None:
    store = Driver().store
    bad = envelope(1, 0, PUT)
    refusal = store.check(bad, EnvelopeBody(1, 0, 0, (PUT,)))
    assert refusal is not None
    assert refusal.reason is RefusalReason.MALFORMED
    good = EnvelopeBody(1, 1, 0, (PUT,))
    assert store.check(envelope(1, 1, PUT), good) is None
    stranger = envelope(1, 1, PUT, signer=Ed25519Signer(b"x" * 32))
    refusal = store.check(stranger, good)
    assert refusal is not None
    assert refusal.reason is RefusalReason.UNKNOWN_CLIENT


def test_operations_are_independent_and_in_order() -> None:
    driver = Driver()
    item = envelope(driver.open(), 1, PUT, PutRequest(b""), PUT, RangeRequest(b"k"))
    outcome = driver.one(item)
    put, failed, again, read = results_of(outcome)
    assert put == again == PutResponse()
    assert isinstance(failed, Failure)
    assert read.kvs[0].version == 2  # type: ignore[union-attr]
    assert (outcome.revision, outcome.index) == (3, 2)


def test_answers_of_one_envelope_share_a_bound() -> None:
    driver = Driver(StoreLimits(answer_bytes=2500))
    session = driver.open()
    driver.one(envelope(session, 1, PutRequest(b"k", bytes(1000))))
    first, second, third = results_of(driver.one(envelope(session, 2, *[RangeRequest(b"k")] * 3)))
    assert first == second
    assert isinstance(third, Failure)
    assert third.code == 8


def test_entries_apply_in_order_only() -> None:
    store = Store(GENESIS)
    store.apply(1, Batch(1, ()))
    with pytest.raises(AssertionError, match="entry 3 after 1"):
        store.apply(3, Batch(1, ()))


def test_lookup_is_unsure_of_what_is_new() -> None:
    driver = Driver()
    assert driver.lookup(open_envelope(1)) is None
    session = driver.open()
    assert driver.lookup(envelope(session, 1, PUT)) is None
    assert ALICE.public_key != BOB.public_key


def test_an_entry_in_steps_is_executed_as_at_once() -> None:
    whole, stepped = Driver(), Driver()
    for driver in (whole, stepped):
        driver.open()
    items = (envelope(1, 1, PutRequest(b"a")), envelope(1, 2, RangeRequest(b"a")))
    batch = Batch(NOW_MS, items)
    steps = stepped.store.steps(2, batch)
    outcomes = [next(steps)]
    with pytest.raises(AssertionError, match="where an entry ends"):
        stepped.store.digest()
    with pytest.raises(AssertionError, match="to its end"):
        next(stepped.store.steps(3, batch))
    outcomes += steps
    assert tuple(outcomes) == whole.store.apply(2, batch)
    assert stepped.store.digest() == whole.store.digest()
