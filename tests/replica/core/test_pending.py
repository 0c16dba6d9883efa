from __future__ import annotations

from dwcp.wire.envelope import Envelope
from dwcp_replica.core.pending import (
    EXECUTED_REMEMBERED_MAX,
    PENDING_MAX,
    PENDING_PER_CLIENT_MAX,
    RequestPool,
)


def envelope(client: int, number: int, size: int = 10) -> Envelope:
    return Envelope(bytes([client]) * 32, number.to_bytes(4, "big") + bytes(size), bytes(64))


def test_clients_are_served_in_turn() -> None:
    """A flood of one client does not keep another waiting."""
    pool = RequestPool()
    flood = [envelope(1, i) for i in range(50)]
    for e in flood:
        assert pool.add(e, 0)
    lone = envelope(2, 0)
    assert pool.add(lone, 5)
    assert lone in pool.take(1 << 20, 2)


def test_a_request_is_known_until_and_after_it_is_executed() -> None:
    pool = RequestPool()
    e = envelope(1, 1)
    assert pool.add(e, 0)
    assert not pool.add(e, 1)
    pool.take(1 << 20, 10)
    pool.proposed([e.digest()])
    assert not pool.add(e, 2)
    assert len(pool) == 1, "it waits until it is executed"
    pool.executed([e.digest()], 4)
    assert len(pool) == 0
    assert not pool.add(e, 3)


def test_a_request_that_left_the_log_is_proposed_again() -> None:
    pool = RequestPool()
    e = envelope(1, 1)
    pool.add(e, 0)
    pool.take(1 << 20, 10)
    pool.proposed([e.digest()])
    assert not pool.has_unproposed
    pool.dropped([e.digest()])
    assert pool.take(1 << 20, 10) == [e]


def test_one_client_can_not_fill_the_pool() -> None:
    pool = RequestPool()
    taken = sum(pool.add(envelope(1, i), 0) for i in range(PENDING_PER_CLIENT_MAX + 10))
    assert taken == PENDING_PER_CLIENT_MAX
    assert pool.add(envelope(2, 0), 0)


def test_the_pool_is_bounded() -> None:
    pool = RequestPool()
    for client in range(8):
        for i in range(PENDING_PER_CLIENT_MAX):
            pool.add(envelope(client, i), 0)
    assert len(pool) == PENDING_MAX


def test_a_batch_is_bounded_by_bytes_but_never_empty() -> None:
    pool = RequestPool()
    for i in range(3):
        pool.add(envelope(1, i, size=1000), 0)
    assert len(pool.take(1500, 10)) == 1
    assert len(pool.take(1, 10)) == 1


def test_the_clock_runs_for_one_request_at_a_time() -> None:
    """A queue that moves is no reason to give a primary up; one that is passed over is."""
    pool = RequestPool()
    assert pool.oldest_ms() is None
    first, second, third = (envelope(1, i) for i in range(3))
    for now_ms, e in ((10, first), (20, second), (30, third)):
        pool.add(e, now_ms)
    assert pool.oldest_ms() == 10
    pool.executed([second.digest()], 500)
    assert pool.oldest_ms() == 10, "the first is passed over: its clock goes on"
    pool.executed([first.digest()], 600)
    assert pool.oldest_ms() == 600, "now it runs for the third"
    pool.executed([third.digest()], 700)
    assert pool.oldest_ms() is None


def test_what_was_lately_executed_is_not_proposed_again() -> None:
    pool = RequestPool()
    e = envelope(1, 1)
    assert not pool.stale(e.digest())
    pool.add(e, 0)
    pool.proposed([e.digest()])
    assert pool.stale(e.digest())
    pool.executed([e.digest()], 1)
    assert pool.stale(e.digest())
    pool.executed([envelope(2, i).digest() for i in range(EXECUTED_REMEMBERED_MAX // 2)], 2)
    assert not pool.stale(e.digest()), "a backup that lags must not refuse what others forgot"
