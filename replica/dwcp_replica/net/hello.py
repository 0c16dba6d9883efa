"""The first two frames of a peer connection: who dials, proven against the server's nonce.

A dialer is known by its key, not by a number: numbers change from epoch to epoch, and two replicas
that meet need not be in the same one. Whoever lags must get in to hear of it.

Both say which versions of the wire protocol they speak, the oldest and the newest, and the
connection speaks the newest that both know: while a roll replaces members one by one, new ones
speak the older version to those that are not new yet. There is one version so far, 1, and a hello
that names none means that one. The versions are not signed: a pinned certificate protects both
frames, so only the peer itself could name others, and would only cut itself off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.signing import Count, PublicKey, Scope, Signature, Signer, Verifier

PEER_PATH: Final = "/dwcp/v1/peer"
NONCE_BYTES: Final = 32
HELLO_BYTES_MAX: Final = 512
HELLO_TIMEOUT_S: Final = 5.0


Version = Annotated[int, Meta(ge=1, le=2**16)]


class Challenge(Struct, frozen=True, omit_defaults=True):
    """The server's first frame: 32 random bytes, new for every connection; versions it speaks."""

    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    oldest: Version = 1
    newest: Version = 1


class Hello(Struct, frozen=True, omit_defaults=True):
    """The dialer's first frame: its key, the epoch it is in, its signature over the challenge, and
    the versions of the wire protocol that it speaks."""

    identity: PublicKey
    epoch: Count
    sig: Signature
    oldest: Version = 1
    newest: Version = 1


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions of the wire protocol that somebody speaks, all from `oldest` to `newest`."""

    oldest: int
    newest: int

    def common(self, other: Challenge | Hello) -> int:
        """The newest that both speak. Raises HelloError."""
        newest = min(self.newest, other.newest)
        if newest < max(self.oldest, other.oldest):
            raise HelloError("hello-version")
        return newest


SPOKEN: Final = Versions(oldest=1, newest=1)
"""What this program speaks. A later one keeps `oldest` until no member of before can be left."""


@dataclass(frozen=True, slots=True)
class LocalMember:
    """This replica as its peers know it.

    `cluster` is the hash of the genesis record, `certificate` the SHA-256 of the certificate (DER)
    that it shows on its peer port, `wire` which versions it speaks.
    """

    cluster: bytes
    epoch: int
    signer: Signer
    certificate: bytes
    wire: Versions = SPOKEN

    def challenge(self, nonce: bytes) -> bytes:
        """The frame with which it greets who dials."""
        return msgspec.msgpack.encode(Challenge(nonce, self.wire.oldest, self.wire.newest))


class HelloError(Exception):
    """A dialer did not prove that it may connect; `reason` is an enumerated word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"peer hello refused: {reason}")
        self.reason = reason


_decode_challenge: Callable[[bytes], Challenge] = decoder_of(Challenge)
_decode_hello: Callable[[bytes], Hello] = decoder_of(Hello)


def _signing_bytes(
    cluster: bytes, nonce: bytes, certificate: bytes, identity: bytes, epoch: int
) -> bytes:
    """The certificate names the server: a hello made for one member is worth nothing at another."""
    payload = nonce + certificate + identity + epoch.to_bytes(8, "big")
    return Scope(cluster, cluster).signing_bytes("peer-hello", payload)


def answer(local: LocalMember, certificate: bytes, challenge: bytes) -> bytes:
    """The hello for the challenge of whoever shows `certificate`.

    Raises msgspec.DecodeError, and HelloError when there is no version that both speak.
    """
    shown = _decode_challenge(challenge)
    local.wire.common(shown)
    identity, epoch = local.signer.public_key, local.epoch
    message = _signing_bytes(local.cluster, shown.nonce, certificate, identity, epoch)
    sig = local.signer.sign(message)
    return msgspec.msgpack.encode(Hello(identity, epoch, sig, local.wire.oldest, local.wire.newest))


def check(
    local: LocalMember, number_of: Callable[[bytes], int | None], verifier: Verifier,
    nonce: bytes, frame: bytes,
) -> tuple[int, int]:  # fmt: skip
    """The dialer's number, by its key, and the version to speak with it. Raises HelloError."""
    if len(frame) > HELLO_BYTES_MAX:
        raise HelloError("hello-oversize")
    try:
        hello = _decode_hello(frame)
    except (msgspec.DecodeError, RecursionError):
        raise HelloError("hello-malformed") from None
    number = number_of(hello.identity)
    if number is None or hello.identity == local.signer.public_key:
        raise HelloError("hello-member")
    message = _signing_bytes(local.cluster, nonce, local.certificate, hello.identity, hello.epoch)
    if not verifier.verify(hello.identity, message, hello.sig):
        raise HelloError("hello-signature")
    return number, local.wire.common(hello)
