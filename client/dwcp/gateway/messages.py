"""etcd's protobuf messages to operations, and results to messages: pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeVar, get_args

from dwcp.gateway.proto import rpc_pb2 as pb
from dwcp.gateway.proto.kv_pb2 import Event
from dwcp.gateway.proto.kv_pb2 import KeyValue as KeyValueMessage
from dwcp.gateway.shapes import ShapeError
from dwcp.wire.operations import (
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnOperation,
    TxnRequest,
    TxnResponse,
    TxnResult,
)
from dwcp.wire.watch import WatchEvent

_Order = Literal["NONE", "ASCEND", "DESCEND"]
_SortTarget = Literal["KEY", "VERSION", "CREATE", "MOD", "VALUE"]
_Result = Literal["EQUAL", "GREATER", "LESS", "NOT_EQUAL"]
_Target = Literal["VERSION", "CREATE", "MOD", "VALUE", "LEASE"]
_ORDERS: Final[tuple[_Order, ...]] = get_args(_Order)
_SORT_TARGETS: Final[tuple[_SortTarget, ...]] = get_args(_SortTarget)
_RESULTS: Final[tuple[_Result, ...]] = get_args(_Result)
_TARGETS: Final[tuple[_Target, ...]] = get_args(_Target)
_T = TypeVar("_T")


def named(names: tuple[_T, ...], number: int, where: str) -> _T:
    """The name of an enum's number, which protobuf leaves open. Raises ShapeError."""
    if not 0 <= number < len(names):
        raise ShapeError(f"{where} is not one of {', '.join(map(str, names))}")
    return names[number]


# --- in ----------------------------------------------------------------------------------------


def range_of(m: pb.RangeRequest) -> RangeRequest:
    """Raises ShapeError."""
    return RangeRequest(
        m.key, m.range_end, m.limit, m.revision,
        named(_ORDERS, m.sort_order, "sort_order"),
        named(_SORT_TARGETS, m.sort_target, "sort_target"),
        m.serializable, m.keys_only, m.count_only, m.min_mod_revision, m.max_mod_revision,
        m.min_create_revision, m.max_create_revision,
    )  # fmt: skip


def put_of(m: pb.PutRequest) -> PutRequest:
    """The operation."""
    return PutRequest(m.key, m.value, m.lease, m.prev_kv, m.ignore_value, m.ignore_lease)


def delete_of(m: pb.DeleteRangeRequest) -> DeleteRangeRequest:
    """The operation."""
    return DeleteRangeRequest(m.key, m.range_end, m.prev_kv)


def txn_of(m: pb.TxnRequest) -> TxnRequest:
    """Raises ShapeError."""
    return TxnRequest(
        tuple(_compare(one) for one in m.compare),
        tuple(_operation(one) for one in m.success),
        tuple(_operation(one) for one in m.failure),
    )


def _compare(m: pb.Compare) -> Compare:
    target = named(_TARGETS, m.target, "compare.target")
    result = named(_RESULTS, m.result, "compare.result")
    return Compare(
        m.key, target, result, m.version, m.create_revision, m.mod_revision, m.value, m.lease,
        m.range_end,
    )  # fmt: skip


def _operation(m: pb.RequestOp) -> TxnOperation:
    match m.WhichOneof("request"):
        case "request_range":
            return range_of(m.request_range)
        case "request_put":
            return put_of(m.request_put)
        case "request_delete_range":
            return delete_of(m.request_delete_range)
        case "request_txn":
            return txn_of(m.request_txn)
        case _:
            raise ShapeError("an operation of a transaction is empty")


# --- out ---------------------------------------------------------------------------------------


def key_value(kv: KeyValue) -> KeyValueMessage:
    """A key as stored."""
    return KeyValueMessage(
        key=kv.key, create_revision=kv.create_revision, mod_revision=kv.mod_revision,
        version=kv.version, value=kv.value, lease=kv.lease,
    )  # fmt: skip


def put_response(result: PutResponse, header: pb.ResponseHeader) -> pb.PutResponse:
    """etcd's answer to a put."""
    if result.prev_kv is None:
        return pb.PutResponse(header=header)
    return pb.PutResponse(header=header, prev_kv=key_value(result.prev_kv))


def range_response(result: RangeResponse, header: pb.ResponseHeader) -> pb.RangeResponse:
    """etcd's answer to a range."""
    return pb.RangeResponse(
        header=header, kvs=map(key_value, result.kvs), more=result.more, count=result.count
    )


def delete_response(
    result: DeleteRangeResponse, header: pb.ResponseHeader
) -> pb.DeleteRangeResponse:
    """etcd's answer to a deletion."""
    return pb.DeleteRangeResponse(
        header=header, deleted=result.deleted, prev_kvs=map(key_value, result.prev_kvs)
    )


def txn_response(result: TxnResponse, header: pb.ResponseHeader) -> pb.TxnResponse:
    """etcd's answer to a transaction; the answers in it have its revision, and no ids."""
    inner = pb.ResponseHeader(revision=header.revision)
    return pb.TxnResponse(
        header=header,
        succeeded=result.succeeded,
        responses=[_response_op(one, inner) for one in result.responses],
    )


def _response_op(result: TxnResult, header: pb.ResponseHeader) -> pb.ResponseOp:
    match result:
        case PutResponse():
            return pb.ResponseOp(response_put=put_response(result, header))
        case RangeResponse():
            return pb.ResponseOp(response_range=range_response(result, header))
        case DeleteRangeResponse():
            return pb.ResponseOp(response_delete_range=delete_response(result, header))
        case TxnResponse():
            return pb.ResponseOp(response_txn=txn_response(result, header))


def event_messages(events: Iterable[WatchEvent]) -> list[Event]:
    """What a watch has seen."""
    return [
        Event(
            type=Event.PUT if event.type == "PUT" else Event.DELETE,
            kv=key_value(event.kv),
            prev_kv=None if event.prev_kv is None else key_value(event.prev_kv),
        )
        for event in events
    ]
