"""What waits for its place in the log is bounded in bytes too."""

from __future__ import annotations

from dwcp.wire.envelope import MAX_ENVELOPE_BYTES, Envelope
from dwcp_replica.core.pending import RequestPool

POOL_BYTES_MAX = 512 * 1024 * 1024


def test_the_pool_is_bounded_in_bytes() -> None:
    """The pool takes 4096 requests, 1024 of one client, of 1.5 MiB each: 6 GiB in all, 1.5 GiB by
    one client (or by a liar that forwards old envelopes of that client).
    """
    pool = RequestPool()
    body = bytes(MAX_ENVELOPE_BYTES)
    taken = 0
    for number in range(600):
        client = number.to_bytes(32, "big")  # 600 clients share one body: the test stays small
        taken += len(body) * pool.add(Envelope(client, body, bytes(64)), 0)
    assert taken <= POOL_BYTES_MAX, f"{taken >> 20} MiB wait"
