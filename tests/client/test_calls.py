"""Transactions, leases, compaction: through a client, verified like everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from client.loopback import Loopback
from dwcp import errors
from dwcp.client import Client
from dwcp.sync import SyncClient
from dwcp.wire.operations import (
    Access,
    Compare,
    DeleteRangeRequest,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from replica.waiting import until


def cluster(scenario: Callable[[Loopback, Client], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            members = loopback.members
            async with Client.connect(members.genesis, members.client) as client:
                await scenario(loopback, client)

    asyncio.run(run())


def test_a_transaction_is_one_revision_and_its_header_says_which() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        absent = Compare(b"lock", "CREATE", "EQUAL", create_revision=0)
        take = (PutRequest(b"lock", b"me"), TxnRequest(success=(PutRequest(b"count", b"1"),)))
        first, second, put = await asyncio.gather(
            client.txn([absent], take, [RangeRequest(b"lock")]),
            client.txn([absent], take, [RangeRequest(b"lock")]),
            client.put("other", "x"),
        )
        assert (first.succeeded, first.revision) == (True, 2)
        assert first.responses == (
            PutResponse(),
            TxnResponse(succeeded=True, responses=(PutResponse(),)),
        )
        assert (second.succeeded, second.revision) == (False, 2)
        (found,) = second.responses
        assert isinstance(found, RangeResponse)
        assert [kv.value for kv in found.kvs] == [b"me"]
        assert put.revision == 3
        gone = await client.txn(success=[DeleteRangeRequest(b"a", b"z")])
        assert gone.revision == 4
        with pytest.raises(errors.Refused, match="duplicate key") as refused:
            await client.txn(success=[PutRequest(b"a"), PutRequest(b"a")])
        assert refused.value.code == 3

    cluster(scenario)


def test_failures_with_a_sessions_codes_leave_the_session_alone() -> None:
    """NotFound and FailedPrecondition are answers like any other when an operation gives them."""

    async def scenario(loopback: Loopback, client: Client) -> None:
        await client.lease_grant(60, 7)
        before = loopback.operations()
        for code, call in (
            (5, client.lease_revoke(8)),
            (9, client.lease_grant(60, 7)),
            (5, client.put("k", "v", lease=8)),
        ):
            with pytest.raises(errors.Refused) as refused:
                await call
            assert refused.value.code == code
        assert loopback.operations() == before + 3, "no new session was opened"

    cluster(scenario)


def test_compaction_forgets_the_past() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        for i in range(3):
            await client.put("k", str(i))
        assert (await client.compact(3)).revision == 4
        with pytest.raises(errors.Refused, match="has been compacted") as refused:
            await client.range("k", revision=2)
        assert refused.value.code == 11
        assert (await client.range("k", revision=3)).kvs[0].value == b"1"
        status = (await client.store_status()).status
        assert (status.compact_revision, status.alarms) == (3, ())

    cluster(scenario)


def test_a_lease_lives_as_long_as_its_block() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        async with client.lease(3) as lease:
            await client.put("here", "me", lease=lease.id)
            standing = await client.lease_time_to_live(lease.id, keys=True)
            assert (standing.granted_ttl_s, standing.keys) == (3, (b"here",))
            assert (await client.leases()).ids == (lease.id,)
            loopback.wall_ms += 2000
            renewed = loopback.operations()
            await until(lambda: loopback.operations() > renewed, what="the lease is renewed")
            loopback.wall_ms += 2000
            assert await client.get("here") is not None
        assert await client.get("here") is None
        assert (await client.lease_time_to_live(lease.id)).ttl_s == -1
        assert (await client.lease_keep_alive(lease.id)).ttl_s == 0

    cluster(scenario)


def test_a_lease_that_ended_is_said_to_be_lost() -> None:
    async def scenario(loopback: Loopback, client: Client) -> None:
        async with client.lease(2) as lease:
            await client.put("here", "me", lease=lease.id)
            await client.lease_revoke(lease.id)
            async with asyncio.timeout(10):
                await lease.lost.wait()

    cluster(scenario)


def test_the_sync_client_has_the_same_calls() -> None:
    async def run() -> None:
        async with Loopback(time.time_ns() // 1_000_000) as loopback:
            await asyncio.to_thread(_use, loopback)

    asyncio.run(run())


def _use(loopback: Loopback) -> None:
    with SyncClient.connect(loopback.members.genesis, loopback.members.client) as client:
        with client.lease(10) as lease:
            client.put("a", "1", lease=lease.id)
            assert client.lease_time_to_live(lease.id, keys=True).keys == (b"a",)
            assert client.leases().ids == (lease.id,)
        assert client.get("a") is None
        granted = client.lease_grant(60, 5)
        assert client.lease_keep_alive(granted.id).ttl_s == 60
        client.lease_revoke(5)
        assert client.txn(success=[PutRequest(b"b", b"2")]).succeeded
        client.compact(client.store_status().header.revision)
        with client.watch("c") as watch:
            client.put("c", "3")
            assert [event.kv.value for event in next(watch).events] == [b"3"]
        key = loopback.members.client.public_key
        client.set_access(key, Access(admin=True))
        assert client.access(key) == Access(admin=True)
        with pytest.raises(errors.Refused, match="permission denied"):
            client.get("c")
