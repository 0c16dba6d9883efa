"""Leases, with agreed time: a key attached to a lease goes with it.

Theory. A lease ends at an agreed time, its deadline. When an entry is executed whose stamp has
reached it, the lease is revoked before the entry's envelopes run: every replica does that at the
same place in the log. Nobody else decides when a lease ends, so that a replica's own clock does
not matter; `next_due_ms` tells the primary when to propose an entry even if no client asks for
anything. At most `LEASES_PER_ENTRY` leases end in one entry, so that an entry's cost is bounded;
a lease that is due counts as ended already.

*Loss of service.* A client can not keep a lease alive while nothing is ordered. If a lease fell due
after the entry before, and the next entry comes more than `service_gap_ms` later, then nothing
was ordered when it should have been: every lease then has its whole time again, from that entry's
stamp (etcd does so when it has a new leader).
"""

from __future__ import annotations

from hashlib import sha256
from itertools import islice
from typing import Final

from dwcp.wire.operations import (
    Failure,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)
from dwcp_replica.store import faults
from dwcp_replica.store.layout import (
    ATTACHED,
    DUE,
    LEASE,
    Lease,
    after,
    decoder,
    encode,
    number,
    signed,
    unsigned,
)
from dwcp_replica.store.mvcc import Mvcc
from dwcp_replica.store.undo import UndoRecords

TTL_MIN: Final = 2
"""Seconds. etcd, too, lifts shorter ones to what its elections need."""
TTL_MAX: Final = 9_000_000_000
"""Seconds; etcd's limit."""
LEASES_PER_ENTRY: Final = 256
KEYS_PER_ENTRY: Final = 4096
"""When an entry has deleted this many keys, the next lease that is due waits for the next one."""
ID_OVERHEAD_BYTES: Final = 9

_decode_lease = decoder(Lease)


