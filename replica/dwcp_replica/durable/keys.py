"""A member's next identity key, from the moment that it is made until the old one is erased.

    identity.key                      the key, which member.json names
    identity.next                     made; an epoch record may name it from now on
    identity.old + identity.next      the change has begun: `adopt`
    member.json names the next one    decided; the rest is finished at the next opening, if need be
    identity.key                      the next one; the old one is overwritten and unlinked

Of keys that were erased the public part stays in member.json, oldest first: the log is bound to the
first one, and what the member signed under them must be recognised as its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from dwcp.identity import Ed25519Signer, KeyFileError
from dwcp_replica.durable.files import erase_file, replace_file, sync_directory

MEMBER: Final = "member.json"
KEY: Final = "identity.key"
NEXT: Final = "identity.next"
OLD: Final = "identity.old"


class MemberFile(Struct, frozen=True, omit_defaults=True):
    """member.json: whose volume this is; keys as hex digits, `former` those that were erased."""

    format: Literal[1]
    cluster: str
    name: str
    identity: str
    certificate: str
    former: tuple[str, ...] = ()

    @property
    def former_keys(self) -> tuple[bytes, ...]:
        """The public keys that this member had before, oldest first."""
        return tuple(bytes.fromhex(key) for key in self.former)


def write_member(path: Path, member: MemberFile) -> None:
    """Store member.json durably. Raises OSError, DiskFailure."""
    replace_file(path / MEMBER, msgspec.json.encode(member) + b"\n")


def next_key(path: Path) -> Ed25519Signer | None:
    """The key that was made to follow. Raises KeyFileError."""
    return Ed25519Signer.load(path / NEXT) if (path / NEXT).exists() else None


def make_next_key(path: Path) -> Ed25519Signer:
    """The key that is to follow, made durably unless it was made before.

    Raises OSError, DiskFailure, KeyFileError.
    """
    if (found := next_key(path)) is not None:
        return found
    temporary = path / f"{NEXT}.tmp"
    temporary.unlink(missing_ok=True)
    signer = Ed25519Signer.generate()
    signer.save(temporary)
    temporary.rename(path / NEXT)
    sync_directory(path)
    return signer


def adopt(path: Path, member: MemberFile) -> MemberFile:
    """Put the next key in the place of the present one, which is erased for ever.

    Raises OSError, DiskFailure, KeyFileError.
    """
    following = next_key(path)
    assert following is not None, "a key is made before it is adopted"
    if not (path / OLD).exists():
        (path / OLD).hardlink_to(path / KEY)
    later = msgspec.structs.replace(
        member, identity=following.public_key.hex(), former=(*member.former, member.identity)
    )
    write_member(path, later)
    finish(path, later)
    return later


def finish(path: Path, member: MemberFile) -> None:
    """Finish, or take back, an adoption that was cut off.

    Raises OSError, DiskFailure, KeyFileError.
    """
    following = next_key(path)
    if following is not None and following.public_key.hex() == member.identity:
        (path / NEXT).rename(path / KEY)
        sync_directory(path)
    if not (path / OLD).exists():
        return
    if _is_key(path / OLD, member.identity):
        (path / OLD).unlink()  # the adoption was not decided: this is the present key's other name
        sync_directory(path)
    else:
        erase_file(path / OLD)


def _is_key(path: Path, public_key: str) -> bool:
    try:
        return Ed25519Signer.load(path).public_key.hex() == public_key
    except KeyFileError:
        return False  # overwritten already


def erase_all(path: Path) -> None:
    """Erase every private key of the member. Raises OSError, DiskFailure."""
    for name in (OLD, NEXT, KEY):
        erase_file(path / name)
