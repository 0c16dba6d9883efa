"""Pings between members, which measure the links that they talk over, and frames in general.

A ping goes over the connection that its sender dialed, the pong over the one that the other
dialed. The pong is signed, bound to the nonce and to both members' keys: a link can be made to
look slower than it is by answering late, never quicker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.peer import PeerMessage
from dwcp.wire.signing import ZERO_HASH, Scope, Signature

NONCE_BYTES: Final = 16
PROBE_BYTES_MAX: Final = 4 * 1024 * 1024
"""The most that one ping may carry to find out how wide a link is."""

PingNonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Ping(Struct, frozen=True, array_like=True, tag="ping"):
    """Asks for a pong at once. `probe` is filler: how long it takes shows how wide the link is."""

    nonce: PingNonce
    probe: Annotated[bytes, Meta(max_length=PROBE_BYTES_MAX)] = b""


class Pong(Struct, frozen=True, array_like=True, tag="pong"):
    """The answer to the ping with this nonce, signed by whoever was pinged."""

    nonce: PingNonce
    sig: Signature


LinkMessage = Ping | Pong
Frame = PeerMessage | LinkMessage
"""All that comes over a peer connection after its greeting."""


def pong_signing_bytes(genesis: bytes, nonce: bytes, asked_by: bytes, answered_by: bytes) -> bytes:
    """What is signed: the nonce and the identity keys of who asked and who answers.

    It counts in the whole cluster, whatever the epoch: distances do not change with it.
    """
    return Scope(genesis, ZERO_HASH).signing_bytes("pong", nonce + asked_by + answered_by)


_encode: Callable[[LinkMessage], bytes] = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Frame] = decoder_of(Frame)


def encode_link_message(message: LinkMessage) -> bytes:
    """The frame of a ping or a pong."""
    return _encode(message)


def decode_frame(frame: bytes) -> Frame:
    """Decode a frame. Raises msgspec.DecodeError, naming the field that is wrong."""
    return _decode(frame)
