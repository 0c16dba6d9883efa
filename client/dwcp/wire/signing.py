"""What a signature covers, and what a signer must be able to do.

Every signed byte string starts with its domain: protocol version, message kind, the
genesis hash of the cluster and the hash of the epoch record in force. A signature
made for one cluster, epoch or kind of message therefore never verifies as another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from msgspec import Meta

HASH_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
PUBLIC_KEY_BYTES: Final = 32
ZERO_HASH: Final = bytes(HASH_BYTES)

Hash = Annotated[bytes, Meta(min_length=HASH_BYTES, max_length=HASH_BYTES)]
"""A SHA-256 digest: 32 bytes."""
Signature = Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
"""An Ed25519 signature: 64 bytes (RFC 8032)."""
PublicKey = Annotated[bytes, Meta(min_length=PUBLIC_KEY_BYTES, max_length=PUBLIC_KEY_BYTES)]
"""An Ed25519 public key: 32 bytes (RFC 8032)."""
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""A number that is never negative and fits 63 bits: index, view, session, milliseconds."""

_PREFIX: Final = b"DWCP\x01"


def digest(kind: str, *parts: bytes) -> bytes:
    """SHA-256 over a kind and length-prefixed parts, so that no two inputs collide by joining."""
    h = hashlib.sha256(_PREFIX)
    for part in (kind.encode(), *parts):
        h.update(len(part).to_bytes(8, "big"))
        h.update(part)
    return h.digest()


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a signature counts: one cluster (genesis hash) and one epoch record (its hash)."""

    genesis: bytes
    record: bytes

    def signing_bytes(self, kind: str, payload: bytes) -> bytes:
        """The bytes to sign for a message of this kind: domain first, payload last."""
        name = kind.encode()
        return b"".join((_PREFIX, bytes((len(name),)), name, self.genesis, self.record, payload))


def unscoped(kind: str, payload: bytes) -> bytes:
    """The bytes to sign before any genesis exists (proof of possession, the genesis itself)."""
    return Scope(ZERO_HASH, ZERO_HASH).signing_bytes(kind, payload)


class Signer(Protocol):
    """Holds one private key."""

    @property
    def public_key(self) -> bytes:
        """The public half: 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        ...


class Verifier(Protocol):
    """Checks signatures; pure, so that the core may call it anywhere."""

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """True only when `signature` over `message` was made with `public_key`'s private half."""
        ...
