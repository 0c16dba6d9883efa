"""Ed25519 keys: made, kept in files, used to sign and to verify (PyNaCl; RFC 8032)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from dwcp.wire.signing import digest

KEY_FILE_MODE: Final = 0o600


class KeyFileError(Exception):
    """A key file is missing, too open, or not a key; the message says what to do."""


class Ed25519Signer:
    """Signs with one private key, which never leaves this object but to its own file."""

    def __init__(self, seed: bytes) -> None:
        self._key = SigningKey(seed)
        self._public = bytes(self._key.verify_key)

    @classmethod
    def generate(cls) -> Ed25519Signer:
        """Make a new key from the operating system's randomness."""
        return cls(bytes(SigningKey.generate()))

    @classmethod
    def load(cls, path: Path) -> Ed25519Signer:
        """Read a key file. Raises KeyFileError when it is missing or damaged."""
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise KeyFileError(f"no key file at {path}: was the cluster made here?") from None
        try:
            seed = bytes.fromhex(text)
        except ValueError:
            raise KeyFileError(f"{path} is not a key file: expected 64 hex digits") from None
        if len(seed) != 32:
            raise KeyFileError(f"{path} is not a key file: expected 64 hex digits")
        return cls(seed)

    def save(self, path: Path) -> None:
        """Write the private key to a new file that only its owner can read, durably."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_FILE_MODE)
        try:
            os.write(fd, bytes(self._key).hex().encode("ascii") + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @property
    def seed(self) -> bytes:
        """The private key: 32 bytes. For the file that keeps it, nothing else."""
        return bytes(self._key)

    @property
    def public_key(self) -> bytes:
        """The public key: 32 bytes."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._key.sign(message).signature


class Ed25519Verifier:
    """Verifies signatures, and remembers a bounded number of those that held.

    The memory lets a shell check signatures on other threads first (`check`, then `remember`
    on the loop's own thread): the core asks the same question and finds it answered. Only good
    signatures are remembered, each as one digest.
    """

    def __init__(self, remembered_max: int = 65_536) -> None:
        self._good: dict[bytes, None] = {}
        self._remembered_max = remembered_max

    @staticmethod
    def check(public_key: bytes, message: bytes, signature: bytes) -> bool:
        """True only when the signature holds; touches no memory, so any thread may call it."""
        try:
            VerifyKey(public_key).verify(message, signature)
        except (BadSignatureError, ValueError, TypeError):
            return False
        return True

    def knows(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """True when this signature was found good before."""
        return digest("verified", public_key, message, signature) in self._good

    def remember(self, public_key: bytes, message: bytes, signature: bytes) -> None:
        """Note a signature that `check` found good. Call from one thread only."""
        self._good[digest("verified", public_key, message, signature)] = None
        if len(self._good) > self._remembered_max:
            del self._good[next(iter(self._good))]

    def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """True only when the signature holds; False for anything malformed."""
        if self.knows(public_key, message, signature):
            return True
        if not self.check(public_key, message, signature):
            return False
        self.remember(public_key, message, signature)
        return True
