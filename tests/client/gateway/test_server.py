"""The gateway over HTTP, its client verified by four members with real stores."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from client.gateway.running import running
from client.loopback import Loopback, altered
from dwcp.client import Client
from dwcp.gateway.server import BODY_BYTES_MAX
from replica.waiting import until

PROJECT = Path(__file__).resolve().parents[3]
CASES = PROJECT.parent / "shared" / "conformance" / "etcd_semantics" / "cases.jsonl"
PATHS = {
    "put": "/v3/kv/put",
    "range": "/v3/kv/range",
    "delete_range": "/v3/kv/deleterange",
    "txn": "/v3/kv/txn",
    "compact": "/v3/kv/compaction",
}
CODES = {
    "InvalidArgument": 3, "NotFound": 5, "ResourceExhausted": 8, "FailedPrecondition": 9,
    "OutOfRange": 11,
}  # fmt: skip
FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "1000"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))

TXN = {
    "compare": [{"key": "Zm9v", "target": "VALUE", "value": "YmFy", "result": 0}],
    "success": [{"requestPut": {"key": "Zm9v"}}],
    "failure": [{"request_range": {"key": "YQ"}}],
}

Found = dict[str, Any]


class Caller:
    """What a user of the gateway does."""

    def __init__(self, http: aiohttp.ClientSession, loopback: Loopback, client: Client) -> None:
        self.http = http
        self.loopback = loopback
        self.client = client

    async def raw(
        self, path: str, body: bytes, method: str = "POST", **headers: str
    ) -> tuple[int, Found]:
        async with self.http.request(
            method, path, data=io.BytesIO(body), headers=headers
        ) as answer:
            assert not [h for h in answer.headers if h.startswith("Access-Control")]
            return answer.status, json.loads(await answer.read())

    async def ok(self, path: str, **fields: object) -> Found:
        status, found = await self.raw(path, json.dumps(fields).encode())
        assert status == 200, found
        return found

    async def error(self, path: str, **fields: object) -> tuple[int, int, str]:
        status, found = await self.raw(path, json.dumps(fields).encode())
        assert found["error"] == found["message"]
        return status, found["code"], found["message"]


@asynccontextmanager
async def gateway(*, fast_reads: bool = False) -> AsyncIterator[Caller]:
    async with (
        running(fast_reads=fast_reads) as found,
        aiohttp.ClientSession(found.url) as http,
    ):
        yield Caller(http, found.loopback, found.client)


def with_gateway(
    scenario: Callable[[Caller], Awaitable[None]], *, fast_reads: bool = False
) -> None:
    async def run() -> None:
        async with gateway(fast_reads=fast_reads) as caller:
            await scenario(caller)

    asyncio.run(run())


def b64(text: str) -> str:
    return base64.b64encode(text.encode("latin-1")).decode()


def test_put_range_delete() -> None:
    async def scenario(caller: Caller) -> None:
        done = await caller.ok("/v3/kv/put", key=b64("foo"), value=b64("bar"))
        header = done.pop("header")
        assert done == {}
        assert header["revision"] == "2"
        members = caller.loopback.members
        assert header["cluster_id"] == str(int.from_bytes(members.genesis.cluster_id[:8], "big"))
        found = await caller.ok("/v3/kv/range", key=b64("foo"))
        assert (found["count"], found["kvs"][0]["value"]) == ("1", b64("bar"))
        old = await caller.ok("/v3/kv/range", key=b64("foo"), serializable=True)
        assert old["kvs"] == found["kvs"]
        assert caller.client.reads["serializable"] == 1
        gone = await caller.ok("/v3/kv/deleterange", key=b64("foo"), prev_kv=True)
        assert (gone["deleted"], gone["prev_kvs"]) == ("1", found["kvs"])
        assert "kvs" not in await caller.ok("/v3/kv/range", key=b64("foo"))

    with_gateway(scenario)


def test_errors_have_etcds_form_and_codes() -> None:
    async def scenario(caller: Caller) -> None:
        refused = (400, 3, "etcdserver: key is not provided")
        assert await caller.error("/v3/kv/put") == refused
        assert (await caller.error("/v3/kv/range", key=b64("a"), revision="99"))[:2] == (400, 11)
        assert (await caller.error("/v3/kv/put", key=5))[:2] == (400, 3)
        assert (await caller.raw("/v3/kv/put", b"{"))[0] == 400
        large = await caller.raw("/v3/kv/put", b" " * (BODY_BYTES_MAX + 1))
        assert (large[0], large[1]["message"]) == (400, "etcdserver: request is too large")
        value = b64("v" * 1_600_000)
        assert (await caller.error("/v3/kv/put", key=b64("k"), value=value))[:2] == (400, 3)
        assert (await caller.raw("/v3/lease/nothing", b"{}"))[0] == 404
        status, found = await caller.raw("/v3/kv/put", b"", "GET")
        assert (status, found["code"]) == (405, 12)

    with_gateway(scenario)


def test_web_pages_are_kept_out() -> None:
    async def scenario(caller: Caller) -> None:
        body = json.dumps({"key": b64("k")}).encode()
        for method in ("POST", "OPTIONS"):
            status, found = await caller.raw(
                "/v3/kv/put", body, method, Origin="https://page.example"
            )
            assert (status, found["code"]) == (403, 7)
        assert "kvs" not in await caller.ok("/v3/kv/range", key=b64("k"))

    with_gateway(scenario)


def test_health_status_version_and_metrics() -> None:
    async def scenario(caller: Caller) -> None:
        assert await caller.raw("/health", b"", "GET") == (200, {"health": "true", "reason": ""})
        status = await caller.ok("/v3/maintenance/status")
        assert status["version"] == "3.6.0"
        assert status["header"]["revision"] == "1"
        assert int(status["raftIndex"]) > 0
        _, version = await caller.raw("/version", b"", "GET")
        assert version["etcdserver"] == "3.6.0"
        await caller.error("/v3/kv/put")
        async with caller.http.get("/metrics") as answer:
            text = await answer.text()
        assert 'dwcp_gateway_requests_total{code="400",path="/v3/kv/put"} 1.0' in text
        assert "dwcp_gateway_replicas_connected 4.0" in text
        for node in caller.loopback.nodes[:3]:
            await node.stop()
        await until(lambda: sum(caller.client.connected.values()) == 1, what="disconnected")
        code, found = await caller.raw("/health", b"", "GET")
        assert (code, found["health"]) == (503, "false")
        late = await caller.error("/v3/kv/put", key=b64("k"))
        assert late[:2] == (503, 14)
        assert late[2].startswith("etcdserver: request timed out")

    with_gateway(scenario)


def test_requests_of_many_users_share_envelopes_and_a_liar_is_outvoted() -> None:
    async def scenario(caller: Caller) -> None:
        caller.loopback.nodes[2].alter = altered(revision=999)
        await caller.ok("/v3/kv/put", key=b64("first"))
        before = len(caller.loopback.log)
        puts = (caller.ok("/v3/kv/put", key=b64(f"k{i}")) for i in range(100))
        done = await asyncio.gather(*puts)
        assert {int(found["header"]["revision"]) for found in done} == set(range(3, 103))
        assert len(caller.loopback.log) - before < 60
        await until(lambda: caller.client.liars, what="the liar is named")

    with_gateway(scenario)


def test_fast_reads() -> None:
    async def scenario(caller: Caller) -> None:
        await caller.ok("/v3/kv/put", key=b64("k"), value=b64("v"))
        before = len(caller.loopback.log)
        for _ in range(20):
            found = await caller.ok("/v3/kv/range", key=b64("k"))
            assert found["kvs"][0]["value"] == b64("v")
        assert caller.client.reads["fast"] >= 19
        assert len(caller.loopback.log) - before <= 1
        async with caller.http.get("/metrics") as answer:
            assert 'dwcp_gateway_reads{ended="fast"}' in await answer.text()

    with_gateway(scenario, fast_reads=True)


def test_whatever_is_sent_is_never_a_500() -> None:
    """Mutated bodies: an answer or a clear error; the gateway goes on."""
    print(f"replay: DWCP_FUZZ_SEED={SEED} DWCP_FUZZ_FRAMES={FRAMES} pytest {__name__}")
    draw = random.Random(SEED)
    bodies = [
        b'{"key":"Zm9v","value":"YmFy","lease":"0","prev_kv":true}',
        b'{"key":"AA==","range_end":"AA==","limit":"3","sort_order":"DESCEND","revision":1}',
        json.dumps(TXN).encode(),
    ]
    bits = [b'"', b"{", b"}", b"[", b"]", b"null", b"-1", b"1e400", b"9" * 30, b"\xff", b"\\ud800"]

    def mutated() -> bytes:
        body = bytearray(draw.choice(bodies))
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(body) + 1)
            match draw.randrange(4):
                case 0:
                    body[at:at] = draw.choice(bits)
                case 1:
                    del body[at : at + draw.randint(1, 8)]
                case 2:
                    body[at : at + 1] = bytes((draw.randrange(256),))
                case _:
                    body[at : at + draw.randint(1, 20)] = draw.choice(bits)
        return bytes(body)

    async def scenario(caller: Caller) -> None:
        seen = set()
        for _ in range(FRAMES):
            body = mutated()
            status, found = await caller.raw(draw.choice(sorted(PATHS.values())), body)
            assert status < 500 or found["code"] == 12, (body, status, found)
            seen.add(status)
        assert {200, 400} <= seen
        assert (await caller.raw("/health", b"", "GET"))[0] == 200

    with_gateway(scenario)


# --- what a real etcd server answered ------------------------------------------------------------


def load() -> list[Found]:
    if not CASES.exists():
        return []
    return [json.loads(line) for line in CASES.read_text().splitlines()]


def steps(case: Found) -> list[Found]:
    """All requests, with what is expected of each."""
    setup = [{"request": request, "expect": {}} for request in case["setup"]]
    return [*setup, {"request": case["request"], "expect": case["expect"]}, *case.get("after", [])]


def fits(case: Found) -> bool:
    """The paths that exist so far, without leases."""
    requests = [step["request"] for step in steps(case)]
    return all(r["op"] in PATHS and "lease" not in json.dumps(r) for r in requests)


CASES_HERE = [case for case in load() if fits(case)]


def to_json(item: Any) -> Any:
    """A request of the cases as etcd's JSON."""
    if isinstance(item, list):
        return [to_json(one) for one in item]
    if not isinstance(item, dict):
        return item
    fields = {name: value for name, value in item.items() if name != "op"}
    if "value_repeat" in fields:
        char, count = fields.pop("value_repeat")
        fields["value"] = char * count
    for name, value in fields.items():
        if name in ("key", "range_end", "value"):
            fields[name] = b64(value)
        elif name in ("sort_order", "sort_target", "target", "result"):
            fields[name] = TARGETS.get(value, value.upper())
        elif name == "compare":
            fields[name] = to_json(value)
        elif name in ("success", "failure"):
            fields[name] = [{f"request_{one['op']}": to_json(one)} for one in value]
    return fields


