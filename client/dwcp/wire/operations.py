"""Operations on the store and their results, with the field names of etcd v3 (rpc.proto)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from dwcp.wire.frontiers import (
    FrontierGetRequest,
    FrontierResponse,
    FrontierVote,
    FrontierVoted,
)
from dwcp.wire.modes import ModeSetRequest, ModeSetResponse, NetworkReport, NetworkReported
from dwcp.wire.signing import Count, PublicKey
from dwcp.wire.strategies import StrategiesGetRequest, StrategiesResponse, StrategiesSetRequest

Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""What etcd's messages call int64."""

MAX_KEY_BYTES: Final = 464
"""The longest key. etcd has no such limit; the records in which our keys lie have one."""
MAX_GRANTS: Final = 1024
"""Of one client."""
MAX_TXN_OPERATIONS: Final = 128
"""etcd's default limit, which also bounds how deep transactions nest: see MAX_TXN_DEPTH."""
MAX_TXN_DEPTH: Final = MAX_TXN_OPERATIONS + 1
"""Transactions inside transactions. etcd's count leaves one operation less to every level, so
that at most an empty one stands below 128 others; anything deeper counts as malformed, since how
much deeper a decoder goes differs between interpreters."""


class PutRequest(Struct, frozen=True, array_like=True, tag="put"):
    """Write `value` under `key`; etcd's PutRequest. A lease other than 0 must exist."""

    key: bytes
    value: bytes = b""
    lease: Int64 = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class RangeRequest(Struct, frozen=True, array_like=True, tag="range"):
    """Read the keys in [key, range_end); etcd's RangeRequest.

    An empty range_end means the one key; b"\\0" means every key from `key` on.
    revision 0 or less means the newest; limit 0 means no limit.
    """

    key: bytes
    range_end: bytes = b""
    limit: Int64 = 0
    revision: Int64 = 0
    sort_order: Literal["NONE", "ASCEND", "DESCEND"] = "NONE"
    sort_target: Literal["KEY", "VERSION", "CREATE", "MOD", "VALUE"] = "KEY"
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: Int64 = 0
    max_mod_revision: Int64 = 0
    min_create_revision: Int64 = 0
    max_create_revision: Int64 = 0


