"""etcd v3's multi-version key space: put, range, delete_range, compaction, and what happened.

The empty store is at revision 1. A put makes the next revision; a delete_range that deletes at
least one key makes the next revision for all of them, one that deletes nothing makes none; a
transaction makes one for all that it writes. A key's `create_revision` is that of the put which
made it (anew after each delete), `version` counts the puts since then. Versions are kept until
compaction, so that every later revision can be read. How they lie in records: layout.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from heapq import merge
from itertools import islice
from typing import Any, Final

from msgspec import structs

from dwcp.wire.operations import (
    MAX_KEY_BYTES,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    HashKVRequest,
    HashKVResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from dwcp_replica.store import faults
from dwcp_replica.store.index import KeyIndex
from dwcp_replica.store.layout import (
    ATTACHED,
    DEAD,
    LEASE,
    LIVE,
    Event,
    KeyHead,
    Live,
    Place,
    Tip,
    Version,
    bounds,
    decoder,
    encode,
    event_key,
    event_place,
    shown,
    signed,
)
from dwcp_replica.store.undo import UndoRecords

VERSION_OVERHEAD_BYTES: Final = 64
"""What a version costs besides key and value, in the quota and in the size of answers."""
RECOVERED_SIXTEENTHS: Final = 15
"""NOSPACE ends when no more than this much of the quota is used."""

COUNTED_MAX: Final = 2000
"""Keys, or revisions, up to which counting goes through them one by one."""

_SORT_KEYS: Final[dict[str, Callable[[KeyValue], Any]]] = {
    "KEY": lambda kv: kv.key,
    "VERSION": lambda kv: kv.version,
    "CREATE": lambda kv: kv.create_revision,
    "MOD": lambda kv: kv.mod_revision,
    "VALUE": lambda kv: kv.value,
}
_LAST: Final = 2**32
"""Above any place in a revision."""
_decode_live = decoder(Live)
_decode_dead = decoder(Tip)
_decode_event = decoder(Event)


def stored_bytes(kv: KeyValue) -> int:
    """The logical size of one version."""
    return _version_bytes(kv.key, kv.value)


def _version_bytes(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + VERSION_OVERHEAD_BYTES


def _is_pruned(kv: KeyValue, request: RangeRequest) -> bool:
    return (
        (request.max_mod_revision != 0 and kv.mod_revision > request.max_mod_revision)
        or (request.min_mod_revision != 0 and kv.mod_revision < request.min_mod_revision)
        or (request.max_create_revision != 0 and kv.create_revision > request.max_create_revision)
        or (request.min_create_revision != 0 and kv.create_revision < request.min_create_revision)
    )


def _is_filtered(request: RangeRequest) -> bool:
    return bool(
        request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def _fetch_max(request: RangeRequest) -> int | None:
    """How many keys to fetch before sorting: one over the limit, so that `more` is known.

    As in etcd, a sort target without a sort order sorts only what the limit let through.
    """
    if request.count_only:
        return 0
    if request.limit <= 0 or request.sort_order != "NONE" or _is_filtered(request):
        return None
    return request.limit + 1


def _sorted(kvs: list[KeyValue], request: RangeRequest) -> list[KeyValue]:
    """In the order asked for; equal ones stay in key order, descending too."""
    if request.sort_order == "NONE" and request.sort_target == "KEY":
        return kvs
    return sorted(kvs, key=_SORT_KEYS[request.sort_target], reverse=request.sort_order == "DESCEND")


class Mvcc:
    """The key space in `records`. A Failure means that nothing changed.

    Whoever writes calls `end_revision` after the writes that share a revision.
    """

    def __init__(self, records: UndoRecords, head: KeyHead, quota_bytes: int) -> None:
        self.head = head
        self.looked_at = 0
        """Keys and old versions that operations had to look at since the start; not state."""
        self._records = records
        self._quota_bytes = quota_bytes
        self._sub = 0
        self._index = KeyIndex(records)

    @property
    def revision(self) -> int:
        """The newest revision that is whole."""
        return self.head.revision

    # --- operations ------------------------------------------------------------------------

    def put(self, request: PutRequest, answer_bytes_max: int) -> PutResponse | Failure:
        """Write one key."""
        live = self.live(request.key)
        previous = None if live is None else live.now
        prev_kv = None if previous is None else shown(request.key, previous)
        if not request.prev_kv:
            prev_kv = None
        elif prev_kv is not None and stored_bytes(prev_kv) > answer_bytes_max:
            return faults.too_large(answer_bytes_max)
        value, lease = request.value, request.lease
        if previous is not None:
            value = previous.value if request.ignore_value else value
            lease = previous.lease if request.ignore_lease else lease
        revision = self.head.revision + 1
        now = Version(
            create_revision=revision if previous is None else previous.create_revision,
            mod_revision=revision,
            version=1 if previous is None else previous.version + 1,
            value=value,
            lease=lease,
        )
        size_bytes = _version_bytes(request.key, value)
        if self.refuses(size_bytes):
            return faults.NO_SPACE
        self._write(request.key, live, now)
        self.head.stored_bytes += size_bytes
        return PutResponse(prev_kv=prev_kv)

    def range(self, request: RangeRequest, answer_bytes_max: int) -> RangeResponse | Failure:
        """Read keys, at the newest revision or an earlier one."""
        if (failure := self.check_range(request)) is not None:
            return failure
        kvs, count = self._fetch(request)
        if request.count_only:
            return RangeResponse(count=count)
        if _is_filtered(request):
            kvs = [kv for kv in kvs if not _is_pruned(kv, request)]
        kvs = _sorted(kvs, request)
        more = 0 < request.limit < len(kvs)
        if more:
            kvs = kvs[: request.limit]
        if request.keys_only:
            kvs = [structs.replace(kv, value=b"") for kv in kvs]
        if sum(map(stored_bytes, kvs)) > answer_bytes_max:
            return faults.too_large(answer_bytes_max)
        return RangeResponse(kvs=tuple(kvs), more=more, count=count)

    def delete_range(
        self, request: DeleteRangeRequest, answer_bytes_max: int
    ) -> DeleteRangeResponse | Failure:
        """Delete keys, all in one revision."""
        low, high = bounds(LIVE, request.key, request.range_end)
        gone = [(key[1:], _decode_live(data)) for key, data in self._records.scan(low, high)]
        self.looked_at += len(gone)
        prev_kvs: tuple[KeyValue, ...] = ()
        if request.prev_kv:
            prev_kvs = tuple(shown(key, live.now) for key, live in gone)
            if sum(map(stored_bytes, prev_kvs)) > answer_bytes_max:
                return faults.too_large(answer_bytes_max)
        for key, live in gone:
            self._write(key, live, None)
        return DeleteRangeResponse(deleted=len(gone), prev_kvs=prev_kvs)

    def compact(self, request: CompactionRequest) -> CompactionResponse | Failure:
        """Let go of what only reads below a revision could see; `collect` removes it later."""
        if request.revision <= self.head.compacted:
            return faults.COMPACTED
        if request.revision > self.head.revision:
            return faults.FUTURE_REVISION
        self.head.collected = (min(self.head.collected[0], max(0, self.head.compacted)), 0)
        self.head.compacted = request.revision
        return CompactionResponse()

    def hash(self, request: HashKVRequest) -> HashKVResponse | Failure:
        """The hash of the whole history up to a revision."""
        revision = request.revision if request.revision > 0 else self.head.revision
        if revision > self.head.revision:
            return faults.FUTURE_REVISION
        if revision < self.head.compacted:
            return faults.COMPACTED
        history = self.head.history
        if revision < self.head.revision:
            history = self._event((revision + 1, 0)).history
        return HashKVResponse(history, revision, max(0, self.head.compacted))

    # --- what others build on -----------------------------------------------------------------

    def live(self, key: bytes) -> Live | None:
        """The key as it stands, or None."""
        data = None if len(key) > MAX_KEY_BYTES else self._records.get(LIVE + key)
        return None if data is None else _decode_live(data)

    def newest(self, key: bytes, range_end: bytes) -> Iterator[Version]:
        """The keys in [key, range_end) as they stand."""
        for _, data in self._records.scan(*bounds(LIVE, key, range_end)):
            self.looked_at += 1
            yield _decode_live(data).now

    def check_put(self, request: PutRequest) -> Failure | None:
        """Why a put can not be done in this state, but for want of space."""
        if (request.ignore_value or request.ignore_lease) and self.live(request.key) is None:
            return faults.KEY_NOT_FOUND
        if request.lease and self._records.get(LEASE + signed(request.lease)) is None:
            return faults.LEASE_NOT_FOUND
        return None

    def check_range(self, request: RangeRequest) -> Failure | None:
        """Why a revision can not be read."""
        if request.revision > self.head.revision + min(self._sub, 1):
            return faults.FUTURE_REVISION
        if 0 < request.revision < self.head.compacted:
            return faults.COMPACTED
        return None

    def refuses(self, size_bytes: int) -> bool:
        """True when there is no room for this much; from then on, until space has come back."""
        if self.head.stored_bytes + size_bytes > self._quota_bytes:
            self.head.full = True
        return self.head.full or "NOSPACE" in self.head.raised

    def recover_space(self) -> None:
        """End NOSPACE if it rose by itself and enough space has come back."""
        if self.head.stored_bytes <= self._quota_bytes * RECOVERED_SIXTEENTHS // 16:
            self.head.full = False

    def delete(self, key: bytes) -> None:
        """Delete a key that exists, in the revision that is being made."""
        live = self.live(key)
        assert live is not None, "an attached key exists"
        self._write(key, live, None)

    def end_revision(self) -> None:
        """What was written since the last call is one revision; nothing written is none."""
        self.head.revision += min(self._sub, 1)
        self._sub = 0
        self._index.keep()

    def forget_revision(self) -> None:
        """The records were set back: nothing was written since the last `end_revision`."""
        self._sub = 0
        self._index.undo()

    def collect(self, events_max: int) -> int:
        """Let go of up to so many events up to the compaction; how many were looked at.

        Those of the compacted revision itself stay, since a watch may start there, but not what
        they replaced: only a read below it could see that.
        """
        if not self.has_garbage:
            return 0
        compacted = self.head.compacted
        low, high = event_key(*self.head.collected), event_key(compacted + 1)
        found = list(islice(self._records.scan(low, high), events_max))
        self.head.collected = (compacted + 1, 0)
        if len(found) == events_max:
            revision, sub = event_place(found[-1][0])
            self.head.collected = (revision, sub + 1)
        for record_key, data in found:
            event = _decode_event(data)
            if event_place(record_key)[0] < compacted:
                self._remove(record_key, event)
            elif event.previous is not None and event.previous.mod_revision < compacted:
                self.head.stored_bytes -= _version_bytes(event.key, event.previous.value)
                stripped = structs.replace(event, previous=None, earlier=None, jump=None)
                self._records.set(record_key, encode(stripped))
        return len(found)

    def _remove(self, record_key: bytes, event: Event) -> None:
        self._records.remove(record_key)
        if event.previous is not None:
            self.head.stored_bytes -= _version_bytes(event.key, event.previous.value)
        if event.deleted:
            self.head.stored_bytes -= _version_bytes(event.key, b"")
            tip = self._dead(event.key)
            if tip is not None and tip.place[:2] == event_place(record_key):
                self._records.remove(DEAD + event.key)

    @property
    def has_garbage(self) -> bool:
        """True when `collect` has something to do."""
        return self.head.collected[0] <= self.head.compacted

    def events(self, start: tuple[int, int], end: int) -> Iterator[tuple[tuple[int, int], Event]]:
        """The events that are left from a place on and below a revision, with their places."""
        for key, data in self._records.scan(event_key(*start), event_key(end)):
            yield event_place(key), _decode_event(data)

    def at(self, key: bytes, revision: int, sub: int = _LAST) -> Version | None:
        """The key as it stood after a place in a revision that is not compacted, or None."""
        live = self.live(key)
        if live is not None:
            return self._seen(live, (revision, sub, _LAST))
        tip = self._dead(key)
        return None if tip is None else self._before(tip.place, (revision, sub, _LAST))

    # --- inside -------------------------------------------------------------------------------

    def _write(self, key: bytes, live: Live | None, now: Version | None) -> None:
        """Make the next event of this revision: the key becomes `now`, or is deleted (None)."""
        dead = self._dead(key) if live is None else None
        tip = dead if live is None else live.tip
        previous = None if live is None else live.now
        revision = self.head.revision + 1
        place = (revision, self._sub, 0 if tip is None else tip.place[2] + 1)
        new_tip = Tip(place, *self._jumps(tip))
        event = Event(
            key=key,
            deleted=now is None,
            previous=previous,
            earlier=None if tip is None else tip.place,
            jump=new_tip.jump,
            history=b"" if self._sub else self.head.history,
        )
        records = self._records
        records.set(event_key(revision, self._sub), encode(event))
        if now is None:
            records.remove(LIVE + key)
            self._index.removed(LIVE + key)
            records.set(DEAD + key, encode(new_tip))
            self.head.stored_bytes += _version_bytes(key, b"")
        else:
            records.set(LIVE + key, encode(Live(now, new_tip)))
            if live is None:
                self._index.added(LIVE + key)
            if dead is not None:
                records.remove(DEAD + key)
        self._attach(
            key, 0 if previous is None else previous.lease, 0 if now is None else now.lease
        )
        self.head.history = sha256(self.head.history + encode((key, now))).digest()
        self._sub += 1

    def _attach(self, key: bytes, old: int, new: int) -> None:
        if old != new:
            if old:
                self._records.remove(ATTACHED + signed(old) + key)
            if new:
                self._records.set(ATTACHED + signed(new) + key, b"")

    def _jumps(self, tip: Tip | None) -> tuple[Place | None, Place | None]:
        """Where an event after `tip` jumps to, and where that one does (Myers 1983)."""
        if tip is None:
            return None, None
        near, far = tip.jump, tip.further
        if near is None or far is None or tip.place[2] - near[2] != near[2] - far[2]:
            return tip.place, near
        data = self._records.get(event_key(*far[:2]))
        return far, None if data is None else _decode_event(data).jump

    def _dead(self, key: bytes) -> Tip | None:
        data = None if len(key) > MAX_KEY_BYTES else self._records.get(DEAD + key)
        return None if data is None else _decode_dead(data)

    def _event(self, place: tuple[int, int] | Place) -> Event:
        data = self._records.get(event_key(*place[:2]))
        assert data is not None, f"the event at {place} is not compacted"
        return _decode_event(data)

    def _seen(self, live: Live, moment: Place) -> Version | None:
        return live.now if live.tip.place <= moment else self._before(live.tip.place, moment)

    def _before(self, place: Place, moment: Place) -> Version | None:
        """What the first event after `moment` replaced, of the key whose newest is at `place`."""
        if place <= moment:
            return None
        event = self._event(place)
        while True:
            self.looked_at += 1
            if event.jump is not None and event.jump > moment:
                event = self._event(event.jump)
            elif event.earlier is not None and event.earlier > moment:
                event = self._event(event.earlier)
            else:
                return event.previous

    def _fetch(self, request: RangeRequest) -> tuple[list[KeyValue], int]:
        """Keys by ascending key, as many as may be needed, and the count of all."""
        fetch_max = _fetch_max(request)
        if 0 < request.revision <= self.head.revision - (not self._sub):
            return self._fetch_past(request, fetch_max)
        if not request.range_end:
            self.looked_at += 1
            live = self.live(request.key)
            kvs = [] if live is None else [shown(request.key, live.now)]
            return kvs[:fetch_max], len(kvs)
        low, high = bounds(LIVE, request.key, request.range_end)
        found = self._records.scan(low, high)
        kvs = [shown(key[1:], _decode_live(data).now) for key, data in islice(found, fetch_max)]
        self.looked_at += len(kvs)
        return kvs, len(kvs) if fetch_max is None else self._count(low, high)

    def _count(self, low: bytes, high: bytes) -> int:
        """How many keys there are between two record keys."""
        count = sum(1 for _ in islice(self._records.scan(low, high), COUNTED_MAX + 1))
        self.looked_at += min(count, COUNTED_MAX)
        return count if count <= COUNTED_MAX else self._index.count(low, high)

    def _fetch_past(
        self, request: RangeRequest, fetch_max: int | None
    ) -> tuple[list[KeyValue], int]:
        moment = (request.revision, _LAST, _LAST)
        seen = merge(
            self._past(LIVE, request, moment), self._past(DEAD, request, moment), key=_key_of
        )
        kvs = list(islice(seen, fetch_max))
        if fetch_max is None or len(kvs) < fetch_max:
            return kvs, len(kvs)
        if not request.range_end or self.head.revision - request.revision > COUNTED_MAX:
            return kvs, len(kvs) + sum(1 for _ in seen)
        return kvs, self._count_past(request)

    def _past(self, kind: bytes, request: RangeRequest, moment: Place) -> Iterator[KeyValue]:
        """The keys of a kind that existed at a moment."""
        for key, data in self._records.scan(*bounds(kind, request.key, request.range_end)):
            self.looked_at += 1
            if kind == LIVE:
                version = self._seen(_decode_live(data), moment)
            else:
                version = self._before(_decode_dead(data).place, moment)
            if version is not None:
                yield shown(key[1:], version)

    def _count_past(self, request: RangeRequest) -> int:
        """The keys that there were: those that there are, less what has happened since."""
        low, high = bounds(LIVE, request.key, request.range_end)
        count = self._count(low, high)
        changed: set[bytes] = set()
        for _, event in self.events((request.revision + 1, 0), self.head.revision + 2):
            self.looked_at += 1
            if event.key not in changed and low <= LIVE + event.key < high:
                changed.add(event.key)
                exists = self._records.get(LIVE + event.key) is not None
                count += (event.previous is not None) - exists
        return count


def _key_of(kv: KeyValue) -> bytes:
    return kv.key
