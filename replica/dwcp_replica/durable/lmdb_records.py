"""Records in LMDB: held in memory until a checkpoint is stable, then written at once.

state.py has the theory.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from dwcp_replica.durable.faults import DiskFailure, DiskFull
from dwcp_replica.durable.overlay import Overlay
from dwcp_replica.store.digest import Trie
from dwcp_replica.store.records import Target, checked

MAP_BYTES: Final = 16 * 1024**3
"""Address space to begin with, no memory and no disk; doubled whenever it does not suffice."""
HELD_BYTES_MAX: Final = 256 * 1024 * 1024
"""Written and not committed, while the disk is full: more, and the replica must stop."""
RECORD_OVERHEAD_BYTES: Final = 128

_TARGET: Final = b"target"


class _View:
    """A read transaction; empty once it was closed, or had to be."""

    def __init__(self, env: LmdbRecords, transaction: lmdb.Transaction) -> None:
        self._env = env
        self._transaction: lmdb.Transaction | None = transaction

    def get(self, key: bytes) -> bytes | None:
        """See store.records.View."""
        read = self._transaction
        return None if read is None else _got(read, key, self._env.records_db)

    def node(self, place: bytes) -> bytes | None:
        """See store.records.View."""
        read = self._transaction
        return None if read is None else _got(read, _place(place), self._env.nodes_db)

    def close(self) -> None:
        """See store.records.View."""
        if self._transaction is not None:
            self._transaction.abort()
            self._transaction = None
            self._env.closed(self)


class _HeldNodes:
    """The trie's nodes: those changed since the last commit, over those on disk."""

    def __init__(self, env: LmdbRecords) -> None:
        self.held: dict[bytes, bytes | None] = {}
        self.changed: dict[bytes, bytes | None] = {}
        self._env = env

    def get(self, place: bytes) -> bytes | None:
        """See digest.Nodes."""
        if place in self.held:
            return self.held[place]
        return self._env.stored_node(place)

    def set(self, place: bytes, node: bytes) -> None:
        """See digest.Nodes."""
        self.held[place] = self.changed[place] = node

    def remove(self, place: bytes) -> None:
        """See digest.Nodes."""
        self.held[place] = self.changed[place] = None


@dataclass(slots=True)
class _Layer:
    """What changed up to a checkpoint since the one before: values, or None for what goes."""

    index: int
    records: dict[bytes, bytes | None]
    nodes: dict[bytes, bytes | None]