class DeleteRangeRequest(Struct, frozen=True, array_like=True, tag="delete_range"):
    """Delete the keys in [key, range_end); etcd's DeleteRangeRequest."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


class Compare(Struct, frozen=True, array_like=True):
    """A condition on every key in [key, range_end); etcd's Compare.

    The operand is the field that `target` names. A key that does not exist has version,
    create_revision, mod_revision and lease 0, and no value: every comparison of its value fails.
    An interval without any key is compared like one key that does not exist.
    """

    key: bytes
    target: Literal["VERSION", "CREATE", "MOD", "VALUE", "LEASE"] = "VERSION"
    result: Literal["EQUAL", "GREATER", "LESS", "NOT_EQUAL"] = "EQUAL"
    version: Int64 = 0
    create_revision: Int64 = 0
    mod_revision: Int64 = 0
    value: bytes = b""
    lease: Int64 = 0
    range_end: bytes = b""


class TxnRequest(Struct, frozen=True, array_like=True, tag="txn"):
    """`success` if every comparison holds, else `failure`, in one revision; etcd's TxnRequest.

    Comparisons, those of nested transactions too, see the store as it was before the outermost
    transaction. Either all operations of the branches taken are executed or none is.
    """

    compare: tuple[Compare, ...] = ()
    success: tuple[TxnOperation, ...] = ()
    failure: tuple[TxnOperation, ...] = ()


TxnOperation = PutRequest | RangeRequest | DeleteRangeRequest | TxnRequest


class CompactionRequest(Struct, frozen=True, array_like=True, tag="compaction"):
    """Forget what only reads below `revision` could see; etcd's CompactionRequest.

    What is forgotten is removed little by little while later entries are executed, whatever
    `physical` says.
    """

    revision: Int64
    physical: bool = False


class LeaseGrantRequest(Struct, frozen=True, array_like=True, tag="lease_grant"):
    """Make a lease of `ttl` seconds of agreed time; id 0 lets the store choose one."""

    ttl: Int64
    id: Int64 = 0


class LeaseRevokeRequest(Struct, frozen=True, array_like=True, tag="lease_revoke"):
    """End a lease and delete its keys, all in one revision."""

    id: Int64


class LeaseKeepAliveRequest(Struct, frozen=True, array_like=True, tag="lease_keep_alive"):
    """Give a lease its whole time again."""

    id: Int64


class LeaseTimeToLiveRequest(Struct, frozen=True, array_like=True, tag="lease_time_to_live"):
    """Ask how long a lease still has, and for its keys if `keys`."""

    id: Int64
    keys: bool = False


class LeaseLeasesRequest(Struct, frozen=True, array_like=True, tag="lease_leases"):
    """Ask for the ids of all leases."""


class StatusRequest(Struct, frozen=True, array_like=True, tag="status"):
    """Ask for the store's sizes and alarms: the replicated part of etcd's StatusResponse."""


class HashKVRequest(Struct, frozen=True, array_like=True, tag="hash_kv"):
    """Ask for the hash of the history up to `revision` (0 or less: the newest)."""

    revision: Int64 = 0


class AlarmRequest(Struct, frozen=True, array_like=True, tag="alarm"):
    """List the alarms (GET), raise one, or end one; etcd's AlarmRequest.

    NOSPACE rises by itself when a write finds the quota used up, and ends by itself when enough
    space has come back.
    """

    action: Literal["GET", "ACTIVATE", "DEACTIVATE"] = "GET"
    alarm: Literal["NONE", "NOSPACE", "CORRUPT"] = "NONE"


class DefragmentRequest(Struct, frozen=True, array_like=True, tag="defragment"):
    """Accepted, and changes nothing: pages that compaction frees are used again by themselves."""


class DocumentRequest(Struct, frozen=True, array_like=True, tag="document"):
    """Hand operations on a document (dwcp.wire.documents, MessagePack) to every member, in order.

    The store only passes them on; whether they are valid, each member's documents judge alike.
    """

    document: Annotated[str, Meta(min_length=1, max_length=256)]
    operations: Annotated[tuple[bytes, ...], Meta(max_length=64)]


class OpenSession(Struct, frozen=True, array_like=True, tag="open_session"):
    """Open a client session: the only operation of an envelope with session 0.

    `nonce` is 16 random bytes; `time_ms` is the client's clock (Unix milliseconds). A session
    opens only while the cluster's agreed time is near `time_ms`, and one nonce opens one
    session, so that a replayed envelope never opens another.
    """

    nonce: Nonce
    time_ms: Count


class CloseSession(Struct, frozen=True, array_like=True, tag="close_session"):
    """Close the session this envelope belongs to; later envelopes in it are refused."""


class Command(Struct, frozen=True, array_like=True, tag="command"):
    """A command for the state machine that the cluster's owner embeds; opaque to DWCP."""

    payload: bytes


class Grant(Struct, frozen=True, array_like=True):
    """What may be done to the keys in [key, range_end), as in a RangeRequest."""

    key: bytes
    range_end: bytes = b""
    read: bool = False
    write: bool = False


class Access(Struct, frozen=True, array_like=True):
    """What one client may do. `admin`: compaction, alarms, and changing what clients may do."""

    admin: bool = False
    grants: Annotated[tuple[Grant, ...], Meta(max_length=MAX_GRANTS)] = ()


class AccessSetRequest(Struct, frozen=True, array_like=True, tag="access_set"):
    """From here on in the log a client may do this; None: everything. For administrators."""

    client: PublicKey
    access: Access | None = None