class Leases:
    """All leases. Whoever calls ends the revision that a revocation makes."""

    def __init__(
        self, keys: Mvcc, records: UndoRecords, leases_max: int, service_gap_ms: int
    ) -> None:
        self._keys = keys
        self._records = records
        self._leases_max = leases_max
        self._service_gap_ms = service_gap_ms
        self._stamp_ms = 0

    def advance(self, before_ms: int, stamp_ms: int) -> None:
        """Agreed time moves: end what is due, a bounded part of it at once."""
        self._stamp_ms = stamp_ms
        due_ms = self.next_due_ms()
        if due_ms is None or due_ms > stamp_ms:
            return
        if before_ms < due_ms < stamp_ms - self._service_gap_ms:
            self._keys.head.restarted_ms = stamp_ms
        deleted = 0
        low, high = DUE, DUE + number(stamp_ms + 1)
        for key, _ in list(islice(self._records.scan(low, high), LEASES_PER_ENTRY)):
            if deleted >= KEYS_PER_ENTRY:
                return
            self._records.remove(key)
            id_ = unsigned(key[9:])
            lease = self._get(id_)
            assert lease is not None, "what is due exists"
            if (deadline_ms := self._deadline_ms(lease)) > stamp_ms:
                self._put(id_, Lease(lease.ttl, deadline_ms))
            else:
                deleted += self._end(id_)

    def resume(self, stamp_ms: int) -> None:
        """Agreed time is this."""
        self._stamp_ms = stamp_ms

    def next_due_ms(self) -> int | None:
        """The agreed time at which the next lease may end."""
        first = next(self._records.scan(DUE, after(DUE)), None)
        return None if first is None else int.from_bytes(first[0][1:9], "big")

    # --- operations ------------------------------------------------------------------------

    def grant(self, request: LeaseGrantRequest) -> LeaseGrantResponse | Failure:
        """Make a lease."""
        head = self._keys.head
        if request.ttl > TTL_MAX:
            return faults.TTL_TOO_LARGE
        if request.id and self._get(request.id) is not None:
            return faults.LEASE_EXISTS
        if self._keys.refuses(0):
            return faults.NO_SPACE
        if head.leases >= self._leases_max:
            return faults.too_many_leases(self._leases_max)
        id_ = request.id or self._choose_id()
        ttl = max(request.ttl, TTL_MIN)
        self._put(id_, Lease(ttl, self._stamp_ms + ttl * 1000))
        head.leases += 1
        return LeaseGrantResponse(id_, ttl)

    def revoke(self, request: LeaseRevokeRequest) -> LeaseRevokeResponse | Failure:
        """End a lease and delete its keys."""
        lease = self._get(request.id)
        if lease is None:
            return faults.LEASE_NOT_FOUND
        self._records.remove(DUE + number(lease.deadline_ms) + signed(request.id))
        return LeaseRevokeResponse(self._end(request.id))

    def keep_alive(self, request: LeaseKeepAliveRequest) -> LeaseKeepAliveResponse:
        """Give a lease its whole time again."""
        lease = self._alive(request.id)
        if lease is None:
            return LeaseKeepAliveResponse(request.id)
        self._records.remove(DUE + number(lease.deadline_ms) + signed(request.id))
        self._put(request.id, Lease(lease.ttl, self._stamp_ms + lease.ttl * 1000))
        return LeaseKeepAliveResponse(request.id, lease.ttl)

    def time_to_live(
        self, request: LeaseTimeToLiveRequest, answer_bytes_max: int
    ) -> LeaseTimeToLiveResponse | Failure:
        """How long a lease still has, in seconds begun, and its keys."""
        lease = self._alive(request.id)
        if lease is None:
            return LeaseTimeToLiveResponse(request.id)
        keys = self._attached(request.id) if request.keys else ()
        if sum(map(len, keys)) > answer_bytes_max:
            return faults.too_large(answer_bytes_max)
        left_ms = self._deadline_ms(lease) - self._stamp_ms
        return LeaseTimeToLiveResponse(request.id, -(-left_ms // 1000), lease.ttl, keys)

    def list(self, answer_bytes_max: int) -> LeaseLeasesResponse | Failure:
        """The ids of all leases."""
        if self._keys.head.leases * ID_OVERHEAD_BYTES > answer_bytes_max:
            return faults.too_large(answer_bytes_max)
        now = DUE + number(self._stamp_ms + 1)
        due = (unsigned(key[9:]) for key, _ in self._records.scan(DUE, now))
        still = tuple(id_ for id_ in due if self._alive(id_) is not None)
        later = (unsigned(key[9:]) for key, _ in self._records.scan(now, after(DUE)))
        return LeaseLeasesResponse((*still, *later))

    # --- inside -------------------------------------------------------------------------------

    def _get(self, id_: int) -> Lease | None:
        data = self._records.get(LEASE + signed(id_))
        return None if data is None else _decode_lease(data)

    def _alive(self, id_: int) -> Lease | None:
        lease = self._get(id_)
        return lease if lease is not None and self._deadline_ms(lease) > self._stamp_ms else None

    def _put(self, id_: int, lease: Lease) -> None:
        self._records.set(LEASE + signed(id_), encode(lease))
        self._records.set(DUE + number(lease.deadline_ms) + signed(id_), b"")

    def _deadline_ms(self, lease: Lease) -> int:
        """When the lease really ends: its record is brought up to date when it falls due."""
        return max(lease.deadline_ms, self._keys.head.restarted_ms + lease.ttl * 1000)

    def _attached(self, id_: int) -> tuple[bytes, ...]:
        prefix = ATTACHED + signed(id_)
        keys = tuple(key[9:] for key, _ in self._records.scan(prefix, after(prefix)))
        self._keys.looked_at += len(keys)
        return keys

    def _end(self, id_: int) -> int:
        """Delete a lease that is no longer in DUE, and its keys in one revision; how many."""
        keys = self._attached(id_)
        for key in keys:
            self._keys.delete(key)
        self._keys.end_revision()
        self._records.remove(LEASE + signed(id_))
        self._keys.head.leases -= 1
        return len(keys)

    def _choose_id(self) -> int:
        """An id that is not in use: positive, and not one that a client would count up to."""
        head = self._keys.head
        while True:
            head.leases_granted += 1
            digest = sha256(b"lease" + number(head.leases_granted)).digest()
            id_ = int.from_bytes(digest[:8], "big") >> 1
            if id_ and self._get(id_) is None:
                return id_
