"""What a client can ask for, one method per operation; `Client` and its sync twin have them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from dwcp import errors
from dwcp.lease import KeptLease
from dwcp.outcomes import Answered
from dwcp.results import (
    DeleteResult,
    ExecuteResult,
    Header,
    LeaseResult,
    LeasesResult,
    LeaseStanding,
    PutResult,
    RangeResult,
    StatusResult,
    TxnResult,
)
from dwcp.wire.frontiers import Frontier, FrontierGetRequest, FrontierResponse
from dwcp.wire.operations import (
    Access,
    AccessGetRequest,
    AccessGetResponse,
    AccessSetRequest,
    AccessSetResponse,
    Command,
    CommandResult,
    CompactionRequest,
    CompactionResponse,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    Operation,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    StatusRequest,
    StatusResponse,
    TxnOperation,
    TxnRequest,
    TxnResponse,
)
from dwcp.wire.strategies import (
    DocumentSettings,
    StrategiesGetRequest,
    StrategiesResponse,
    StrategiesSetRequest,
)

_Response = TypeVar("_Response")


class Calls(ABC):
    """Operations on the cluster, each answered when enough replicas signed the same answer.

    `timeout_ms` is how long to wait; None means as long as the client was made with. All raise
    the errors of errors.py; what the cluster refuses is errors.Refused, with etcd's code.
    """

    @abstractmethod
    async def _answered(
        self, operations: tuple[Operation, ...], timeout_ms: int | None
    ) -> Answered:
        """Have operations executed together."""

    @abstractmethod
    def _header(self, answered: Answered) -> Header:
        """Where an answer stands."""

    # --- keys --------------------------------------------------------------------------------

    async def put(
        self,
        key: str | bytes,
        value: str | bytes,
        *,
        lease: int = 0,
        prev_kv: bool = False,
        timeout_ms: int | None = None,
    ) -> PutResult:
        """Write `value` under `key`, attached to a lease unless that is 0."""
        request = PutRequest(as_bytes(key), as_bytes(value), lease, prev_kv=prev_kv)
        header, result = await self._one(request, PutResponse, timeout_ms)
        return PutResult(header, result.prev_kv)

    async def get(
        self, key: str | bytes, *, serializable: bool = False, timeout_ms: int | None = None
    ) -> KeyValue | None:
        """Read one key; None when it does not exist. `serializable` as in `range`."""
        found = await self.range(key, serializable=serializable, timeout_ms=timeout_ms)
        return found.kvs[0] if found.kvs else None

    async def range(
        self,
        key: str | bytes,
        range_end: str | bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        serializable: bool = False,
        timeout_ms: int | None = None,
    ) -> RangeResult:
        """Read the keys in [key, range_end); `prefix_end` makes a prefix's end.

        Linearizable: through the log, or beside it where the cluster has fast reads.
        `serializable`: a state that f+1 replicas vouch for, which may be old.
        """
        request = RangeRequest(
            as_bytes(key),
            as_bytes(range_end),
            limit=limit,
            revision=revision,
            keys_only=keys_only,
            count_only=count_only,
            serializable=serializable,
        )
        header, result = await self._one(request, RangeResponse, timeout_ms)
        return RangeResult(header, result.kvs, result.more, result.count)

    async def delete(
        self,
        key: str | bytes,
        range_end: str | bytes = b"",
        *,
        prev_kv: bool = False,
        timeout_ms: int | None = None,
    ) -> DeleteResult:
        """Delete the keys in [key, range_end), or the one key."""
        request = DeleteRangeRequest(as_bytes(key), as_bytes(range_end), prev_kv=prev_kv)
        header, result = await self._one(request, DeleteRangeResponse, timeout_ms)
        return DeleteResult(header, result.deleted, result.prev_kvs)

    async def command(self, payload: bytes, *, timeout_ms: int | None = None) -> bytes:
        """Execute a command of the state machine that the cluster's owner embeds; its answer."""
        _, result = await self._one(Command(payload), CommandResult, timeout_ms)
        return result.payload

    async def execute(
        self, *operations: Operation | bytes, timeout_ms: int | None = None
    ) -> ExecuteResult:
        """Send operations together: executed in this order, each by itself, not as a transaction.

        Bytes are a command of the embedded state machine. A refused operation is a Failure among
        the results; the others are still executed.
        """
        sent = tuple(Command(one) if isinstance(one, bytes) else one for one in operations)
        answered = await self._answered(sent, timeout_ms)
        return ExecuteResult(self._header(answered), answered.results)

    async def txn(
        self,
        compare: Sequence[Compare] = (),
        success: Sequence[TxnOperation] = (),
        failure: Sequence[TxnOperation] = (),
        *,
        timeout_ms: int | None = None,
    ) -> TxnResult:
        """Execute `success` if every comparison holds, else `failure`: all of it, or nothing."""
        request = TxnRequest(tuple(compare), tuple(success), tuple(failure))
        header, result = await self._one(request, TxnResponse, timeout_ms)
        return TxnResult(header, result.succeeded, result.responses)

    async def compact(self, revision: int, *, timeout_ms: int | None = None) -> Header:
        """Forget what only reads below `revision` could see."""
        header, _ = await self._one(CompactionRequest(revision), CompactionResponse, timeout_ms)
        return header

    async def store_status(self, *, timeout_ms: int | None = None) -> StatusResult:
        """The store's sizes and alarms."""
        header, result = await self._one(StatusRequest(), StatusResponse, timeout_ms)
        return StatusResult(header, result)

    # --- leases ------------------------------------------------------------------------------

    def lease(self, ttl_s: int) -> KeptLease:
        """A lease that is kept alive inside `async with`, and revoked at its end.

        async with client.lease(10) as lease:
            await client.put("workers/me", "here", lease=lease.id)
        """
        return KeptLease(self, ttl_s)

    async def lease_grant(
        self, ttl_s: int, lease_id: int = 0, *, timeout_ms: int | None = None
    ) -> LeaseResult:
        """Make a lease of so many seconds; id 0 lets the store choose one."""
        request = LeaseGrantRequest(ttl_s, lease_id)
        header, result = await self._one(request, LeaseGrantResponse, timeout_ms)
        return LeaseResult(header, result.id, result.ttl)

    async def lease_revoke(self, lease_id: int, *, timeout_ms: int | None = None) -> Header:
        """End a lease, and delete its keys."""
        request = LeaseRevokeRequest(lease_id)
        header, _ = await self._one(request, LeaseRevokeResponse, timeout_ms)
        return header

    async def lease_keep_alive(
        self, lease_id: int, *, timeout_ms: int | None = None
    ) -> LeaseResult:
        """Give a lease its whole time again; ttl 0 says that there is no such lease."""
        request = LeaseKeepAliveRequest(lease_id)
        header, result = await self._one(request, LeaseKeepAliveResponse, timeout_ms)
        return LeaseResult(header, result.id, result.ttl)

    async def lease_time_to_live(
        self, lease_id: int, *, keys: bool = False, timeout_ms: int | None = None
    ) -> LeaseStanding:
        """How long a lease still has (ttl -1: there is none), and its keys if `keys`."""
        request = LeaseTimeToLiveRequest(lease_id, keys)
        header, result = await self._one(request, LeaseTimeToLiveResponse, timeout_ms)
        return LeaseStanding(header, result.id, result.ttl, result.granted_ttl, result.keys)

    async def leases(self, *, timeout_ms: int | None = None) -> LeasesResult:
        """The ids of all leases, the one that ends first first."""
        header, result = await self._one(LeaseLeasesRequest(), LeaseLeasesResponse, timeout_ms)
        return LeasesResult(header, result.leases)

    # --- access ------------------------------------------------------------------------------

    async def access(self, client: bytes, *, timeout_ms: int | None = None) -> Access | None:
        """What the client with this public key may do; None: everything."""
        _, result = await self._one(AccessGetRequest(client), AccessGetResponse, timeout_ms)
        return result.access

    async def set_access(
        self, client: bytes, access: Access | None, *, timeout_ms: int | None = None
    ) -> Header:
        """Let a client do this from now on, and no more; None: everything. For administrators."""
        request = AccessSetRequest(client, access)
        header, _ = await self._one(request, AccessSetResponse, timeout_ms)
        return header

    # --- documents ---------------------------------------------------------------------------

    async def document_settings(self, *, timeout_ms: int | None = None) -> DocumentSettings:
        """The strategies that show conflicts of documents, and how long edits are kept."""
        _, result = await self._one(StrategiesGetRequest(), StrategiesResponse, timeout_ms)
        return result.settings

    async def set_document_settings(
        self, settings: DocumentSettings, *, timeout_ms: int | None = None
    ) -> Header:
        """Let these hold for documents from now on, and no others. For administrators."""
        request = StrategiesSetRequest(settings)
        header, _ = await self._one(request, StrategiesResponse, timeout_ms)
        return header

    async def frontier(self, document: str, *, timeout_ms: int | None = None) -> Frontier | None:
        """Below which a document's edits are forgotten; None: nothing is."""
        request = FrontierGetRequest(document)
        _, result = await self._one(request, FrontierResponse, timeout_ms)
        return result.frontier

    # --- inside ------------------------------------------------------------------------------

    async def _one(
        self, operation: Operation, kind: type[_Response], timeout_ms: int | None
    ) -> tuple[Header, _Response]:
        answered = await self._answered((operation,), timeout_ms)
        (result,) = answered.results
        if isinstance(result, Failure):
            raise errors.Refused(result.code, result.message)
        if not isinstance(result, kind):
            raise errors.BrokenAnswer(f"{operation!r:.100} was answered by {result!r:.100}")
        return self._header(answered), result


def prefix_end(prefix: str | bytes) -> bytes:
    """The range_end that, with `prefix` as key, covers all keys that start with it.

    For an empty prefix it is b"\0", which means every key (use b"\0" as the key as well).
    """
    data = as_bytes(prefix).rstrip(b"\xff")
    return data[:-1] + bytes((data[-1] + 1,)) if data else b"\0"


def as_bytes(text: str | bytes) -> bytes:
    """Keys and values may be given as text."""
    return text.encode() if isinstance(text, str) else text
