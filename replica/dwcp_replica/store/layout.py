"""How keys and leases lie in records: which kinds there are, and how record keys keep the order.

    10  (nothing)                    KeyHead: revision, sizes, alarms
    11  key                          Live: the newest version of a key that exists
    12  key                          Tip: where a deleted key's history begins
    13  revision, place in it        Event: what a revision did to one key, and what was before
    14  lease id                     Lease
    15  deadline, lease id           (nothing): leases by the time at which they end
    16  lease id, key                (nothing): a key that is attached to a lease
    17  client key                   Access: what a client may do
    18  (nothing)                    rules: which strategies show conflicts of documents
    19  digest of a document's name  Frontier: below which its operations are forgotten
    1a  member key                   Votes: for frontiers

Every value of a key is stored once: the newest in its Live record, an older one in the event
that replaced it. An event so holds what a reader of the past needs, and compaction below a
revision is nothing but the removal of the events before it, in their order.

*Finding an old version.* The version of a key at revision R is what the first of the key's events
after R replaced. The events of one key form a list from the newest back; each names the one
before it and one further back, chosen as in Myers' skew-binary lists (1983), so that any is found
in O(log n) steps, and adding one costs at most one more read.

Numbers are 8 bytes, big-endian; signed ones with the sign bit turned over, so that bytes sort as
the numbers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from dwcp.wire.operations import MAX_KEY_BYTES, KeyValue
from dwcp_replica.core.trie import EVENT_KIND

KEY_HEAD: Final = b"\x10"
LIVE: Final = b"\x11"
DEAD: Final = b"\x12"
EVENT: Final = EVENT_KIND
LEASE: Final = b"\x14"
DUE: Final = b"\x15"
ATTACHED: Final = b"\x16"
ACCESS: Final = b"\x17"
STRATEGIES: Final = b"\x18"
FRONTIER: Final = b"\x19"
VOTES: Final = b"\x1a"

FROM_KEY: Final = b"\0"
"""The range_end that means every key from `key` on."""

Place = tuple[int, int, int]
"""Where an event stands: its revision, its place in that revision, and how many its key had."""


class Version(Struct, frozen=True, array_like=True):
    """One version of a key."""

    create_revision: int
    mod_revision: int
    version: int
    value: bytes
    lease: int


class Tip(Struct, frozen=True, array_like=True):
    """The newest event of a key: its place, that of the one it jumps to, and of that one's."""

    place: Place
    jump: Place | None
    further: Place | None


class Live(Struct, frozen=True, array_like=True):
    """A key that exists."""

    now: Version
    tip: Tip


class Event(Struct, frozen=True, array_like=True):
    """One key's change: `previous` is what was replaced, `earlier` and `jump` are older events.

    `history` (in a revision's first event) is the hash of all that happened before it.
    """

    key: bytes
    deleted: bool
    previous: Version | None
    earlier: Place | None
    jump: Place | None
    history: bytes


class Lease(Struct, frozen=True, array_like=True):
    """A lease: `ttl` seconds were granted; it ends at agreed time `deadline_ms`."""

    ttl: int
    deadline_ms: int


class KeyHead(Struct, array_like=True):
    """The numbers of the key space.

    `compacted` is -1 until the first compaction; what is below `collected` has been removed.
    `full` says that NOSPACE rose by itself,
    `raised` holds alarms that an operator raised. TTLs count from `restarted_ms` where that is
    later than their grant or renewal.
    """

    revision: int = 1
    compacted: int = -1
    collected: tuple[int, int] = (0, 0)
    stored_bytes: int = 0
    history: bytes = bytes(32)
    full: bool = False
    raised: tuple[str, ...] = ()
    leases: int = 0
    leases_granted: int = 0
    restarted_ms: int = 0


_Shape = TypeVar("_Shape")
encode: Final[Callable[[Any], bytes]] = msgspec.msgpack.Encoder().encode


def decoder(shape: type[_Shape]) -> Callable[[bytes], _Shape]:
    """A decoder of our own records: a fault in them is ours, and may end the process."""
    return msgspec.msgpack.Decoder(shape).decode


def number(value: int) -> bytes:
    """A number from 0 on."""
    return value.to_bytes(8, "big")


def signed(value: int) -> bytes:
    """A number of 64 bits with a sign."""
    return (value + 2**63).to_bytes(8, "big")


def unsigned(data: bytes) -> int:
    """The number that `signed` wrote."""
    return int.from_bytes(data, "big") - 2**63


def event_key(revision: int, sub: int = 0) -> bytes:
    """The key of an event record."""
    return EVENT + revision.to_bytes(8, "big") + sub.to_bytes(4, "big")


def event_place(key: bytes) -> tuple[int, int]:
    """Revision and place of the event with this record key."""
    return int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:], "big")


def after(prefix: bytes) -> bytes:
    """The first record key above all that start with `prefix`, whose kind byte is not 255."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,))


def bounds(kind: bytes, key: bytes, range_end: bytes) -> tuple[bytes, bytes]:
    """Record keys [low, high) of the keys in [key, range_end); high <= low when there are none."""
    if not range_end:
        return kind + _clamped(key), kind + _clamped(key + b"\0")
    high = after(kind) if range_end == FROM_KEY else kind + _clamped(range_end)
    return kind + _clamped(key), high


def _clamped(key: bytes) -> bytes:
    """A bound that separates the stored keys as this one does, and fits a record's key."""
    return key if len(key) <= MAX_KEY_BYTES else key[:MAX_KEY_BYTES] + b"\0"


def shown(key: bytes, version: Version) -> KeyValue:
    """A version as clients see it."""
    return KeyValue(
        key,
        version.create_revision,
        version.mod_revision,
        version.version,
        version.value,
        version.lease,
    )
