"""Operations on the store and their results, with the field names of etcd v3 (rpc.proto)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dwcp.wire.signing import Count

Nonce = Annotated[bytes, Meta(min_length=16, max_length=16)]


class PutRequest(Struct, frozen=True, array_like=True, tag="put"):
    """Write `value` under `key`; etcd's PutRequest. Leases are not supported yet: lease is 0."""

    key: bytes
    value: bytes = b""
    lease: int = 0
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
    limit: int = 0
    revision: int = 0
    sort_order: Literal["NONE", "ASCEND", "DESCEND"] = "NONE"
    sort_target: Literal["KEY", "VERSION", "CREATE", "MOD", "VALUE"] = "KEY"
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: int = 0
    max_mod_revision: int = 0
    min_create_revision: int = 0
    max_create_revision: int = 0


class DeleteRangeRequest(Struct, frozen=True, array_like=True, tag="delete_range"):
    """Delete the keys in [key, range_end); etcd's DeleteRangeRequest."""

    key: bytes
    range_end: bytes = b""
    prev_kv: bool = False


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


Operation = PutRequest | RangeRequest | DeleteRangeRequest | OpenSession | CloseSession


class KeyValue(Struct, frozen=True, array_like=True):
    """One key as stored at some revision; etcd's mvccpb.KeyValue."""

    key: bytes
    create_revision: int
    mod_revision: int
    version: int
    value: bytes = b""
    lease: int = 0


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


class SessionOpened(Struct, frozen=True, array_like=True, tag="session_opened"):
    """The number of the session that OpenSession opened (or had opened before)."""

    session: Count


class SessionClosed(Struct, frozen=True, array_like=True, tag="session_closed"):
    """The session is closed."""


class Failure(Struct, frozen=True, array_like=True, tag="failure"):
    """The operation was refused and changed nothing; `code` is a gRPC status code as etcd uses it.

    3 invalid argument, 5 not found, 8 resource exhausted, 9 failed precondition, 11 out of range,
    12 not supported yet.
    """

    code: Annotated[int, Meta(ge=1, le=16)]
    message: str


Result = PutResponse | RangeResponse | DeleteRangeResponse | SessionOpened | SessionClosed | Failure
