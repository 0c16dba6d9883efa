"""A member's volume: who it is, its keys, its genesis and the place of its log.

Identity is the key on the volume. It is made here at the first start and never leaves. The
volume is a member's memory too: a key without the memory of what it signed is dangerous, so a
directory with a part missing is refused, not mended; the member is replaced under a new name.

Files: LOCK (locked while a process runs, with its pid), refusals (a line for each process that
was refused meanwhile), identity.key, tls.key, tls.crt, member.json (written last: its presence
says that the first start was finished), wal/, genesis.msgpack; invitation.msgpack of one that
joined later, removed.json (the epoch that is without it) of one that is a member no more. A key
that is to follow lies beside the present one (keys.py).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from dwcp.identity import KEY_FILE_MODE, Ed25519Signer, KeyFileError
from dwcp.wire.decoding import decoder_of
from dwcp.wire.records import SignedGenesis
from dwcp_replica.durable import keys, tls
from dwcp_replica.durable.faults import (
    DirectoryLocked,
    DiskFailure,
    ForeignDirectory,
    GenesisConflict,
    LostIdentity,
    MissingDirectory,
    RemovedMember,
)
from dwcp_replica.durable.files import replace_file, sync_directory, write_all
from dwcp_replica.durable.keys import MEMBER as _MEMBER
from dwcp_replica.durable.keys import MemberFile, write_member

_LOCK: Final = "LOCK"
_REFUSALS: Final = "refusals"
_GENESIS: Final = "genesis.msgpack"
_INVITATION: Final = "invitation.msgpack"
_REMOVED: Final = "removed.json"
_WAL: Final = "wal"
_KEYS: Final = ("identity.key", "tls.key", "tls.crt")
_BEFORE_MEMBER: Final = frozenset({_LOCK, _REFUSALS, _WAL, *_KEYS, "lost+found"})
"""What may stand in a directory whose first start was not finished."""
_REPLACE: Final = "replace this member under a new name, with an empty directory"


class RemovedFile(Struct, frozen=True):
    """removed.json: the first epoch of which the member is none."""

    epoch: int


class DataDirectory:
    """An open, locked data directory; `close` unlocks it, and so does the process's end."""

    def __init__(self, path: Path, lock_fd: int, name: str, cluster: str) -> None:
        self.path = path
        self.name = name
        self.cluster = cluster
        self._lock_fd = lock_fd
        self._member = _open_member(path, name, cluster)
        self._signer, self._fingerprint = _read_keys(path, self._member)
        self._next = keys.next_key(path)
        self._genesis = _load_genesis(path / _GENESIS)
        if self._genesis is None and any(self.wal_path.iterdir()):
            raise LostIdentity(f"{path} has a log but has lost {_GENESIS}: {_REPLACE}")

    @classmethod
    def open(cls, path: Path, *, name: str, cluster: str) -> DataDirectory:
        """Lock the directory of member `name` of `cluster`; make its keys at the first start.

        Raises MissingDirectory, DirectoryLocked, ForeignDirectory, LostIdentity, and DiskFailure
        when the disk can not be read or written.
        """
        if not path.is_dir():
            raise MissingDirectory(
                f"there is no directory {path}: mount the member's volume there, or make an "
                "empty directory for a new member"
            )
        try:
            _check_ours(path)
            lock_fd = _lock(path)
            try:
                return cls(path, lock_fd, name, cluster)
            except BaseException:
                os.close(lock_fd)
                raise
        except OSError as error:
            raise DiskFailure(f"can not use the data directory {path}: {error}") from error

    def close(self) -> None:
        """Unlock the directory."""
        os.close(self._lock_fd)

    @property
    def signer(self) -> Ed25519Signer:
        """The member's identity key."""
        return self._signer

    @property
    def next_signer(self) -> Ed25519Signer | None:
        """The key that is to follow, once an epoch record names it."""
        return self._next

    @property
    def former_keys(self) -> tuple[bytes, ...]:
        """The public keys that this member had before, oldest first."""
        return self._member.former_keys

    @property
    def first_key(self) -> bytes:
        """The public key that this volume began with: its log is bound to it."""
        return next(iter(self.former_keys), self._signer.public_key)

    def make_next_key(self) -> Ed25519Signer:
        """The key that is to follow, made now unless there is one. Raises DiskFailure."""
        try:
            self._next = keys.make_next_key(self.path)
        except OSError as error:
            raise DiskFailure(f"can not make a key in {self.path}: {error}") from error
        return self._next

    def adopt_next_key(self) -> None:
        """The next key is the member's from now on; the old one is erased. Raises DiskFailure."""
        assert self._next is not None, "a key is made before it is adopted"
        try:
            self._member = keys.adopt(self.path, self._member)
        except OSError as error:
            raise DiskFailure(f"can not change the key in {self.path}: {error}") from error
        self._signer, self._next = self._next, None

    @property
    def certificate_fingerprint(self) -> bytes:
        """SHA-256 of the TLS certificate's DER: 32 bytes."""
        return self._fingerprint

    @property
    def tls_key_path(self) -> Path:
        """The TLS private key, PEM."""
        return self.path / "tls.key"

    @property
    def tls_certificate_path(self) -> Path:
        """The TLS certificate, PEM."""
        return self.path / "tls.crt"

    @property
    def wal_path(self) -> Path:
        """The directory of the write-ahead log."""
        return self.path / _WAL

    @property
    def state_path(self) -> Path:
        """The directory of the replicated state."""
        return self.path / "state"

    @property
    def documents_path(self) -> Path:
        """The file of the documents."""
        return self.path / "documents.db"

    @property
    def archive_path(self) -> Path:
        """The directory of what is kept of the log's removed part."""
        return self.path / "archive"

    @property
    def genesis(self) -> SignedGenesis | None:
        """The genesis stored here; its signatures are for the caller to check."""
        return self._genesis

    def store_genesis(self, signed: SignedGenesis) -> SignedGenesis:
        """Store the genesis durably and return what is stored now.

        Signatures of the same record are joined, and one that is stored is never replaced.
        Raises GenesisConflict for another record, DiskFailure when it can not be written.
        """
        merged = signed if self._genesis is None else _merge(self._genesis, signed)
        if merged != self._genesis:
            try:
                replace_file(self.path / _GENESIS, msgspec.msgpack.encode(merged))
            except OSError as error:
                raise DiskFailure(f"can not store the genesis in {self.path}: {error}") from error
            self._genesis = merged
        return merged

    @property
    def invitation(self) -> bytes | None:
        """What this replica was invited with, when it joined after genesis."""
        try:
            return (self.path / _INVITATION).read_bytes()
        except FileNotFoundError:
            return None

    def store_invitation(self, encoded: bytes) -> None:
        """Keep what this replica was invited with, durably. Raises DiskFailure."""
        try:
            replace_file(self.path / _INVITATION, encoded)
        except OSError as error:
            raise DiskFailure(f"can not store the invitation in {self.path}: {error}") from error

    def retire(self, epoch: int) -> None:
        """Erase the identity keys for ever: `epoch` is without this member. Raises DiskFailure."""
        try:
            replace_file(self.path / _REMOVED, msgspec.json.encode(RemovedFile(epoch)) + b"\n")
            keys.erase_all(self.path)
        except OSError as error:
            raise DiskFailure(f"can not erase the key in {self.path}: {error}") from error

    def refusals(self) -> int:
        """How many processes were refused the directory since it was opened."""
        try:
            return (self.path / _REFUSALS).read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0


