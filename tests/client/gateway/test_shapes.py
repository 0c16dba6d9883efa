"""etcd's JSON in and out."""

from __future__ import annotations

import pytest

from dwcp.gateway.shapes import ShapeError, decode_json, request_of, response_of
from dwcp.wire.operations import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    SessionClosed,
    TxnRequest,
    TxnResponse,
)

KV = KeyValue(b"foo", 2, 3, 2, b"bar")
KV_JSON = {
    "key": "Zm9v",
    "create_revision": "2",
    "mod_revision": "3",
    "version": "2",
    "value": "YmFy",
}


@pytest.mark.parametrize(
    ("found", "operation"),
    [
        ({"key": "Zm9v", "value": "YmFy"}, PutRequest(b"foo", b"bar")),
        ({"key": "Zm9v", "prevKv": True, "lease": "7"}, PutRequest(b"foo", b"", 7, prev_kv=True)),
        ({"key": "Zm9v", "prev_kv": True, "unknown": {}}, PutRequest(b"foo", prev_kv=True)),
        ({"key": None}, PutRequest(b"")),
        ({"key": "-_8", "value": "+/8="}, PutRequest(b"\xfb\xff", b"\xfb\xff")),
    ],
)
def test_puts(found: dict[str, object], operation: PutRequest) -> None:
    assert request_of(PutRequest, found) == operation


def test_what_is_not_given_is_empty_or_0() -> None:
    assert request_of(CompactionRequest, {}) == CompactionRequest(0)
    assert request_of(RangeRequest, {}) == RangeRequest(b"")


def test_ranges() -> None:
    found = {
        "key": "AA==",
        "range_end": "AA",
        "limit": "5",
        "revision": 3,
        "sortOrder": "DESCEND",
        "sort_target": 3,
        "serializable": True,
        "keys_only": False,
        "minModRevision": 2.0,
    }
    assert request_of(RangeRequest, found) == RangeRequest(
        b"\0", b"\0", limit=5, revision=3, sort_order="DESCEND", sort_target="MOD",
        serializable=True, min_mod_revision=2,
    )  # fmt: skip


def test_transactions() -> None:
    found = {
        "compare": [
            {"key": "Zm9v", "target": "CREATE", "createRevision": "2"},
            {"key": "Zm9v", "target": 3, "result": "NOT_EQUAL", "value": "YmFy"},
        ],
        "success": [{"requestPut": {"key": "Zm9v"}}, {"request_range": {"key": "Zm9v"}}],
        "failure": [
            {"request_delete_range": {"key": "Zm9v"}},
            {"requestTxn": {"success": [{"request_put": {}}]}},
        ],
    }
    assert request_of(TxnRequest, found) == TxnRequest(
        compare=(
            Compare(b"foo", "CREATE", create_revision=2),
            Compare(b"foo", "VALUE", "NOT_EQUAL", value=b"bar"),
        ),
        success=(PutRequest(b"foo"), RangeRequest(b"foo")),
        failure=(DeleteRangeRequest(b"foo"), TxnRequest(success=(PutRequest(b""),))),
    )


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"key": 5}, "key is not a string in base64"),
        ({"key": "!"}, "key is not base64"),
        ({"key": "Z"}, "key is not base64"),
        ({"key": "Zm9v", "limit": "x"}, "limit is not a whole number"),
        ({"key": "Zm9v", "limit": 1.5}, "limit is not a whole number"),
        ({"key": "Zm9v", "limit": True}, "limit is not a whole number"),
        ({"key": "Zm9v", "limit": "9223372036854775808"}, "limit is not a whole number"),
        ({"key": "Zm9v", "limit": 1e300}, "limit is not a whole number"),
        ({"key": "Zm9v", "limit": "\u0661"}, "limit is not a whole number"),
        ({"key": "Zm9v", "sort_order": "UP"}, "sort_order is not one of NONE, ASCEND, DESCEND"),
        ({"key": "Zm9v", "sort_order": 3}, "sort_order is not one of"),
        ({"key": "Zm9v", "keys_only": 1}, "keys_only is not true or false"),
        ({"key": "Zm9v", "keys_only": True, "keysOnly": True}, "keys_only is given twice"),
    ],
)
def test_what_is_wrong_is_named(found: dict[str, object], problem: str) -> None:
    with pytest.raises(ShapeError, match=problem):
        request_of(RangeRequest, found)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"compare": {}}, "compare is not a list"),
        ({"compare": [5]}, r"compare\[0\] is not an object"),
        ({"success": [{}]}, r"success\[0\] is not one of request_range"),
        ({"success": [{"request_put": {}, "request_range": {}}]}, "is not one of"),
        ({"success": [{"request_put": {"key": 1}}]}, r"success\[0\].request_put.key is not"),
        ({"compare": [{"target": "AGE"}]}, r"compare\[0\].target is not one of VERSION"),
    ],
)
def test_what_is_wrong_in_a_transaction_is_named(found: dict[str, object], problem: str) -> None:
    with pytest.raises(ShapeError, match=problem):
        request_of(TxnRequest, found)


def test_depth_is_an_error_like_any_other() -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"success": [{"request_txn": deep}]}
    with pytest.raises(ShapeError, match="nested too deeply"):
        request_of(TxnRequest, deep)
    while deep:  # taken apart by hand: so deep a tree would end the interpreter's own stack
        (inner,) = deep.pop("success")  # type: ignore[misc]
        deep = inner.pop("request_txn")
    with pytest.raises(ShapeError, match="nested too deeply"):
        decode_json(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b"{", b"\xff", b'{"a":}', b'"\xd8\x00"'])
def test_bodies_that_are_no_objects(body: bytes) -> None:
    with pytest.raises(ShapeError):
        decode_json(body)


def test_an_empty_body_is_an_empty_object() -> None:
    assert decode_json(b"") == decode_json(b" \n") == {}


def test_responses_leave_defaults_out_and_write_numbers_as_strings() -> None:
    assert response_of(PutResponse(), 9) == {}
    assert response_of(PutResponse(KV), 9) == {"prev_kv": KV_JSON}
    assert response_of(RangeResponse((KV,), more=True, count=3), 9) == {
        "kvs": [KV_JSON],
        "more": True,
        "count": "3",
    }
    assert response_of(RangeResponse(), 9) == {}
    assert response_of(DeleteRangeResponse(2, (KV, KV)), 9) == {
        "deleted": "2",
        "prev_kvs": [KV_JSON, KV_JSON],
    }
    assert response_of(
        TxnResponse(succeeded=True, responses=(PutResponse(), TxnResponse())), 9
    ) == {
        "succeeded": True,
        "responses": [
            {"response_put": {"header": {"revision": "9"}}},
            {"response_txn": {"header": {"revision": "9"}}},
        ],
    }
    with pytest.raises(ShapeError):
        response_of(SessionClosed(), 9)
