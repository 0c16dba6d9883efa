"""The client over real WebSockets: true answers, named liars, clear errors."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

import dwcp
from client.loopback import Loopback, altered
from client.members import Members, results, signer
from dwcp import errors
from dwcp.calls import prefix_end
from dwcp.client import Client
from dwcp.sync import SyncClient
from dwcp.waiting import Limits
from dwcp.wire.operations import (
    Failure,
    KeyValue,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
)
from replica.waiting import until


def cluster(scenario: Callable[[Loopback, Client], Awaitable[None]]) -> None:
    """Run a scenario with four members and a connected client."""

    async def run() -> None:
        loopback = Loopback(time.time_ns() // 1_000_000)
        async with loopback, client_of(loopback) as client:
            await scenario(loopback, client)

    asyncio.run(run())


def client_of(loopback: Loopback) -> Client:
    return Client.connect(
        loopback.members.genesis, loopback.members.client, limits=Limits(retry_ms=200)
    )


def test_put_get_range_delete() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        put = await client.put("colour", "blue")
        assert (put.revision, put.prev_kv) == (2, None)
        assert put.header.cluster_id == loopback.members.genesis.cluster_id
        again = await client.put(b"colour", b"red", prev_kv=True)
        assert again.prev_kv == KeyValue(b"colour", 2, 2, 1, b"blue")
        assert await client.get("colour") == KeyValue(b"colour", 2, 3, 2, b"red")
        assert await client.get("nothing") is None
        for i in range(5):
            await client.put(f"list/{i}", str(i))
        found = await client.range("list/", prefix_end("list/"), limit=2)
        assert [kv.key for kv in found.kvs] == [b"list/0", b"list/1"]
        assert (found.more, found.count, found.revision) == (True, 5, 8)
        everything = await client.range(b"\0", b"\0", keys_only=True)
        assert [kv.key for kv in everything.kvs][:2] == [b"colour", b"list/0"]
        gone = await client.delete("list/", prefix_end("list/"), prev_kv=True)
        assert (gone.deleted, len(gone.prev_kvs), gone.revision) == (5, 5, 9)
        assert (await client.range("colour", revision=2)).kvs[0].value == b"blue"
        assert not client.liars
        assert not client.refused

    cluster(scenario)


def test_refused_operations_raise_and_executed_ones_return_failures() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        with pytest.raises(errors.Refused) as refused:
            await client.put("", "no key")
        assert refused.value.code == 3
        done = await client.execute(PutRequest(b""), PutRequest(b"k", b"v"), RangeRequest(b"k"))
        failure, put, read = done.results
        assert isinstance(read, RangeResponse)
        assert isinstance(failure, Failure)
        assert isinstance(put, PutResponse)
        assert done.revision == 2
        with pytest.raises(errors.Refused, match="do not fit"):
            await client.put("k", bytes(2_000_000))

    cluster(scenario)


def test_many_tasks_share_one_client_and_few_envelopes() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("first", "1")
        before = len(loopback.log)
        done = await asyncio.gather(*(client.put(f"k{i}", str(i)) for i in range(500)))
        assert sorted(d.revision for d in done) == list(range(3, 503)), "each has its own"
        assert loopback.operations() == 502, "one opened the session"
        assert len(loopback.log) - before < 50
        values = await asyncio.gather(*(client.get(f"k{i}") for i in range(500)))
        assert [v and v.value for v in values] == [str(i).encode() for i in range(500)]

    cluster(scenario)


@pytest.mark.parametrize(
    "lie",
    [altered(results=results(PutResponse(KeyValue(b"x", 1, 1, 1)))), altered(revision=77)],
    ids=["results", "revision"],
)
def test_a_liar_changes_nothing_and_is_named(
    lie: Callable[..., object], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a", "1")
        loopback.nodes[0].alter = lie  # type: ignore[assignment]
        for i in range(3):
            assert (await client.put("a", str(i))).prev_kv is None
        kv = await client.get("a")
        assert kv is not None
        assert (kv.value, kv.version) == (b"2", 4)
        await until(lambda: client.liars, what="the liar is named")
        assert list(client.liars) == ["test-0"]
        assert "signed" in client.liars["test-0"]

    with caplog.at_level(logging.WARNING, "dwcp"):
        cluster(scenario)
    assert "replica test-0 lied" in caplog.text


def test_a_deaf_primary_costs_one_time_out() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a", "1")
        loopback.nodes[0].deaf = True
        started = time.monotonic()
        await client.put("a", "2")
        assert 0.15 < time.monotonic() - started < 5

    cluster(scenario)


def test_a_stopped_member_is_reached_again() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a", "1")
        await loopback.nodes[0].stop()
        await until(lambda: not client.connected["test-0"], what="the connection is lost")
        await client.put("a", "2")
        await loopback.nodes[0].start()
        await until(lambda: client.connected["test-0"], what="it is connected again")
        await client.put("a", "3")
        assert (await client.get("a")).version == 3  # type: ignore[union-attr]

    cluster(scenario)


def test_too_few_replicas_end_in_an_error_that_names_them() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a", "1")
        for node in loopback.nodes[:3]:
            await node.stop()
        await until(lambda: sum(client.connected.values()) == 1, what="three are gone")
        with pytest.raises(errors.NotEnoughReplies) as late:
            await client.put("a", "2", timeout_ms=500)
        text = str(late.value)
        assert "no answer within 0.5 s; 1 of the 2 matching replies needed" in text
        assert "answered: test-3" in text
        assert "not connected: test-0 (" in text
        assert "read before you repeat it" in text

    cluster(scenario)


def test_nothing_was_sent_when_nobody_could_be_reached() -> None:
    async def run() -> None:
        members = Members(urls=["http://127.0.0.1:1"] * 4)
        async with Client.connect(members.signed_genesis(), members.client) as client:
            with pytest.raises(errors.TimedOut, match=r"Nothing was sent.*dwcp status"):
                await client.put("a", "1", timeout_ms=100)

    asyncio.run(run())


def test_a_cancelled_caller_takes_back_what_was_not_sent() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a", "1")
        for node in loopback.nodes:
            node.deaf = True
        sent = []
        for i in range(client._core.limits.in_flight_max):
            sent.append(asyncio.create_task(client.put(f"sent-{i}", "")))
            await until(lambda n=i: len(client._core._in_flight) == n + 1, what="it is sent")
        waiting = asyncio.create_task(client.put("waiting", ""))
        await until(lambda: client._core._waiting, what="it waits")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for node in loopback.nodes:
            node.deaf = False
        await asyncio.gather(*sent)
        assert await client.get("waiting") is None
        assert (await client.range("sent-", prefix_end("sent-"))).count == len(sent)

    cluster(scenario)


def test_a_failed_background_task_reaches_every_caller() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.put("a", "1")
        for node in loopback.nodes:
            node.deaf = True
        waiting = asyncio.create_task(client.put("a", "2"))
        await asyncio.sleep(0)

        def fail(now_ms: int) -> None:
            raise AssertionError("planted")

        client._core.tick = fail  # type: ignore[method-assign]
        with pytest.raises(errors.ClientFailed, match="planted") as failed:
            await waiting
        assert isinstance(failed.value.__cause__, AssertionError)
        with pytest.raises(errors.ClientFailed, match="planted"):
            await client.get("a")

    cluster(scenario)


def test_a_closed_client_says_so() -> None:
    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            client = client_of(loopback)
            with pytest.raises(errors.ClientClosed, match="async with"):
                await client.get("a")
            async with client:
                await client.put("a", "1")
                for node in loopback.nodes:
                    node.deaf = True
                waiting = asyncio.create_task(client.put("a", "2"))
                await asyncio.sleep(0)
            with pytest.raises(errors.ClientClosed, match="under way"):
                await waiting
            with pytest.raises(errors.ClientClosed):
                await client.get("a")
            with pytest.raises(errors.ClientClosed, match="once"):
                await client.__aenter__()

    asyncio.run(run())


def test_close_closes_the_session() -> None:
    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            async with client_of(loopback) as client:
                await client.put("a", "1")
            await until(lambda: loopback.operations() == 3, what="open, put, close")

    asyncio.run(run())


def test_the_blocking_client_is_the_same() -> None:
    async def serve(started: asyncio.Event, stop: asyncio.Event, made: list[Loopback]) -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            made.append(loopback)
            started.set()
            await stop.wait()

    def use(loopback: Loopback) -> None:
        client = SyncClient.connect(loopback.members.genesis, loopback.members.client)
        with pytest.raises(errors.ClientClosed):
            client.get("a")
        with client:
            assert client.put("a", "1").revision == 2
            assert client.get("a") == KeyValue(b"a", 2, 2, 1, b"1")
            assert client.range("a").count == 1
            assert client.execute(PutRequest(b"b")).revision == 3
            assert client.delete("a").deleted == 1
            assert client.liars == {}
            assert set(client.connected) == {"test-0", "test-1", "test-2", "test-3"}
        with pytest.raises(errors.ClientClosed):
            client.get("a")
        with pytest.raises(errors.ClientClosed, match="once"), client:
            pass
        assert "dwcp" not in {thread.name for thread in threading.enumerate()}

    async def run() -> None:
        started, stop = asyncio.Event(), asyncio.Event()
        made: list[Loopback] = []
        server = asyncio.create_task(serve(started, stop, made))
        await started.wait()
        await asyncio.to_thread(use, made[0])
        stop.set()
        await server

    asyncio.run(run())


# --- who may be a client --------------------------------------------------------------------


def directory(tmp_path: Path, members: Members) -> Path:
    (tmp_path / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(members.signed_genesis()))
    members.client.save(tmp_path / "client.key")
    return tmp_path


def test_a_directory_makes_a_client(tmp_path: Path) -> None:
    client = Client.from_directory(directory(tmp_path, Members()))
    assert client.connected == dict.fromkeys(["test-0", "test-1", "test-2", "test-3"], False)


def test_a_directory_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(errors.BadCluster, match=r"dwcp up --data"):
        Client.from_directory(tmp_path / "nothing")
    made = directory(tmp_path, Members())
    (made / "genesis.msgpack").write_bytes(b"rubbish")
    with pytest.raises(errors.BadCluster, match="can not be read"):
        Client.from_directory(made)
    directory_2 = tmp_path / "two"
    directory_2.mkdir()
    made = directory(directory_2, Members())
    (made / "client.key").write_text("rubbish")
    with pytest.raises(errors.BadCluster, match="64 hex digits"):
        Client.from_directory(made)


def test_a_forged_or_unfinished_genesis_is_refused() -> None:
    members = Members()
    signed = members.signed_genesis()
    forged = msgspec.structs.replace(signed, admin_sig=bytes(64))
    with pytest.raises(errors.BadCluster, match="admin"):
        Client.connect(forged, members.client)
    waiting = msgspec.structs.replace(signed, member_sigs=(b"", *signed.member_sigs[1:]))
    with pytest.raises(errors.BadCluster, match="not every member"):
        Client.connect(waiting, members.client)


def test_a_strangers_key_is_refused() -> None:
    with pytest.raises(errors.BadCluster, match="no client of cluster test"):
        Client.connect(Members().genesis, signer("stranger"))


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("a", b"b"), (b"a\xff", b"b"), ("", b"\0"), (b"\xff\xff", b"\0"), ("list/", b"list0")],
)
def test_prefix_end(prefix: str | bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


def test_public_names_are_those_listed() -> None:
    source = Path(str(dwcp.__file__)).read_text(encoding="utf-8")
    assert dwcp.__all__ == sorted(dwcp.__all__)
    for name in dwcp.__all__:
        assert getattr(dwcp, name).__name__ == name
        assert source.count(name) >= 2, f"{name} is not imported for type checkers"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = dwcp.Nothing  # type: ignore[attr-defined]