class LmdbRecords:
    """The state of one member (store.records.StateRecords). From one thread, but for `copy_to`."""

    def __init__(self, directory: Path, map_bytes: int = MAP_BYTES) -> None:
        self._env = lmdb.open(
            str(directory), map_size=map_bytes, max_dbs=4, max_readers=64, sync=False,
            metasync=False, writemap=False, readahead=False, meminit=False,
        )  # fmt: skip
        self.records_db = self._env.open_db(b"records")
        self.nodes_db = self._env.open_db(b"nodes")
        self._meta_db = self._env.open_db(b"meta")
        self._map_bytes = self._env.info()["map_size"]
        self._read = self._env.begin()
        self._views: list[_View] = []
        self._copying = threading.Lock()
        self._held = Overlay()
        """key -> value, or None for a record that goes: what is not committed yet"""
        self._held_bytes = 0
        self._changed: dict[bytes, bytes | None] = {}
        self._layers: list[_Layer] = []
        self._undigested: dict[bytes, bytes | None] = {}
        self._nodes = _HeldNodes(self)
        self._trie = Trie(self._nodes)
        held = _got(self._read, _TARGET, self._meta_db)
        self._target: Target | None = None
        self._aim_held = False
        if held is not None:
            self._target = msgspec.msgpack.decode(held, type=tuple[int, bytes])

    # --- records ---------------------------------------------------------------------------------

    def get(self, key: bytes) -> bytes | None:
        """See store.records.Reading."""
        held = self._held.values
        if key in held:
            return held[key]
        return _got(self._read, key, self.records_db)

    def scan(
        self, low: bytes, high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See store.records.Reading: what is on disk, with what is held laid over it."""
        held, values = self._held.keys(low, high, reverse=reverse), self._held.values
        upper = next(held, None)
        for key, value in self._stored(low, high, reverse=reverse):
            while upper is not None and (upper > key if reverse else upper < key):
                if (value_held := values[upper]) is not None:
                    yield upper, value_held
                upper = next(held, None)
            if upper == key:
                continue
            yield key, value
        while upper is not None:
            if (value_held := values[upper]) is not None:
                yield upper, value_held
            upper = next(held, None)

    def _stored(
        self, low: bytes, high: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        with self._read.cursor(db=self.records_db) as cursor:
            if not reverse:
                found = cursor.set_range(low) if low else cursor.first()
                while found and (high is None or cursor.key() < high):
                    yield cursor.item()
                    found = cursor.next()
                return
            if high is None:
                found = cursor.last()
            else:
                found = cursor.prev() if cursor.set_range(high) else cursor.last()
            while found and cursor.key() >= low:
                yield cursor.item()
                found = cursor.prev()

    def set(self, key: bytes, value: bytes) -> None:
        """See store.records.Records."""
        checked(key, value)
        self._hold(key, value)

    def remove(self, key: bytes) -> None:
        """See store.records.Records."""
        if self.get(key) is not None:
            self._hold(key, None)

    def _hold(self, key: bytes, value: bytes | None) -> None:
        held = self._held.values
        if key not in held:
            self._held_bytes += len(key) + RECORD_OVERHEAD_BYTES
        self._held_bytes += len(value or b"") - len(held.get(key) or b"")
        self._held.set(key, value)
        self._changed[key] = self._undigested[key] = value

    def digest(self) -> bytes:
        """See store.records.Records."""
        undigested, self._undigested = self._undigested, {}
        self._trie.update(undigested)
        return self._trie.root()

    def node(self, place: bytes) -> bytes | None:
        """See store.records.StateRecords."""
        return self._nodes.get(place)

    def stored_node(self, place: bytes) -> bytes | None:
        """A node as of the last commit."""
        return _got(self._read, _place(place), self.nodes_db)

    # --- commits ---------------------------------------------------------------------------------

    @property
    def target(self) -> Target | None:
        """See store.records.StateRecords."""
        return self._target

    @property
    def held_bytes(self) -> int:
        """Written and not committed."""
        return self._held_bytes

    @property
    def used_bytes(self) -> int:
        """The size of the file."""
        info, page_bytes = self._env.info(), self._env.stat()["psize"]
        return int((info["last_pgno"] + 1) * page_bytes)

    def aim(self, target: Target | None) -> None:
        """See store.records.StateRecords. Raises DiskFull."""
        before, self._target = self._target, target
        self._aim_held = True
        if not self.commit():
            self._target = before
            raise DiskFull("no room to begin or end the transfer of a state: it is tried again")

    def seal(self, index: int) -> None:
        """See store.records.StateRecords."""
        self.digest()
        self._layers.append(_Layer(index, self._changed, self._nodes.changed))
        self._changed, self._nodes.changed = {}, {}

    def commit(self, upto: int | None = None) -> bool:
        """See store.records.StateRecords. Raises DiskFailure when too much waits for room."""
        if upto is None:
            self.seal(-1)
            taken, left = self._layers, []
        else:
            taken = [layer for layer in self._layers if layer.index <= upto]
            left = self._layers[len(taken) :]
        merged = _Layer(-1, {}, {})
        for layer in taken:
            merged.records.update(layer.records)
            merged.nodes.update(layer.nodes)
        if not (merged.records or merged.nodes or self._aim_held):
            return True
        if not self._try_write(merged):
            return False
        self._layers = left
        self._read.abort()
        self._read = self._env.begin()
        self._forget(merged)
        self._aim_held = False
        return True

    def _forget(self, written: _Layer) -> None:
        """Hold no longer what was written and has not changed since."""
        later = [*self._layers, _Layer(-1, self._changed, self._nodes.changed)]
        later = [layer for layer in later if layer.records or layer.nodes]
        gone = written.records.keys() - {key for layer in later for key in layer.records}
        for key in gone:
            value = self._held.values[key]
            self._held_bytes -= len(key) + len(value or b"") + RECORD_OVERHEAD_BYTES
        self._held.drop(gone)
        for place in written.nodes.keys() - {p for layer in later for p in layer.nodes}:
            del self._nodes.held[place]

    def _try_write(self, layer: _Layer) -> bool:
        """Write a layer, with a larger map where that is needed; False when there is no room."""
        while True:
            try:
                self._write(layer)
            except lmdb.MapFullError:
                self._grow()
            except lmdb.PanicError as error:
                raise DiskFailure(f"the state can not be written: {error}") from error
            except lmdb.Error as error:
                # a short write shows as an I/O error; what is not committed is kept either way
                if self._held_bytes > HELD_BYTES_MAX:
                    raise DiskFailure(f"the state can not be written: {error}") from error
                return False
            else:
                return True

    def _write(self, layer: _Layer) -> None:
        with self._env.begin(write=True) as write:
            nodes = {_place(place): node for place, node in layer.nodes.items()}
            for db, changes in ((self.records_db, layer.records), (self.nodes_db, nodes)):
                kept: list[tuple[bytes, bytes]] = []
                for key, value in changes.items():
                    if value is None:
                        write.delete(key, db=db)
                    else:
                        kept.append((key, value))
                kept.sort()
                with write.cursor(db=db) as cursor:
                    cursor.putmulti(kept)
            if self._target is None:
                write.delete(_TARGET, db=self._meta_db)
            else:
                write.put(_TARGET, msgspec.msgpack.encode(self._target), db=self._meta_db)

    def _grow(self) -> None:
        """Double the map: nobody may read meanwhile, so that views end and a copy is awaited."""
        with self._copying:
            for view in list(self._views):
                view.close()
            self._read.abort()
            self._map_bytes *= 2
            self._env.set_mapsize(self._map_bytes)
            self._read = self._env.begin()

    def view(self) -> _View:
        """See store.records.StateRecords."""
        view = _View(self, self._env.begin())
        self._views.append(view)
        return view

    def closed(self, view: _View) -> None:
        """A view was closed."""
        self._views.remove(view)

    def copy_to(self, directory: Path) -> None:
        """Copy what is committed, without free pages; from any thread. Raises DiskFull."""
        try:
            with self._copying:
                self._env.copy(str(directory), compact=True)
        except lmdb.Error as error:
            raise DiskFull(f"no room for a snapshot of the state ({error})") from error

    def close(self, *, sync: bool) -> None:
        """Let go of the file; with `sync`, what is committed will outlive the machine's stop."""
        for view in list(self._views):
            view.close()
        self._read.abort()
        if sync:
            self._env.sync(force=True)
        self._env.close()


def _got(read: lmdb.Transaction, key: bytes, db: Any) -> bytes | None:
    found = read.get(key, db=db)
    assert found is None or isinstance(found, bytes), "LMDB was opened without buffers"
    return found


def _place(place: bytes) -> bytes:
    """A key for a place of the trie; LMDB has no empty keys."""
    return b"/" + place
