"""What a watch sees: the events of an interval of keys, in their order, from any kept revision.

Pure: replicas that have executed the same give the same answer to the same question, and where
one has executed less, its answer is a beginning of the others'.
"""

from __future__ import annotations

from msgspec import Struct

from dwcp.wire.operations import KeyValue
from dwcp.wire.watch import LAST, Place, Pull, WatchEvent
from dwcp_replica.store.layout import FROM_KEY, Event, shown
from dwcp_replica.store.mvcc import Mvcc, stored_bytes


class Seen(Struct, frozen=True):
    """The events after a pull's place and up to `upto`; or the compaction above that place."""

    upto: Place
    events: tuple[WatchEvent, ...] = ()
    compact_revision: int = 0


def covers(pull: Pull, key: bytes) -> bool:
    """Whether a pull is about this key."""
    if not pull.range_end:
        return key == pull.key
    return key >= pull.key and (pull.range_end == FROM_KEY or key < pull.range_end)


def look(keys: Mvcc, pull: Pull, *, bytes_max: int, events_max: int, quiet: Place = (0, 0)) -> Seen:
    """Answer a pull, from at most so many events; more may follow after `upto`.

    Up to `quiet` the caller knows that nothing matches.

    The events of a revision may be more than a page holds: `upto` then lies within it.
    """
    revision, sub = pull.after
    if revision + (sub == LAST) < keys.head.compacted:
        return Seen(upto=pull.after, compact_revision=keys.head.compacted)
    revision, sub = max(pull.after, quiet)
    start = (revision, sub + 1) if sub < LAST else (revision + 1, 0)
    found: list[WatchEvent] = []
    size_bytes = 0
    events = keys.events(start, keys.head.revision + 1)
    for looked_at, (place, event) in enumerate(events, start=1):
        if covers(pull, event.key) and (shown_ := _show(keys, pull, place, event)) is not None:
            found.append(shown_)
            size_bytes += stored_bytes(shown_.kv)
            size_bytes += 0 if shown_.prev_kv is None else stored_bytes(shown_.prev_kv)
        if size_bytes >= bytes_max or looked_at >= events_max:
            return Seen(upto=place, events=tuple(found))
    return Seen(upto=max(pull.after, (keys.head.revision, LAST)), events=tuple(found))


def _show(keys: Mvcc, pull: Pull, place: Place, event: Event) -> WatchEvent | None:
    if ("NODELETE" if event.deleted else "NOPUT") in pull.filters:
        return None
    revision, sub = place
    prev_kv = None
    if pull.prev_kv and event.previous is not None and revision > keys.head.compacted:
        prev_kv = shown(event.key, event.previous)
    if event.deleted:
        gone = KeyValue(event.key, create_revision=0, mod_revision=revision, version=0)
        return WatchEvent("DELETE", gone, prev_kv)
    version = keys.at(event.key, revision, sub)
    assert version is not None, f"what was put at {place} is kept"
    return WatchEvent("PUT", shown(event.key, version), prev_kv)
