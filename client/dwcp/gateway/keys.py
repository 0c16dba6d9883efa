"""etcd's KV and Lease services."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from dwcp.gateway import messages
from dwcp.gateway.desk import Desk
from dwcp.gateway.proto import rpc_pb2 as pb
from dwcp.wire.operations import (
    CompactionRequest,
    CompactionResponse,
    DeleteRangeResponse,
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
    PutResponse,
    RangeResponse,
    TxnResponse,
)


async def get(desk: Desk, m: pb.RangeRequest) -> pb.RangeResponse:
    """KV.Range."""
    header, result = await desk.ask(messages.range_of(m), RangeResponse)
    return messages.range_response(result, desk.header(header.revision))


async def put(desk: Desk, m: pb.PutRequest) -> pb.PutResponse:
    """KV.Put."""
    header, result = await desk.ask(messages.put_of(m), PutResponse)
    return messages.put_response(result, desk.header(header.revision))


async def delete(desk: Desk, m: pb.DeleteRangeRequest) -> pb.DeleteRangeResponse:
    """KV.DeleteRange."""
    header, result = await desk.ask(messages.delete_of(m), DeleteRangeResponse)
    return messages.delete_response(result, desk.header(header.revision))


async def txn(desk: Desk, m: pb.TxnRequest) -> pb.TxnResponse:
    """KV.Txn."""
    header, result = await desk.ask(messages.txn_of(m), TxnResponse)
    return messages.txn_response(result, desk.header(header.revision))


async def compact(desk: Desk, m: pb.CompactionRequest) -> pb.CompactionResponse:
    """KV.Compact."""
    header, _ = await desk.ask(CompactionRequest(m.revision, m.physical), CompactionResponse)
    return pb.CompactionResponse(header=desk.header(header.revision))


async def grant(desk: Desk, m: pb.LeaseGrantRequest) -> pb.LeaseGrantResponse:
    """Lease.LeaseGrant."""
    header, result = await desk.ask(LeaseGrantRequest(m.TTL, m.ID), LeaseGrantResponse)
    return pb.LeaseGrantResponse(header=desk.header(header.revision), ID=result.id, TTL=result.ttl)


async def revoke(desk: Desk, m: pb.LeaseRevokeRequest) -> pb.LeaseRevokeResponse:
    """Lease.LeaseRevoke."""
    header, _ = await desk.ask(LeaseRevokeRequest(m.ID), LeaseRevokeResponse)
    return pb.LeaseRevokeResponse(header=desk.header(header.revision))


async def keep_alive(
    desk: Desk, requests: AsyncIterator[pb.LeaseKeepAliveRequest]
) -> AsyncGenerator[pb.LeaseKeepAliveResponse, None]:
    """Lease.LeaseKeepAlive: an answer for each request."""
    async for m in requests:
        header, result = await desk.ask(LeaseKeepAliveRequest(m.ID), LeaseKeepAliveResponse)
        yield pb.LeaseKeepAliveResponse(
            header=desk.header(header.revision), ID=result.id, TTL=result.ttl
        )


async def time_to_live(desk: Desk, m: pb.LeaseTimeToLiveRequest) -> pb.LeaseTimeToLiveResponse:
    """Lease.LeaseTimeToLive."""
    asked = LeaseTimeToLiveRequest(m.ID, m.keys)
    header, result = await desk.ask(asked, LeaseTimeToLiveResponse)
    return pb.LeaseTimeToLiveResponse(
        header=desk.header(header.revision), ID=result.id, TTL=result.ttl,
        grantedTTL=result.granted_ttl, keys=result.keys,
    )  # fmt: skip


async def leases(desk: Desk, _m: pb.LeaseLeasesRequest) -> pb.LeaseLeasesResponse:
    """Lease.LeaseLeases."""
    header, result = await desk.ask(LeaseLeasesRequest(), LeaseLeasesResponse)
    return pb.LeaseLeasesResponse(
        header=desk.header(header.revision),
        leases=[pb.LeaseStatus(ID=lease) for lease in result.leases],
    )
