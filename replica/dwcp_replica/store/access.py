"""What each client may do: roles on intervals of keys, as replicated state.

A client without an entry may do everything, as every client of the genesis may at first. One with
an entry may read and write what its grants cover, and do an administrator's work if it says so. An
entry changes by an operation in the log, so that whoever loses a right loses it at the same
position everywhere: an operation that stands behind it in the log is refused by every replica.
"""

from __future__ import annotations

from dwcp.wire.frontiers import FrontierGetRequest
from dwcp.wire.operations import (
    Access,
    AccessGetRequest,
    AccessGetResponse,
    AccessSetRequest,
    AccessSetResponse,
    AlarmRequest,
    CompactionRequest,
    DefragmentRequest,
    DeleteRangeRequest,
    DocumentRequest,
    Failure,
    KeyOperation,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from dwcp.wire.strategies import StrategiesSetRequest
from dwcp_replica.store import faults
from dwcp_replica.store.layout import ACCESS, ATTACHED, FROM_KEY, after, decoder, encode, signed
from dwcp_replica.store.undo import UndoRecords

DOCUMENT_PREFIX = b"documents/"
"""Roles are given on keys; documents stand below this one."""
EVERYTHING = Access(admin=True)
"""What a client without an entry may do; its grants are not asked for."""

_decode = decoder(Access)


class AccessTable:
    """Entries by client key (32 bytes)."""

    def __init__(self, records: UndoRecords) -> None:
        self._records = records

    def of(self, client: bytes) -> Access | None:
        """A client's entry, or None: it may do everything."""
        data = self._records.get(ACCESS + client)
        return None if data is None else _decode(data)

    def set(self, request: AccessSetRequest) -> AccessSetResponse:
        """Change a client's entry."""
        if request.access is None:
            self._records.remove(ACCESS + request.client)
        else:
            self._records.set(ACCESS + request.client, encode(request.access))
        return AccessSetResponse()

    def get(self, request: AccessGetRequest) -> AccessGetResponse:
        """Show a client's entry."""
        return AccessGetResponse(self.of(request.client))

    def may_read(self, client: bytes, key: bytes, range_end: bytes) -> bool:
        """Whether the client may read all of an interval."""
        entry = self.of(client)
        return entry is None or _covered(entry, key, range_end, write=False)

    def may_administer(self, client: bytes) -> bool:
        """Whether the client may do what is for administrators."""
        entry = self.of(client)
        return entry is None or entry.admin

    def refusal(self, client: bytes, operation: KeyOperation) -> Failure | None:
        """Why this client may not do this; None when it may."""
        entry = self.of(client)
        if entry is None or self._allows(entry, operation):
            return None
        return faults.PERMISSION_DENIED

    def _allows(self, entry: Access, operation: KeyOperation) -> bool:
        match operation:
            case PutRequest(key=key, prev_kv=shows):
                return _touches(entry, key, b"", shows=shows)
            case DeleteRangeRequest(key=key, range_end=end, prev_kv=shows):
                return _touches(entry, key, end, shows=shows)
            case RangeRequest(key=key, range_end=end):
                return _covered(entry, key, end, write=False)
            case TxnRequest(compare=compare, success=success, failure=failure):
                reads = (_covered(entry, c.key, c.range_end, write=False) for c in compare)
                return all(reads) and all(self._allows(entry, o) for o in (*success, *failure))
            case CompactionRequest() | AlarmRequest() | DefragmentRequest() | AccessSetRequest():
                return entry.admin
            case StrategiesSetRequest():
                return entry.admin
            case DocumentRequest(document=document):
                return _covered(entry, DOCUMENT_PREFIX + document.encode(), b"", write=True)
            case FrontierGetRequest(document=document):
                return _covered(entry, DOCUMENT_PREFIX + document.encode(), b"", write=False)
            case LeaseGrantRequest() | LeaseKeepAliveRequest():
                return any(grant.write for grant in entry.grants)
            case LeaseRevokeRequest(id=id_):
                return all(_covered(entry, key, b"", write=True) for key in self._keys_of(id_))
            case LeaseTimeToLiveRequest(id=id_, keys=True):
                return all(_covered(entry, key, b"", write=False) for key in self._keys_of(id_))
            case _:
                return True

    def _keys_of(self, lease: int) -> list[bytes]:
        prefix = ATTACHED + signed(lease)
        return [key[9:] for key, _ in self._records.scan(prefix, after(prefix))]


def _touches(entry: Access, key: bytes, range_end: bytes, *, shows: bool) -> bool:
    """Writing needs the right to write, and being shown what was there the right to read."""
    written = _covered(entry, key, range_end, write=True)
    return written and (not shows or _covered(entry, key, range_end, write=False))


def _covered(entry: Access, key: bytes, range_end: bytes, *, write: bool) -> bool:
    """Whether one grant covers the whole interval (as in etcd, grants are not joined)."""
    for grant in entry.grants:
        if not (grant.write if write else grant.read) or key < grant.key:
            continue
        if not grant.range_end:
            if key == grant.key and not range_end:
                return True
        elif grant.range_end == FROM_KEY:
            return True
        elif not range_end:
            if key < grant.range_end:
                return True
        elif range_end != FROM_KEY and range_end <= grant.range_end:
            return True
    return False