class AccessGetRequest(Struct, frozen=True, array_like=True, tag="access_get"):
    """Ask what a client may do."""

    client: PublicKey


KeyOperation = (
    PutRequest
    | RangeRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactionRequest
    | LeaseGrantRequest
    | LeaseRevokeRequest
    | LeaseKeepAliveRequest
    | LeaseTimeToLiveRequest
    | LeaseLeasesRequest
    | StatusRequest
    | HashKVRequest
    | AlarmRequest
    | DefragmentRequest
    | AccessSetRequest
    | AccessGetRequest
    | DocumentRequest
    | StrategiesSetRequest
    | StrategiesGetRequest
    | FrontierGetRequest
)
"""What the store of keys executes."""
MemberOperation = NetworkReport | FrontierVote
"""What members say themselves, alone and in no session."""
Operation = KeyOperation | OpenSession | CloseSession | Command | ModeSetRequest | MemberOperation


class KeyValue(Struct, frozen=True, array_like=True):
    """One key as stored at some revision; etcd's mvccpb.KeyValue."""

    key: bytes
    create_revision: Int64
    mod_revision: Int64
    version: Int64
    value: bytes = b""
    lease: Int64 = 0


class PutResponse(Struct, frozen=True, array_like=True, tag="put"):
    """etcd's PutResponse without its header; prev_kv only when it was asked for and existed."""

    prev_kv: KeyValue | None = None


class RangeResponse(Struct, frozen=True, array_like=True, tag="range"):
    """etcd's RangeResponse without its header; `count` ignores the limit."""

    kvs: tuple[KeyValue, ...] = ()
    more: bool = False
    count: int = 0


class DeleteRangeResponse(Struct, frozen=True, array_like=True, tag="delete_range"):
    """etcd's DeleteRangeResponse without its header."""

    deleted: int = 0
    prev_kvs: tuple[KeyValue, ...] = ()


class TxnResponse(Struct, frozen=True, array_like=True, tag="txn"):
    """Whether the comparisons held, and the results of the branch taken, in order."""

    succeeded: bool = False
    responses: tuple[TxnResult, ...] = ()


TxnResult = PutResponse | RangeResponse | DeleteRangeResponse | TxnResponse


class CompactionResponse(Struct, frozen=True, array_like=True, tag="compaction"):
    """Reads below the revision fail from now on."""


class LeaseGrantResponse(Struct, frozen=True, array_like=True, tag="lease_grant"):
    """The lease's id, and its seconds, which may be more than were asked for."""

    id: Int64
    ttl: Int64


class LeaseRevokeResponse(Struct, frozen=True, array_like=True, tag="lease_revoke"):
    """How many keys went with the lease (etcd does not say): with none, no revision was made."""

    deleted: int = 0


class LeaseKeepAliveResponse(Struct, frozen=True, array_like=True, tag="lease_keep_alive"):
    """The seconds that the lease has from now on; 0 when there is no such lease."""

    id: Int64
    ttl: Int64 = 0


class LeaseTimeToLiveResponse(Struct, frozen=True, array_like=True, tag="lease_time_to_live"):
    """Seconds left (-1: no such lease) of those granted; the keys if they were asked for."""

    id: Int64
    ttl: Int64 = -1
    granted_ttl: Int64 = 0
    keys: tuple[bytes, ...] = ()


class LeaseLeasesResponse(Struct, frozen=True, array_like=True, tag="lease_leases"):
    """The ids of all leases, the one that ends first first."""

    leases: tuple[Int64, ...] = ()


class StatusResponse(Struct, frozen=True, array_like=True, tag="status"):
    """Sizes in logical bytes: keys, values and 64 for each version that is kept."""

    db_size: int
    quota_bytes: int
    compact_revision: Int64
    leases: int
    alarms: tuple[str, ...] = ()


