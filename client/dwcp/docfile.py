"""Documents on disk: every operation in an SQLite file, durable when `append` returns.

SQLite in WAL mode with synchronous=FULL syncs every commit, and after a crash at any point holds
exactly what was committed. Rows carry a CRC-32, which SQLite does not have: a damaged row is left
out and counted, what builds on it is held, and anti-entropy brings both again.

`waiting` is a client's outbox: operations that f+1 members have not signed for yet.
A file belongs to one process at a time (a lock beside it): one key that writes from two copies of a
document would look like a liar.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from dwcp.crdt import Document, Operation, Rules, Store
from dwcp.crdt.document import Dump
from dwcp.wire.documents import decode_operation

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS documents(
    name TEXT PRIMARY KEY, image BLOB, evicted BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS operations(
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL, operation BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS waiting(hash BLOB PRIMARY KEY) WITHOUT ROWID;
"""


class DocumentFileError(Exception):
    """The file can not be read, written or synced; what it holds beyond the last commit is lost."""


class DocumentFileFull(DocumentFileError):  # noqa: N818 - a state that passes
    """There is no room; nothing of this was written. Try again later."""


class DocumentFileBusy(DocumentFileError):  # noqa: N818 - a state that passes
    """Another process has the file open."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file held. `damaged` rows were left out; `waiting` is the outbox, by hash."""

    store: Store
    damaged: int
    waiting: frozenset[bytes]


class DocumentFile:
    """The file of one replica's documents. Any thread may write; one at a time does."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises DocumentFileError."""
        self.path = path
        self._turn = threading.Lock()
        self._lock = _locked(path.with_name(path.name + ".lock"))
        try:
            with _faults(path):
                self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(_SCHEMA)
        except BaseException:
            os.close(self._lock)
            raise

    def load(self, rules: Rules) -> Loaded:
        """All documents. Raises DocumentFileError."""
        store, damaged = Store(rules), 0
        with _faults(self.path):
            rows = self._db.execute("SELECT name, image, evicted, crc FROM documents").fetchall()
            heads = {name: (image, evicted, crc) for name, image, evicted, crc in rows}
            names = [row[0] for row in self._db.execute("SELECT DISTINCT name FROM operations")]
            for name in sorted({*names, *heads}):
                damaged += self._load_one(store, rules, name, heads.get(name))
            hashes = self._db.execute("SELECT hash FROM waiting").fetchall()
        return Loaded(store, damaged, frozenset(row[0] for row in hashes))

    def _load_one(
        self, store: Store, rules: Rules, name: str, head: tuple[bytes | None, bytes, int] | None
    ) -> int:
        """Put one document into the store; how many rows were damaged."""
        image: bytes | None = None
        evicted: tuple[bytes, ...] = ()
        damaged = 0
        if head is not None:
            if zlib.crc32((head[0] or b"") + head[1]) == head[2]:
                image, evicted = head[0], msgspec.msgpack.decode(head[1], type=tuple[bytes, ...])
            else:
                damaged += 1
        operations, lost = self._operations(name)
        damaged += lost
        dump = Dump(name, image, () if damaged else operations, (), evicted)
        document = Document.restore(msgspec.msgpack.encode(dump), rules)
        for operation in operations if damaged else ():
            document.receive(operation)
        store.put(document)
        return damaged

    def _operations(self, name: str) -> tuple[tuple[Operation, ...], int]:
        found, damaged = [], 0
        query = "SELECT operation, crc FROM operations WHERE name = ? ORDER BY number"
        for data, crc in self._db.execute(query, (name,)):
            if zlib.crc32(data) == crc:
                found.append(decode_operation(data))
            else:
                damaged += 1
        return tuple(found), damaged

    def append(
        self, operations: Iterable[tuple[str, Operation]], waiting: Iterable[bytes] = ()
    ) -> None:
        """Add operations by document; durable on return. Raises DocumentFileError, or (nothing
        was written then) DocumentFileFull."""
        rows = []
        for name, operation in operations:
            data = msgspec.msgpack.encode(operation)
            rows.append((name, data, zlib.crc32(data)))
        with self._transaction() as db:
            db.executemany("INSERT INTO operations(name, operation, crc) VALUES (?, ?, ?)", rows)
            db.executemany("INSERT OR IGNORE INTO waiting VALUES (?)", [(h,) for h in waiting])

    def replace(
        self, dump: Dump, waiting: Iterable[bytes] = (), gone: Iterable[bytes] = ()
    ) -> None:
        """Put a document in place of its rows: after it was collected, or evicted from.

        The outbox loses those that are gone, and has these too.
        """
        evicted = msgspec.msgpack.encode(dump.evicted)
        crc = zlib.crc32((dump.image or b"") + evicted)
        with self._transaction() as db:
            db.execute("DELETE FROM operations WHERE name = ?", (dump.name,))
            db.executemany("DELETE FROM waiting WHERE hash = ?", [(h,) for h in gone])
            db.executemany("INSERT OR IGNORE INTO waiting VALUES (?)", [(h,) for h in waiting])
            row = (dump.name, dump.image, evicted, crc)
            db.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", row)
            for operation in dump.operations:
                data = msgspec.msgpack.encode(operation)
                db.execute(
                    "INSERT INTO operations(name, operation, crc) VALUES (?, ?, ?)",
                    (dump.name, data, zlib.crc32(data)),
                )

    def safe(self, hashes: Iterable[bytes]) -> None:
        """These need not be sent again: f+1 members hold them."""
        with self._transaction() as db:
            db.executemany("DELETE FROM waiting WHERE hash = ?", [(h,) for h in hashes])

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        os.close(self._lock)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._turn, _faults(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
            raise DocumentFileFull(f"no room for documents in {path}") from error
        raise DocumentFileError(f"the documents in {path} can not be used: {error}") from error
    except (msgspec.DecodeError, OSError) as error:
        raise DocumentFileError(f"the documents in {path} can not be used: {error}") from error


def _locked(path: Path) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DocumentFileError(f"can not open {path}: {error}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise DocumentFileBusy(
            f"{path} is locked: another process writes these documents; end it, or use --data of "
            "another client"
        ) from None
    return fd