def _check_ours(path: Path) -> None:
    """Refuse a directory that holds something else, before writing into it."""
    if (path / _MEMBER).exists():
        return
    names = {entry.name.removesuffix(".tmp") for entry in path.iterdir()}
    if foreign := sorted(names - _BEFORE_MEMBER - {_MEMBER}):
        raise ForeignDirectory(
            f"{path} holds {foreign[0]!r} but no {_MEMBER}, so it is not a member's directory: "
            f"name the right one, or an empty one for a new member"
        )


def _lock(path: Path) -> int:
    """Take the lock and note our pid in it; a refusal is noted for the process that runs."""
    fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).strip()
        os.close(fd)
        _note_refusal(path)
        raise DirectoryLocked(str(path), int(text) if text.isdigit() else None) from None
    os.ftruncate(fd, 0)
    write_all(fd, b"%d\n" % os.getpid())
    (path / _REFUSALS).unlink(missing_ok=True)
    return fd


def _note_refusal(path: Path) -> None:
    fd = os.open(path / _REFUSALS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        write_all(fd, b"%d\n" % os.getpid())
    finally:
        os.close(fd)


def _open_member(path: Path, name: str, cluster: str) -> MemberFile:
    """Whose volume it is; made now if this is its first start."""
    if not (path / _MEMBER).exists():
        return _make_member(path, name, cluster)
    member = _read_member(path / _MEMBER)
    _check_not_removed(path)
    if (member.name, member.cluster) != (name, cluster):
        raise ForeignDirectory(
            f"{path} belongs to member {member.name} of cluster {member.cluster}, not to {name} "
            f"of {cluster}: mount that member's own volume"
        )
    keys.finish(path, member)
    for file in _KEYS:
        if not (path / file).exists():
            raise LostIdentity(f"{path} has lost {file}: {_REPLACE}")
    if not (path / _WAL).is_dir():
        raise LostIdentity(f"{path} has lost its log, {_WAL}/: {_REPLACE}")
    return member


def _check_not_removed(path: Path) -> None:
    """Refuse a directory whose member was removed; finish erasing its key."""
    try:
        removed = msgspec.json.decode((path / _REMOVED).read_bytes(), type=RemovedFile)
    except FileNotFoundError:
        return
    except msgspec.DecodeError as error:
        raise ForeignDirectory(f"{path / _REMOVED} is damaged ({error}): {_REPLACE}") from error
    keys.erase_all(path)
    raise RemovedMember(
        f"the member in {path} was removed from its cluster in epoch {removed.epoch}, and its key "
        "is erased: delete the directory; a new member takes a new name and an empty directory"
    )


def _make_member(path: Path, name: str, cluster: str) -> MemberFile:
    """Make what a member needs, or finish making it; member.json comes last.

    Keys of an unfinished first start are used: nobody has seen them, and none is overwritten.
    """
    key_path = path / "identity.key"
    if not key_path.exists():
        temporary = key_path.with_name("identity.key.tmp")
        temporary.unlink(missing_ok=True)
        Ed25519Signer.generate().save(temporary)
        temporary.rename(key_path)
    if not (path / "tls.key").exists():
        replace_file(path / "tls.key", tls.make_key_pem(), mode=KEY_FILE_MODE)
    if not (path / "tls.crt").exists():
        pem = tls.make_certificate_pem((path / "tls.key").read_bytes(), name)
        replace_file(path / "tls.crt", pem)
    (path / _WAL).mkdir(exist_ok=True)
    sync_directory(path)
    signer, fingerprint = _load_keys(path)
    member = MemberFile(
        format=1,
        cluster=cluster,
        name=name,
        identity=signer.public_key.hex(),
        certificate=fingerprint.hex(),
    )
    write_member(path, member)
    return member


def _read_member(path: Path) -> MemberFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=MemberFile)
    except msgspec.DecodeError as error:
        raise ForeignDirectory(
            f"{path} is damaged or of another program ({error}): {_REPLACE}"
        ) from error


