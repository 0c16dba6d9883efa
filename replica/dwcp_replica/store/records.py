"""The one shape that every replicated state has: an ordered map from keys to values.

A state machine keeps all that it must remember in `Records`, and gets from them what agreement
needs: a digest whose cost follows what changed, views that later writes do not touch, and
(between replicas) the transfer of only what differs. Two states are equal exactly when their
digests are.

What a restart finds is what was committed: the state at the newest *stable* checkpoint, never a
later one. So a member can always show others the state that a quorum has certified, whatever it
has executed beyond it and however often it restarts. `seal` marks a checkpoint in what is held in
memory, `commit` writes down what was sealed up to one; a full disk loses nothing, and what is not
committed is executed again from the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from sortedcontainers import SortedDict

from dwcp_replica.core.trie import KEY_BYTES_MAX
from dwcp_replica.store.digest import Trie

VALUE_BYTES_MAX: Final = 8 * 1024 * 1024
"""A record must fit a frame on the way to a replica that lacks it."""

Target = tuple[int, bytes]
"""A stable checkpoint that a state is being turned into: its index and its state digest."""


class Reading(Protocol):
    """What can be read of records at one moment."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        ...

    def scan(
        self, low: bytes, high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [low, high) with their values, by ascending key (descending if `reverse`).

        high None means every key from `low` on. Nothing may be written while it is read from.
        """
        ...


class Records(Reading, Protocol):
    """The records of a state; written by one batch at a time."""

    def set(self, key: bytes, value: bytes) -> None:
        """Set a key. Keys are at most 480 bytes; values at most 8 MiB."""
        ...

    def remove(self, key: bytes) -> None:
        """Remove a key; one that is not there is fine."""
        ...

    def digest(self) -> bytes:
        """The digest of all records: 32 bytes. Its cost follows the changes since the last call."""
        ...


class View(Protocol):
    """A state as it was at a commit, for replicas that need it; closed soon."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None."""
        ...

    def node(self, place: bytes) -> bytes | None:
        """A node of the state's trie (digest.py), or None."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class StateRecords(Records, Protocol):
    """Records with what their owner needs: commits, views, and a state that is being fetched."""

    @property
    def target(self) -> Target | None:
        """The checkpoint that this state is being turned into: until then it is no state at all."""
        ...

    def aim(self, target: Target | None) -> None:
        """Begin to turn the state into another one, or note that it is done; commits all.

        Raises DiskFull: then nothing changed.
        """
        ...

    def seal(self, index: int) -> None:
        """The state is now that of the checkpoint at `index`."""
        ...

    def commit(self, upto: int | None = None) -> bool:
        """Let a restart find the state of the last sealed checkpoint up to `upto`, or of now.

        False when the disk is full: then nothing changed.
        """
        ...

    def view(self) -> View:
        """The state as of the last commit."""
        ...

    def node(self, place: bytes) -> bytes | None:
        """A node of the trie as of the last `digest`."""
        ...


def checked(key: bytes, value: bytes) -> None:
    """Refuse what could not be stored or sent: a bug of the state machine."""
    assert 0 < len(key) <= KEY_BYTES_MAX, f"a key of {len(key)} bytes; 1 to {KEY_BYTES_MAX} may be"
    assert len(value) <= VALUE_BYTES_MAX, (
        f"a value of {len(value)} bytes; {VALUE_BYTES_MAX} at most"
    )


class MemoryNodes:
    """A trie's nodes in memory."""

    def __init__(self, held: dict[bytes, bytes] | None = None) -> None:
        self.held = {} if held is None else held
        self.get = self.held.get

    def set(self, place: bytes, node: bytes) -> None:
        """See digest.Nodes."""
        self.held[place] = node

    def remove(self, place: bytes) -> None:
        """See digest.Nodes."""
        del self.held[place]


class MemoryView:
    """What was committed; `target` as it stood then."""

    def __init__(
        self, records: dict[bytes, bytes], nodes: dict[bytes, bytes], target: Target | None
    ) -> None:
        self.records = records
        self.nodes = nodes
        self.target = target

    def get(self, key: bytes) -> bytes | None:
        """See View."""
        return self.records.get(key)

    def node(self, place: bytes) -> bytes | None:
        """See View."""
        return self.nodes.get(place)

    def close(self) -> None:
        """See View."""


class MemoryRecords:
    """Records in memory: for the simulator, for tests, and for clients that check answers.

    `committed` is what a restart finds: it is never changed, only replaced.
    """

    def __init__(self, committed: MemoryView | None = None) -> None:
        committed = committed or MemoryView({}, {}, None)
        self.committed = committed
        self._map: Any = SortedDict(committed.records)
        self._nodes = MemoryNodes(dict(committed.nodes))
        self._trie = Trie(self._nodes)
        self._target = committed.target
        self._changed: dict[bytes, bytes | None] = {}
        self._sealed: dict[int, MemoryView] = {}

    def __len__(self) -> int:
        return len(self._map)

    def get(self, key: bytes) -> bytes | None:
        """See Reading."""
        value: bytes | None = self._map.get(key)
        return value

    def scan(
        self, low: bytes, high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See Reading."""
        keys = self._map.irange(low, high, inclusive=(True, False), reverse=reverse)
        return ((key, self._map[key]) for key in keys)

    def set(self, key: bytes, value: bytes) -> None:
        """See Records."""
        checked(key, value)
        self._map[key] = value
        self._changed[key] = value

    def remove(self, key: bytes) -> None:
        """See Records."""
        if self._map.pop(key, None) is not None:
            self._changed[key] = None

    def digest(self) -> bytes:
        """See Records."""
        changed, self._changed = self._changed, {}
        self._trie.update(changed)
        return self._trie.root()

    @property
    def target(self) -> Target | None:
        """See StateRecords."""
        return self._target

    def aim(self, target: Target | None) -> None:
        """See StateRecords."""
        self._target = target
        self.commit()

    def seal(self, index: int) -> None:
        """See StateRecords."""
        self.digest()
        self._sealed[index] = MemoryView(dict(self._map), dict(self._nodes.held), self._target)

    def commit(self, upto: int | None = None) -> bool:
        """See StateRecords."""
        if upto is None:
            self.seal(-1)
            self.committed = self._sealed.pop(-1)
            self._sealed.clear()
            return True
        for index in sorted(index for index in self._sealed if index <= upto):
            self.committed = self._sealed.pop(index)
        return True

    def view(self) -> MemoryView:
        """See StateRecords."""
        return self.committed

    def node(self, place: bytes) -> bytes | None:
        """See StateRecords."""
        return self._nodes.get(place)


class Section:
    """The records whose keys start with a prefix, shown without it: a part for one owner."""

    def __init__(self, records: Records, prefix: bytes) -> None:
        self._records = records
        self._prefix = prefix
        self._end = _after(prefix)

    def get(self, key: bytes) -> bytes | None:
        """See Reading."""
        return self._records.get(self._prefix + key)

    def scan(
        self, low: bytes = b"", high: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """See Reading."""
        end = self._end if high is None else self._prefix + high
        skip = len(self._prefix)
        for key, value in self._records.scan(self._prefix + low, end, reverse=reverse):
            yield key[skip:], value

    def set(self, key: bytes, value: bytes) -> None:
        """See Records; keys are shorter by the prefix."""
        self._records.set(self._prefix + key, value)

    def remove(self, key: bytes) -> None:
        """See Records."""
        self._records.remove(self._prefix + key)

    def digest(self) -> bytes:
        """The digest of this part, computed from scratch."""
        part = Trie(MemoryNodes())
        part.update(dict(self.scan()))
        return part.root()


def _after(prefix: bytes) -> bytes:
    """The first key after all that start with a prefix."""
    assert prefix[-1] < 0xFF, "a prefix whose last byte can be counted up"
    return prefix[:-1] + bytes((prefix[-1] + 1,))
