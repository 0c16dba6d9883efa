"""etcd's streams over gRPC and JSON: watches, progress, keep-alives; and the generated messages."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from client.gateway.running import Running, running
from dwcp.gateway import watches
from dwcp.gateway.proto import rpc_pb2 as pb
from replica.waiting import until

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 10
Scenario = Callable[["Stream", Running], Awaitable[None]]


class Stream:
    """A Watch stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )()

    async def ask(self, **fields: Any) -> None:
        await self._call.write(pb.WatchRequest(**fields))

    async def create(self, key: bytes, **fields: Any) -> pb.WatchResponse:
        await self.ask(create_request=pb.WatchCreateRequest(key=key, **fields))
        return await self.next()

    async def next(self) -> pb.WatchResponse:
        async with asyncio.timeout(WAIT_S):
            found = await self._call.read()
        assert isinstance(found, pb.WatchResponse), found
        return found


def with_stream(scenario: Scenario) -> None:
    async def run() -> None:
        async with running() as found, grpc.aio.insecure_channel(found.address) as channel:
            await scenario(Stream(channel), found)

    asyncio.run(run())


def test_several_watches_on_one_stream_in_order() -> None:
    async def scenario(stream: Stream, found: Running) -> None:
        first = await stream.create(b"a/", range_end=b"a0", prev_kv=True)
        assert (first.watch_id, first.created, first.header.revision) == (0, True, 1)
        second = await stream.create(b"b", watch_id=7, filters=[pb.WatchCreateRequest.NOPUT])
        assert second.watch_id == 7
        again = await stream.create(b"c", watch_id=7)
        assert (again.watch_id, again.canceled, again.cancel_reason) == (
            -1,
            True,
            watches.DUPLICATE_ID,
        )
        empty = await stream.create(b"z", range_end=b"a")
        assert (empty.canceled, empty.cancel_reason) == (True, watches.EMPTY_RANGE)
        await found.client.put("a/1", "one")
        await found.client.put("b", "not seen")
        await found.client.put("a/1", "two")
        one, two = await stream.next(), await stream.next()
        assert [e.kv.value for e in (*one.events, *two.events)] == [b"one", b"two"]
        assert (two.events[0].prev_kv.value, two.header.revision) == (b"one", 4)
        await found.client.delete("b")
        gone = await stream.next()
        assert (gone.watch_id, gone.events[0].type, gone.header.revision) == (7, 1, 5)
        await stream.ask(cancel_request=pb.WatchCancelRequest(watch_id=7))
        ended = await stream.next()
        assert (ended.watch_id, ended.canceled) == (7, True)
        past = await stream.create(b"a/", range_end=b"a0", start_revision=2, fragment=True)
        assert [(await stream.next()).header.revision for _ in range(2)] == [2, 4]
        await found.client.compact(4)
        old = await stream.create(b"a/", start_revision=2)
        assert old.created
        over = await stream.next()
        assert (over.watch_id, over.canceled, over.compact_revision) == (old.watch_id, True, 4)
        assert past.watch_id == 1

    with_stream(scenario)


def test_progress_says_how_far_all_watches_are_and_takes_no_time() -> None:
    async def scenario(stream: Stream, found: Running) -> None:
        await stream.create(b"quiet/", range_end=b"quiet0")
        await stream.create(b"busy")
        for _ in range(3):
            revision = (await found.client.put("elsewhere", "x")).revision
            async with asyncio.timeout(2):
                reached = 0
                while reached < revision:  # members may lag behind the answer to the put
                    await stream.ask(progress_request=pb.WatchProgressRequest())
                    told = await stream.next()
                    assert (told.watch_id, len(told.events)) == (-1, 0)
                    reached = told.header.revision
            assert reached == revision
        await found.client.put("busy", "x")
        await stream.ask(progress_request=pb.WatchProgressRequest())
        first, second = await stream.next(), await stream.next()
        if first.watch_id == -1:  # asked before it was seen: then it is not above what was said
            first, second = second, first
            assert second.header.revision < first.header.revision
        assert first.events[0].kv.key == b"busy"

    with_stream(scenario)


def test_a_large_revision_comes_in_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "FRAGMENT_BYTES", 2000)

    async def scenario(stream: Stream, found: Running) -> None:
        await stream.create(b"k", range_end=b"l", fragment=True)
        channel = grpc.aio.insecure_channel(found.address)
        txn = channel.unary_unary("/etcdserverpb.KV/Txn", pb.TxnRequest.SerializeToString)
        puts = [pb.PutRequest(key=b"k%02d" % n, value=b"v" * 300) for n in range(20)]
        await txn(pb.TxnRequest(success=[pb.RequestOp(request_put=put) for put in puts]))
        await channel.close()
        keys: list[bytes] = []
        parts = 0
        more = True
        while more:
            part = await stream.next()
            assert part.ByteSize() < 2500
            keys += [event.kv.key for event in part.events]
            more, parts = part.fragment, parts + 1
        assert keys == [b"k%02d" % n for n in range(20)]
        assert parts >= 3

    with_stream(scenario)


def test_streams_in_json() -> None:
    async def run() -> None:
        async with running() as found, aiohttp.ClientSession(found.url) as http:
            key = base64.b64encode(b"k").decode()
            create = json.dumps({"create_request": {"key": key, "startRevision": "2"}})
            async with asyncio.timeout(WAIT_S), http.post("/v3/watch", data=create) as watching:
                first = json.loads(await watching.content.readline())
                assert first["result"]["created"] is True
                await found.client.put("k", "v")
                event = json.loads(await watching.content.readline())["result"]["events"][0]
                assert event["kv"]["key"] == key
                assert "type" not in event, "PUT is the default"
            async with http.post("/v3/lease/grant", data='{"TTL": 60}') as answer:
                lease = (await answer.json())["ID"]
            twice = json.dumps({"ID": lease}) * 2
            async with http.post("/v3/lease/keepalive", data=twice) as answer:
                kept = [json.loads(line) for line in (await answer.text()).splitlines()]
            assert [one["result"]["TTL"] for one in kept] == ["60", "60"]
            async with http.post(
                "/v3/lock/lock", data=json.dumps({"name": key, "lease": lease})
            ) as answer:
                held = await answer.json()
            assert base64.b64decode(held["key"]) == b"k/%x" % int(lease)
            async with http.post(
                "/v3/election/leader", data=json.dumps({"name": "eA=="})
            ) as answer:
                assert (answer.status, (await answer.json())["message"]) == (
                    400,
                    "election: no leader",
                )
            async with http.post("/v3/cluster/member/add", data="{}") as answer:
                assert (answer.status, (await answer.json())["code"]) == (501, 12)
            async with http.post("/v3/watch", data='{"create_request": 5}') as answer:
                assert (answer.status, (await answer.json())["code"]) == (400, 3)
            core = found.client._watches.core
            await until(lambda: not core._watches, what="the watch ends with its caller")

    asyncio.run(run())


def test_messages_are_as_generated(tmp_path: Path) -> None:
    """`make generate` writes what is committed."""
    folder = ROOT / "client" / "dwcp" / "gateway" / "proto"
    protos = sorted(str(path.relative_to(ROOT / "client")) for path in folder.glob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}",
         f"--pyi_out={tmp_path}", *protos],
        cwd=ROOT / "client", check=True,
    )  # fmt: skip
    for made in (tmp_path / "dwcp/gateway/proto").iterdir():
        assert made.read_text() == (folder / made.name).read_text(), made.name
