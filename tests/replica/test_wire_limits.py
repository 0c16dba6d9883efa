"""What one frame of a member can cost before the engine has even seen it."""

from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.envelope import batch_digest
from dwcp.wire.peer import (
    Certificate,
    DoubleVote,
    Entries,
    Entry,
    Header,
    PeerMessage,
    ViewChange,
    VoteSig,
    decode_message,
    encode_message,
)
from replica.test_node_signatures import GENESIS

HEADER = Header(0, 1, 1, batch_digest(b""), GENESIS.start_hash, bytes(64))
LARGE = bytes(1024 * 1024)


def certificate(state: bytes, votes: int) -> Certificate:
    signed = tuple(VoteSig(i % 4, bytes(64)) for i in range(votes))
    return Certificate("checkpoint", HEADER, state, signed)


@pytest.mark.parametrize(
    "message",
    [
        Entries((Entry(HEADER, b""),), (), certificate(LARGE, 200), ()),
        Entries((Entry(HEADER, b""),), (), certificate(bytes(32), 2000), ()),
        ViewChange(0, 2, certificate(LARGE, 200), (), None, (), (), 1, bytes(64)),
        DoubleVote("checkpoint", 1, HEADER, LARGE, bytes(64), HEADER, b"", bytes(64)),
    ],
    ids=["state", "votes", "view-change", "double-vote"],
)
def test_questions_cost_no_more_than_the_frame(message: PeerMessage) -> None:
    """The bytes to verify are built for every vote of a certificate, and contain its state: with
    no limit on the wire, one frame of 16 MiB would have made 60 GiB of them."""
    with pytest.raises(msgspec.DecodeError):
        decode_message(encode_message(message))
