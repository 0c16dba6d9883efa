"""What a real etcd server answered, asked of our store: every case of put, range and delete."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dwcp.wire.operations import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    Failure,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from dwcp_replica.store import Mvcc

PROJECT = Path(__file__).resolve().parents[3]
CASES = PROJECT.parent / "shared" / "conformance" / "etcd_semantics" / "cases.jsonl"
CODES = {3: "InvalidArgument", 5: "NotFound", 8: "ResourceExhausted", 11: "OutOfRange"}
UNLIMITED = 2**62
REQUESTS = {"put": PutRequest, "range": RangeRequest, "delete_range": DeleteRangeRequest}

Case = dict[str, Any]


def operations(case: Case) -> list[Case]:
    return [*case["setup"], case["request"], *(item["request"] for item in case.get("after", []))]


def not_yet(case: Case) -> str | None:
    """Why a case can not run yet, or None."""
    if missing := {item["op"] for item in operations(case)} - set(REQUESTS):
        return "not yet: " + ", ".join(sorted(missing))
    if any(item.get("lease") for item in operations(case)):
        return "not yet: leases"
    return None


def load() -> list[Case]:
    if not CASES.exists():
        return []
    return [json.loads(line) for line in CASES.read_text().splitlines()]


ALL = load()
RUNNABLE = [case for case in ALL if not_yet(case) is None]


def to_request(item: Case) -> Any:
    fields = {name: value for name, value in item.items() if name != "op"}
    if "value_repeat" in fields:
        char, count = fields.pop("value_repeat")
        fields["value"] = char * count
    for name in ("key", "range_end", "value"):
        if name in fields:
            fields[name] = fields[name].encode("latin-1")
    for name in ("sort_order", "sort_target"):
        if name in fields:
            fields[name] = fields[name].upper()
    return REQUESTS[item["op"]](**fields)


def run(store: Mvcc, item: Case) -> Any:
    call = {"put": store.put, "range": store.range, "delete_range": store.delete_range}
    return call[item["op"]](to_request(item), UNLIMITED)  # type: ignore[operator]


def show_kv(kv: KeyValue) -> Case:
    return {
        "key": kv.key.decode("latin-1"),
        "value": kv.value.decode("latin-1"),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
    }


def show(store: Mvcc, response: Any) -> Case:
    """The answer in the fields of the cases."""
    shown: Case = {"header_revision": store.revision}
    match response:
        case Failure(code, message):
            return {"grpc_code": CODES[code], "message": message}
        case PutResponse(prev_kv):
            shown["prev_kv"] = prev_kv and show_kv(prev_kv)
        case RangeResponse(kvs, more, count):
            kvs_shown = [show_kv(kv) for kv in kvs]
            keys = [kv["key"] for kv in kvs_shown]
            shown |= {"kvs": kvs_shown, "keys": keys, "more": more, "count": count}
        case DeleteRangeResponse(deleted, prev_kvs):
            shown |= {"deleted": deleted, "prev_kvs": [show_kv(kv) for kv in prev_kvs]}
    return shown


def assert_answer(store: Mvcc, step: Case) -> None:
    got = show(store, run(store, step["request"]))
    for wanted in (step["expect"], step.get("observed", {})):
        named = {name: value for name, value in wanted.items() if name != "error"}
        assert {name: got.get(name) for name in named} == named


@pytest.mark.skipif(not ALL, reason="../shared/conformance/etcd_semantics is absent")
@pytest.mark.parametrize("case", RUNNABLE, ids=lambda case: case["id"])
def test_case(case: Case) -> None:
    store = Mvcc()
    for item in case["setup"]:
        assert not isinstance(run(store, item), Failure)
    for step in (case, *case.get("after", [])):
        assert_answer(store, step)


@pytest.mark.skipif(not ALL, reason="../shared/conformance/etcd_semantics is absent")
def test_a_false_expectation_is_noticed() -> None:
    false = {"request": {"op": "range", "key": "a"}, "expect": {"count": 1}}
    with pytest.raises(AssertionError):
        assert_answer(Mvcc(), false)


@pytest.mark.skipif(not ALL, reason="../shared/conformance/etcd_semantics is absent")
def test_count(tell: Callable[[str], None]) -> None:
    """Says how many cases ran and lists the others with their reason."""
    tell(f"etcd semantics: {len(RUNNABLE)} of {len(ALL)} cases run")
    for case in ALL:
        if reason := not_yet(case):
            tell(f"  {case['id']}: {reason}")
    assert len(RUNNABLE) >= 60
