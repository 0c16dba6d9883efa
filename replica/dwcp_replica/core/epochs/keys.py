"""The keys of one replica: which one it signs with in which epoch.

A member's key changes with an epoch: the record of the next one names the new key, in the old one
everything is signed with the old. So there may be two at a time, and of those before only the
public part is left, by which a replica that reads its log knows what it was in an ended epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer

ERASED: Final = "its key for this epoch is erased"


class ErasedKey:
    """What is left of a key that was erased: it signs nothing."""

    def __init__(self, public_key: bytes) -> None:
        self._public = public_key

    @property
    def public_key(self) -> bytes:
        """The public half."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Never called: whoever has only this is mute."""
        raise AssertionError(f"a key that was erased signs nothing, not {message[:32]!r}")


class Keys:
    """`present` is the key that the volume names; `former` public keys come before it."""

    def __init__(
        self, present: Signer, former: Iterable[bytes] = (), following: Signer | None = None
    ) -> None:
        self._present = present
        self._former = tuple(ErasedKey(key) for key in former)
        self.following = following
        """The key that the next record may name."""

    def expect(self, following: Signer) -> None:
        """A key was made, durably, that the next record may name."""
        self.following = following

    def adopted(self) -> None:
        """The key that followed is the present one, and the one before is erased."""
        assert self.following is not None, "a key is made before it is adopted"
        self._former = (*self._former, ErasedKey(self._present.public_key))
        self._present, self.following = self.following, None

    def of(self, record: EpochRecord) -> tuple[Signer, int | None]:
        """The key to sign with under a record, and this replica's number there."""
        newest = (self.following,) if self.following is not None else ()
        for signer in (*newest, self._present, *reversed(self._former)):
            number = record.member_with(signer.public_key)
            if number is not None:
                return signer, number
        return self._present, None
