from __future__ import annotations

from dwcp.wire.envelope import Envelope
from dwcp_replica.core.pending import PENDING_MAX, PENDING_PER_CLIENT_MAX, RequestPool


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
    pool.executed([e.digest()])
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


def test_the_oldest_waiting_request_sets_the_clock() -> None:
    pool = RequestPool()
    assert pool.oldest_ms() is None
    first, second = envelope(1, 1), envelope(2, 2)
    pool.add(first, 10)
    pool.add(second, 20)
    assert pool.oldest_ms() == 10
    pool.executed([first.digest()])
    assert pool.oldest_ms() == 20