def _read_keys(path: Path, member: MemberFile) -> tuple[Ed25519Signer, bytes]:
    """The member's key, and its certificate's fingerprint."""
    signer, fingerprint = _load_keys(path)
    if (signer.public_key.hex(), fingerprint.hex()) != (member.identity, member.certificate):
        raise LostIdentity(f"the keys in {path} are not those that {_MEMBER} names: {_REPLACE}")
    return signer, fingerprint


def _load_keys(path: Path) -> tuple[Ed25519Signer, bytes]:
    try:
        signer = Ed25519Signer.load(path / "identity.key")
        key = (path / "tls.key").read_bytes()
        certificate = (path / "tls.crt").read_bytes()
        if not tls.is_pair(key, certificate):
            raise LostIdentity(f"tls.key and tls.crt in {path} are not a pair: {_REPLACE}")
        return signer, tls.certificate_fingerprint(certificate)
    except (KeyFileError, ValueError) as error:
        raise LostIdentity(f"a key file in {path} is damaged ({error}): {_REPLACE}") from error


_decode_genesis: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)


def _load_genesis(path: Path) -> SignedGenesis | None:
    try:
        return _decode_genesis(path.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ForeignDirectory(f"{path} is damaged ({error}): {_REPLACE}") from error


def _merge(stored: SignedGenesis, signed: SignedGenesis) -> SignedGenesis:
    if stored.record != signed.record:
        raise GenesisConflict(
            f"another genesis is stored here already ({stored.record.hash().hex()[:16]}, offered "
            f"{signed.record.hash().hex()[:16]}): a member belongs to one cluster for ever"
        )
    if len(signed.member_sigs) != len(stored.member_sigs):
        raise GenesisConflict("the genesis offered has another number of signature places")
    return msgspec.structs.replace(
        stored,
        member_sigs=tuple(
            old or new for old, new in zip(stored.member_sigs, signed.member_sigs, strict=True)
        ),
    )
