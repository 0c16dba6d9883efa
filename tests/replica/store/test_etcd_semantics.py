"""What a real etcd server answered, asked of our store: every case that needs no network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dwcp.wire.operations import (
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
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Result,
    TxnRequest,
    TxnResponse,
)
from dwcp.wire.watch import LAST, Pull, WatchEvent, watched
from dwcp_replica.store import KeyStore
from dwcp_replica.store.records import MemoryRecords
from dwcp_replica.store.watching import look

PROJECT = Path(__file__).resolve().parents[3]
CASES = PROJECT.parent / "shared" / "conformance" / "etcd_semantics" / "cases.jsonl"
CODES = {
    3: "InvalidArgument",
    5: "NotFound",
    8: "ResourceExhausted",
    9: "FailedPrecondition",
    11: "OutOfRange",
}
UNLIMITED = 2**62
REQUESTS: dict[str, Any] = {
    "put": PutRequest,
    "range": RangeRequest,
    "delete_range": DeleteRangeRequest,
    "txn": TxnRequest,
    "compact": CompactionRequest,
    "lease_grant": LeaseGrantRequest,
    "lease_revoke": LeaseRevokeRequest,
    "lease_keep_alive": LeaseKeepAliveRequest,
    "lease_time_to_live": LeaseTimeToLiveRequest,
    "lease_leases": LeaseLeasesRequest,
}
COMPARE_TARGETS = {
    "version": "VERSION",
    "create_revision": "CREATE",
    "mod_revision": "MOD",
    "value": "VALUE",
    "lease": "LEASE",
}

Case = dict[str, Any]
EMPTY_INTERVAL: Case = {
    "canceled": True,
    "watch_id": -1,
    "cancel_reason": "mvcc: watcher range is empty",
    "events": [],
    "no_more_events": True,
}
"""What a gateway makes of an interval without keys, which the client refuses."""


def operations(case: Case) -> list[Case]:
    return [*case["setup"], case["request"], *(item["request"] for item in case.get("after", []))]


def not_yet(case: Case) -> str | None:
    """Why a case can not run yet, or None."""
    missing = {item["op"] for item in operations(case)} - set(REQUESTS) - {"sleep", "watch"}
    return "not yet: " + ", ".join(sorted(missing)) if missing else None


def load() -> list[Case]:
    if not CASES.exists():
        return []
    return [json.loads(line) for line in CASES.read_text().splitlines()]


ALL = load()
RUNNABLE = [case for case in ALL if not_yet(case) is None]


def to_compare(item: Case) -> Compare:
    fields = dict(item)
    for name in ("key", "range_end", "value"):
        if name in fields:
            fields[name] = fields[name].encode("latin-1")
    fields["target"] = COMPARE_TARGETS[fields["target"]]
    fields["result"] = fields["result"].upper()
    return Compare(**fields)


def to_request(item: Case) -> Any:
    fields = {name: value for name, value in item.items() if name != "op"}
    if item["op"] == "txn":
        return TxnRequest(
            compare=tuple(map(to_compare, fields.get("compare", ()))),
            success=tuple(map(to_request, fields.get("success", ()))),
            failure=tuple(map(to_request, fields.get("failure", ()))),
        )
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


class Etcd:
    """Our store, and agreed time, which passes only when a case sleeps."""

    def __init__(self) -> None:
        self.store = KeyStore(MemoryRecords())
        self.now_ms = 1_000_000
        self.store.advance(0, self.now_ms)

    def run(self, item: Case) -> Result | None:
        if item["op"] == "sleep":
            for _ in range(int(item["seconds"] * 10)):
                self.now_ms += 100
                self.store.advance(self.now_ms - 100, self.now_ms)
            return None
        assert item["op"] != "watch", "watches are asked for, not executed"
        result, _ = self.store.execute(to_request(item), UNLIMITED)
        return result

    def watch(self, item: Case) -> Case:
        """What a watch sees, and what its creation says."""
        interval = watched(
            item.get("key", "").encode("latin-1"), item.get("range_end", "").encode("latin-1")
        )
        created = {"created": True, "created_header_revision": self.store.revision}
        if interval is None:
            return created | EMPTY_INTERVAL
        start = item.get("start_revision", 0) or self.store.revision + 1
        filters = tuple(name.upper() for name in item.get("filters", ()))
        after, prev_kv = (start - 1, LAST), item.get("prev_kv", False)
        progress: Case = {}
        for request in item.get("during", ()):
            if request["op"] == "watch_progress":
                progress = {"progress_revision": self.store.revision, "progress_watch_id": -1}
            else:
                assert not isinstance(self.run(request), Failure)
        pull = Pull(0, *interval, after, filters, prev_kv)
        seen = look(self.store.keys, pull, bytes_max=UNLIMITED, events_max=UNLIMITED)
        if seen.compact_revision:
            ended = {"canceled": True, "compact_revision": seen.compact_revision}
            return created | ended | {"events": [], "no_more_events": True}
        events = [show_event(event) for event in seen.events]
        no_more = {"no_more_events": seen.upto == (self.store.revision, LAST)}
        return created | {"canceled": False, "events": events} | no_more | progress

    def show(self, result: Result | None) -> Case:
        """The answer in the fields of the cases."""
        if isinstance(result, Failure):
            return {"grpc_code": CODES[result.code], "message": result.message}
        return {"header_revision": self.store.revision} | show(result)


def show_kv(kv: KeyValue) -> Case:
    shown: Case = {
        "key": kv.key.decode("latin-1"),
        "value": kv.value.decode("latin-1"),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
    }
    return shown | ({"lease": kv.lease} if kv.lease else {})


def show_event(event: WatchEvent) -> Case:
    kv = show_kv(event.kv)
    if event.type == "DELETE":
        kv = {name: kv[name] for name in ("key", "mod_revision")}
    before = {"prev_kv": show_kv(event.prev_kv)} if event.prev_kv is not None else {}
    return {"type": event.type.lower(), "kv": kv} | before


def show(result: Any) -> Case:
    match result:
        case PutResponse(prev_kv):
            return {"op": "put", "prev_kv": prev_kv and show_kv(prev_kv)}
        case RangeResponse(kvs, more, count):
            kvs_shown = [show_kv(kv) for kv in kvs]
            keys = [kv["key"] for kv in kvs_shown]
            return {"op": "range", "kvs": kvs_shown, "keys": keys, "more": more, "count": count}
        case DeleteRangeResponse(deleted, prev_kvs):
            kvs_shown = [show_kv(kv) for kv in prev_kvs]
            return {"op": "delete_range", "deleted": deleted, "prev_kvs": kvs_shown}
        case TxnResponse(succeeded, responses):
            return {"op": "txn", "succeeded": succeeded, "responses": list(map(show, responses))}
        case LeaseGrantResponse(id_, ttl) | LeaseKeepAliveResponse(id_, ttl):
            return {"id": id_, "ttl": ttl}
        case LeaseTimeToLiveResponse(id_, ttl, granted, keys):
            names = sorted(key.decode("latin-1") for key in keys)
            return {"id": id_, "ttl": ttl, "granted_ttl": granted, "keys_sorted": names}
        case LeaseLeasesResponse(leases):
            return {"lease_ids": list(leases)}
        case CompactionResponse() | LeaseRevokeResponse():
            return {}
        case _:
            raise AssertionError(f"unexpected {result!r}")


def differs(got: Case, wanted: Case) -> str | None:
    """The first way in which an answer is not the one wanted (a partial match), or None."""
    for name, value in wanted.items():
        if name in ("error", "within_seconds"):
            continue
        if name == "ttl_at_most":
            if not 0 < got["ttl"] <= value:
                return f"ttl {got['ttl']} is not in (0, {value}]"
        elif name == "lease_ids":
            if set(got[name]) != set(value):
                return f"{name}: {got[name]}, wanted {value}"
        elif name == "responses":
            if len(got[name]) != len(value):
                return f"{len(got[name])} responses, wanted {len(value)}"
            for inner_got, inner_wanted in zip(got[name], value, strict=True):
                if (found := differs(inner_got, inner_wanted)) is not None:
                    return found
        elif got.get(name) != value:
            return f"{name}: {got.get(name)!r}, wanted {value!r}"
    return None


def assert_answer(etcd: Etcd, step: Case) -> None:
    request = step["request"]
    got = etcd.watch(request) if request["op"] == "watch" else etcd.show(etcd.run(request))
    for wanted in (step["expect"], step.get("observed", {})):
        assert (found := differs(got, wanted)) is None, found


@pytest.mark.skipif(not ALL, reason="../shared/conformance/etcd_semantics is absent")
@pytest.mark.parametrize("case", RUNNABLE, ids=lambda case: case["id"])
def test_case(case: Case) -> None:
    etcd = Etcd()
    for item in case["setup"]:
        assert not isinstance(etcd.run(item), Failure)
    for step in (case, *case.get("after", [])):
        assert_answer(etcd, step)


@pytest.mark.skipif(not ALL, reason="../shared/conformance/etcd_semantics is absent")
def test_a_false_expectation_is_noticed() -> None:
    false = {"request": {"op": "range", "key": "a"}, "expect": {"count": 1}}
    with pytest.raises(AssertionError):
        assert_answer(Etcd(), false)


@pytest.mark.skipif(not ALL, reason="../shared/conformance/etcd_semantics is absent")
def test_count(tell: Callable[[str], None]) -> None:
    """Says how many cases ran, and lists the others with their reason."""
    topics = Counter(case["id"].split("/")[0] for case in RUNNABLE)
    named = ", ".join(f"{topic} {count}" for topic, count in sorted(topics.items()))
    tell(f"etcd semantics: {len(RUNNABLE)} of {len(ALL)} cases run ({named})")
    for case in ALL:
        if reason := not_yet(case):
            tell(f"  {case['id']}: {reason}")
    assert len(RUNNABLE) == len(ALL)
