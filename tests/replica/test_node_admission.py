"""A client that repeats itself while the engine stands still fills no memory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dwcp.wire.envelope import Envelope, EnvelopeBody, envelope_signing_bytes
from dwcp.wire.operations import PutRequest
from replica.test_node_backlog import running
from replica.test_node_signatures import CLIENT
from replica.waiting import in_loop


@in_loop
async def _repeat(path: Path) -> None:
    replica = running(path)
    body = msgspec.msgpack.encode(EnvelopeBody(1, 1, 0, (PutRequest(b"k", b"v"),)))
    signed = envelope_signing_bytes(replica.genesis.hash(), body)
    envelope = Envelope(CLIENT.public_key, body, CLIENT.sign(signed))
    try:
        for _ in range(5000):
            replica.admission.admit(envelope, lambda _answer: None)
        assert len(replica.engine.inbox) <= 512, f"{len(replica.engine.inbox)} copies wait"
    finally:
        await replica.close()


def test_a_repeated_envelope_waits_once(tmp_path: Path) -> None:
    """An envelope that is in flight is never answered Busy, and each repetition is put before the
    engine again: while the engine waits (disk full, a slow disk), one client's repetitions of a
    1.5 MiB envelope pile up without any bound.
    """
    _repeat(tmp_path / "m-0")
