"""What one client's envelope may cost every replica at once."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Batch, Envelope, EnvelopeBody, decode_results
from dwcp.wire.operations import (
    Failure,
    OpenSession,
    Operation,
    PutRequest,
    RangeRequest,
    RangeResponse,
)
from dwcp_replica.store.store import Store, StoreLimits
from replica.core.conversation import Conversation

KEYS = 20_000
READS = 1024


def test_an_envelope_of_reads_does_not_stop_the_cluster() -> None:
    """An envelope holds 4096 operations, and each may look at every key: counting in the past,
    sorting, limiting to one. With 100,000 keys one envelope of 100 kB keeps the event loop of
    every replica for 100 s (25 ms a read, measured), without giving way, in the same moment: no
    heartbeats, no votes, and each primary in turn looks silent. The answer is small, so that
    answer_bytes bounds nothing.
    """
    talk = Conversation()
    store = Store(talk.genesis)
    key = talk.client.public_key

    def envelope(session: int, sequence: int, operations: tuple[Operation, ...]) -> Envelope:
        body = EnvelopeBody(session, sequence, max(0, sequence - 1), operations)
        return Envelope(key, msgspec.msgpack.encode(body), bytes(64))

    store.apply(1, Batch(1000, (envelope(0, 0, (OpenSession(bytes(16), 1000),)),)))
    for turn in range(KEYS // 4000):
        puts = tuple(PutRequest(b"%d/%d" % (turn, i)) for i in range(4000))
        store.apply(2 + turn, Batch(1000, (envelope(1, 1 + turn, puts),)))
    read = RangeRequest(b"\0", b"\0", count_only=True, revision=KEYS // 2)
    turn = KEYS // 4000
    (outcome,) = store.apply(2 + turn, Batch(1000, (envelope(1, 1 + turn, (read,) * READS),)))
    results = decode_results(outcome.results)
    ran = [result for result in results if isinstance(result, RangeResponse)]
    refused = [result for result in results if isinstance(result, Failure)]
    assert {result.count for result in ran} == {KEYS // 2 - 1}
    assert len(ran) * KEYS <= StoreLimits().envelope_keys + 2 * KEYS
    assert len(ran) + len(refused) == READS
    assert {failure.code for failure in refused} == {8}
