"""etcd's Lock and Election services: whoever's key under a name is the oldest has it.

A key is `name/lease`, so that it goes with its holder's lease. One who waits watches the youngest
key that is older than its own, and looks again when that one is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from dwcp import errors
from dwcp.calls import prefix_end
from dwcp.gateway.desk import Desk
from dwcp.gateway.messages import key_value
from dwcp.gateway.proto import election_pb2 as election
from dwcp.gateway.proto import lock_pb2 as lock
from dwcp.wire.operations import (
    Compare,
    DeleteRangeRequest,
    KeyValue,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)

NOT_LEADER: Final = "election: not leader"
NO_LEADER: Final = "election: no leader"
SESSION_EXPIRED: Final = "mutex: session is expired"


async def acquire(desk: Desk, m: lock.LockRequest) -> lock.LockResponse:
    """Lock.Lock: waits until the lock is this lease's."""
    key, _, revision = await _take(desk, m.name, m.lease, b"")
    return lock.LockResponse(header=desk.header(revision), key=key)


async def release(desk: Desk, m: lock.UnlockRequest) -> lock.UnlockResponse:
    """Lock.Unlock."""
    header = (await desk.client.delete(m.key, timeout_ms=desk.timeout_ms)).header
    return lock.UnlockResponse(header=desk.header(header.revision))


async def campaign(desk: Desk, m: election.CampaignRequest) -> election.CampaignResponse:
    """Election.Campaign: waits until this lease's candidate is elected."""
    key, created, revision = await _take(desk, m.name, m.lease, m.value)
    leader = election.LeaderKey(name=m.name, key=key, rev=created, lease=m.lease)
    return election.CampaignResponse(header=desk.header(revision), leader=leader)


async def proclaim(desk: Desk, m: election.ProclaimRequest) -> election.ProclaimResponse:
    """Election.Proclaim: a new value of the one who is elected."""
    put = PutRequest(m.leader.key, m.value, m.leader.lease)
    revision = await _if_leader(desk, m.leader, put)
    return election.ProclaimResponse(header=desk.header(revision))


async def resign(desk: Desk, m: election.ResignRequest) -> election.ResignResponse:
    """Election.Resign; of one who is not elected nothing is left to give up."""
    gone = DeleteRangeRequest(m.leader.key)
    header, _ = await desk.ask(
        TxnRequest((_created(m.leader.key, m.leader.rev),), (gone,)), TxnResponse
    )
    return election.ResignResponse(header=desk.header(header.revision))


async def leader(desk: Desk, m: election.LeaderRequest) -> election.LeaderResponse:
    """Election.Leader: who is elected now."""
    revision, found = await _oldest(desk, m.name)
    if found is None:
        raise errors.Refused(errors.FAILED_PRECONDITION, NO_LEADER)
    return election.LeaderResponse(header=desk.header(revision), kv=key_value(found))


async def observe(
    desk: Desk, requests: AsyncIterator[election.LeaderRequest]
) -> AsyncGenerator[election.LeaderResponse, None]:
    """Election.Observe: whoever is elected, and what they proclaim, as it changes."""
    async for m in requests:
        prefix = m.name + b"/"
        revision, shown = await _oldest(desk, m.name)
        if shown is not None:
            yield election.LeaderResponse(header=desk.header(revision), kv=key_value(shown))
        async with desk.client.watch(
            prefix, prefix_end(prefix), start_revision=revision + 1
        ) as watch:
            async for _ in watch:
                revision, found = await _oldest(desk, m.name)
                if found is not None and found != shown:
                    shown = found
                    yield election.LeaderResponse(header=desk.header(revision), kv=key_value(found))
        return


async def _take(desk: Desk, name: bytes, lease: int, value: bytes) -> tuple[bytes, int, int]:
    """Wait until the lease's key is the oldest: key, its create revision, and a revision."""
    prefix = name + b"/"
    key = prefix + b"%x" % (lease % 2**64)
    asked = TxnRequest((_created(key, 0),), (PutRequest(key, value, lease),), (RangeRequest(key),))
    header, done = await desk.ask(asked, TxnResponse)
    created = header.revision
    if not done.succeeded:
        (found,) = done.responses
        assert isinstance(found, RangeResponse), "what was asked"
        created = found.kvs[0].create_revision
        if found.kvs[0].value != value:
            await desk.ask(TxnRequest((_created(key, created),), (PutRequest(key, value, lease),)),
                           TxnResponse)  # fmt: skip
    try:
        while True:
            revision, before = await _before(desk, prefix, created)
            if before is None:
                break
            await _gone(desk, before, revision)
    except asyncio.CancelledError:
        # whoever waited has left: its key must not hold the others up until its lease ends
        await desk.client.delete(key, timeout_ms=desk.timeout_ms)
        raise
    header, mine = await desk.ask(RangeRequest(key), RangeResponse)
    if not mine.kvs or mine.kvs[0].create_revision != created:
        raise errors.Refused(errors.FAILED_PRECONDITION, SESSION_EXPIRED)
    return key, created, header.revision


async def _before(desk: Desk, prefix: bytes, created: int) -> tuple[int, bytes | None]:
    """The youngest key that is older than this one."""
    asked = RangeRequest(
        prefix, prefix_end(prefix), limit=1, sort_order="DESCEND", sort_target="CREATE",
        max_create_revision=created - 1, keys_only=True,
    )  # fmt: skip
    header, found = await desk.ask(asked, RangeResponse)
    return header.revision, found.kvs[0].key if found.kvs else None


async def _gone(desk: Desk, key: bytes, revision: int) -> None:
    """Wait until a key that was there at a revision is deleted."""
    async with desk.client.watch(key, start_revision=revision + 1, filters=["NOPUT"]) as watch:
        async for _ in watch:
            return


async def _oldest(desk: Desk, name: bytes) -> tuple[int, KeyValue | None]:
    prefix = name + b"/"
    asked = RangeRequest(
        prefix, prefix_end(prefix), limit=1, sort_order="ASCEND", sort_target="CREATE"
    )
    header, found = await desk.ask(asked, RangeResponse)
    return header.revision, found.kvs[0] if found.kvs else None


async def _if_leader(desk: Desk, held: election.LeaderKey, put: PutRequest) -> int:
    header, done = await desk.ask(TxnRequest((_created(held.key, held.rev),), (put,)), TxnResponse)
    if not done.succeeded:
        raise errors.Refused(errors.FAILED_PRECONDITION, NOT_LEADER)
    return header.revision


def _created(key: bytes, revision: int) -> Compare:
    return Compare(key, "CREATE", create_revision=revision)
