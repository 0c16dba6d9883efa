"""The first two frames of a peer connection: who dials, proven against the server's nonce."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.peer import MemberId
from dwcp.wire.records import EpochRecord, Member, scope_of
from dwcp.wire.signing import Count, Scope, Signature, Signer, Verifier

PEER_PATH: Final = "/dwcp/v1/peer"
NONCE_BYTES: Final = 32
HELLO_BYTES_MAX: Final = 512
HELLO_TIMEOUT_S: Final = 5.0


class Challenge(Struct, frozen=True):
    """The server's first frame: 32 random bytes, new for every connection."""

    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]


class Hello(Struct, frozen=True):
    """The dialer's first frame: its member number and its signature over the challenge."""

    member: MemberId
    epoch: Count
    sig: Signature


@dataclass(frozen=True, slots=True)
class LocalMember:
    """This member as its peers know it: the record in force, its number and its key."""

    genesis: EpochRecord
    record: EpochRecord
    me: int
    signer: Signer

    @property
    def member(self) -> Member:
        """The entry of the record that describes this member."""
        return self.record.members[self.me]

    @property
    def scope(self) -> Scope:
        """The scope of this member's signatures."""
        return scope_of(self.genesis, self.record)


class HelloError(Exception):
    """A dialer did not prove that it is a member; `reason` is an enumerated word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"peer hello refused: {reason}")
        self.reason = reason


_decode_challenge: Callable[[bytes], Challenge] = decoder_of(Challenge)
_decode_hello: Callable[[bytes], Hello] = decoder_of(Hello)


def _signing_bytes(
    scope: Scope, nonce: bytes, certificate: bytes, dialer: int, server: int
) -> bytes:
    ids = dialer.to_bytes(8, "big") + server.to_bytes(8, "big")
    return scope.signing_bytes("peer-hello", nonce + certificate + ids)


def answer(local: LocalMember, server: int, challenge: bytes) -> bytes:
    """The hello frame for `server`'s challenge frame. Raises msgspec.DecodeError."""
    nonce = _decode_challenge(challenge).nonce
    certificate = local.record.members[server].certificate
    message = _signing_bytes(local.scope, nonce, certificate, local.me, server)
    hello = Hello(member=local.me, epoch=local.record.epoch, sig=local.signer.sign(message))
    return msgspec.msgpack.encode(hello)


def check(local: LocalMember, verifier: Verifier, nonce: bytes, frame: bytes) -> int:
    """The dialer's member number. Raises HelloError when its hello does not hold."""
    if len(frame) > HELLO_BYTES_MAX:
        raise HelloError("hello-oversize")
    try:
        hello = _decode_hello(frame)
    except (msgspec.DecodeError, RecursionError):
        raise HelloError("hello-malformed") from None
    if hello.epoch != local.record.epoch:
        raise HelloError("hello-epoch")
    if hello.member >= len(local.record.members) or hello.member == local.me:
        raise HelloError("hello-member")
    key = local.record.members[hello.member].identity
    message = _signing_bytes(local.scope, nonce, local.member.certificate, hello.member, local.me)
    if not verifier.verify(key, message, hello.sig):
        raise HelloError("hello-signature")
    return hello.member