TARGETS = {"create_revision": "CREATE", "mod_revision": "MOD"}


def show(found: Found) -> Found:
    """The answer in the fields of the cases."""
    kvs = [show_kv(kv) for kv in found.get("kvs", [])]
    shown = {
        "kvs": kvs,
        "keys": [kv["key"] for kv in kvs],
        "more": found.get("more", False),
        "count": int(found.get("count", 0)),
        "deleted": int(found.get("deleted", 0)),
        "prev_kvs": [show_kv(kv) for kv in found.get("prev_kvs", [])],
        "prev_kv": show_kv(found["prev_kv"]) if "prev_kv" in found else None,
        "succeeded": found.get("succeeded", False),
    }
    if "header" in found:
        shown["header_revision"] = int(found["header"]["revision"])
    return shown


def show_kv(kv: Found) -> Found:
    numbers = {n: int(kv.get(n, 0)) for n in ("create_revision", "mod_revision", "version")}
    texts = {n: base64.b64decode(kv.get(n, "")).decode("latin-1") for n in ("key", "value")}
    return {**texts, **numbers}


async def answer(caller: Caller, step: Found) -> bool:
    """Ask one step and hold the answer against the expected; False for what is not there yet."""
    request, expect = step["request"], step["expect"]
    body = json.dumps(to_json(request)).encode()
    status, found = await caller.raw(PATHS[request["op"]], body)
    if found.get("code") == 12:
        return False
    if "grpc_code" in expect:
        assert found["code"] == CODES[expect["grpc_code"]], (request, found)
        assert "message" not in expect or found["message"] == expect["message"]
        return True
    assert status == 200, (request, found)
    shown = show(found)
    wanted = {name: value for name, value in expect.items() if name in shown}
    assert {name: shown[name] for name in wanted} == wanted, request
    return True


@pytest.mark.slow
@pytest.mark.skipif(not CASES_HERE, reason="../shared/conformance/etcd_semantics is absent")
def test_what_etcd_answers(capsys: pytest.CaptureFixture[str]) -> None:
    """Every case in a cluster of its own prefix would see others' revisions: so one store each."""
    ran = 0
    missing: list[str] = []

    async def one(case: Found) -> bool:
        async with gateway() as caller:
            for step in steps(case):
                if not await answer(caller, step):
                    return False
        return True

    for case in CASES_HERE:
        if asyncio.run(one(case)):
            ran += 1
        else:
            missing.append(case["id"])
    with capsys.disabled():
        print(f"\netcd semantics over the gateway: {ran} of {len(CASES_HERE)} cases run")
        print("".join(f"  not yet: {name}\n" for name in missing), end="")
    assert ran >= 100
    assert not missing