class HashKVResponse(Struct, frozen=True, array_like=True, tag="hash_kv"):
    """The hash of all that happened up to `hash_revision`, compacted or not: 32 bytes.

    (etcd's is 32 bits, over what is not compacted.)
    """

    hash: bytes
    hash_revision: Int64
    compact_revision: Int64


class AlarmResponse(Struct, frozen=True, array_like=True, tag="alarm"):
    """The alarms that stand after an AlarmRequest, or those that it ended or raised."""

    alarms: tuple[str, ...] = ()


class DefragmentResponse(Struct, frozen=True, array_like=True, tag="defragment"):
    """Nothing was to be done."""


class AccessSetResponse(Struct, frozen=True, array_like=True, tag="access_set"):
    """The client may do that, and no more, from the next operation on."""


class AccessGetResponse(Struct, frozen=True, array_like=True, tag="access_get"):
    """What a client may do; None: everything."""

    access: Access | None = None


class DocumentResponse(Struct, frozen=True, array_like=True, tag="document"):
    """The operations were passed on."""


class SessionOpened(Struct, frozen=True, array_like=True, tag="session_opened"):
    """The number of the session that OpenSession opened (or had opened before)."""

    session: Count


class SessionClosed(Struct, frozen=True, array_like=True, tag="session_closed"):
    """The session is closed."""


class CommandResult(Struct, frozen=True, array_like=True, tag="command"):
    """What the embedded state machine answered."""

    payload: bytes


class Failure(Struct, frozen=True, array_like=True, tag="failure"):
    """The operation was refused and changed nothing; `code` is a gRPC status code as etcd uses it.

    3 invalid argument, 5 not found, 7 not allowed, 8 resource exhausted, 9 failed precondition,
    11 out of range, 12 not supported yet.
    """

    code: Annotated[int, Meta(ge=1, le=16)]
    message: str


class EnvelopeFailure(Struct, frozen=True, array_like=True, tag="envelope_failure"):
    """The lone result of an envelope that was not executed, or whose results are not kept (15)."""

    code: Annotated[int, Meta(ge=1, le=16)]
    message: str


Result = (
    PutResponse
    | RangeResponse
    | DeleteRangeResponse
    | TxnResponse
    | CompactionResponse
    | LeaseGrantResponse
    | LeaseRevokeResponse
    | LeaseKeepAliveResponse
    | LeaseTimeToLiveResponse
    | LeaseLeasesResponse
    | StatusResponse
    | HashKVResponse
    | AlarmResponse
    | DefragmentResponse
    | AccessSetResponse
    | AccessGetResponse
    | DocumentResponse
    | StrategiesResponse
    | FrontierResponse
    | SessionOpened
    | SessionClosed
    | CommandResult
    | ModeSetResponse
    | NetworkReported
    | FrontierVoted
    | Failure
    | EnvelopeFailure
)


def reads_only(operation: Operation) -> bool:
    """True when the operation changes nothing, whatever the store holds."""
    match operation:
        case TxnRequest(success=success, failure=failure):
            return all(map(reads_only, success)) and all(map(reads_only, failure))
        case AlarmRequest(action=action):
            return action == "GET"
        case _:
            return isinstance(operation, _READS)


_READS: Final = (
    RangeRequest,
    LeaseTimeToLiveRequest,
    LeaseLeasesRequest,
    StatusRequest,
    HashKVRequest,
    DefragmentRequest,
    AccessGetRequest,
    StrategiesGetRequest,
    FrontierGetRequest,
)


def nests_too_deep(operation: Operation) -> bool:
    """True when transactions stand in each other deeper than MAX_TXN_DEPTH."""
    level = [operation] if isinstance(operation, TxnRequest) else []
    for _ in range(MAX_TXN_DEPTH):
        if not level:
            return False
        inner = (item for txn in level for item in (*txn.success, *txn.failure))
        level = [item for item in inner if isinstance(item, TxnRequest)]
    return bool(level)
