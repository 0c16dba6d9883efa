"""Signatures for the simulator: a keyed hash behind the same interface, or the real ones.

The keyed hash is far quicker and just as unforgeable within the simulated world, where no
strategy ever sees another member's secret.
"""

from __future__ import annotations

import hashlib

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.records import Member
from dwcp.wire.signing import Signer, Verifier, digest


class HashSigner:
    """Signs with a keyed hash; its verifier knows the secret too."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._public = digest("sim-public-key", secret)

    @property
    def public_key(self) -> bytes:
        """The public name of the secret: 32 bytes."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Return 64 bytes that only the holder of the secret can make."""
        return hashlib.blake2b(message, key=self._secret, digest_size=64).digest()


class HashVerifier:
    """Checks keyed hashes of the signers it was told of."""

    def __init__(self) -> None:
        self._signers: dict[bytes, HashSigner] = {}

    def know(self, signer: HashSigner) -> None:
        """Accept this signer's signatures from now on."""
        self._signers[signer.public_key] = signer

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """True only when the known signer of `public_key` made the signature."""
        signer = self._signers.get(public_key)
        return signer is not None and signer.sign(message) == signature


class KeyRing:
    """Makes the world's keys from seeds, of the kind that a run asked for."""

    def __init__(self, *, real: bool) -> None:
        self._hashes = HashVerifier()
        self._real = real
        self.verifier: Verifier = Ed25519Verifier() if real else self._hashes

    def signer(self, seed: bytes) -> Signer:
        """The signer that belongs to a 32-byte seed."""
        if self._real:
            return Ed25519Signer(seed)
        signer = HashSigner(seed)
        self._hashes.know(signer)
        return signer


def member_of(me: int, identity: bytes) -> Member:
    """How a record describes the member with this number in the world."""
    return Member(f"sim-{me}", identity, identity, f"sim-{me}:1", f"http://sim-{me}:2")
