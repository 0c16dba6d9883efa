"""etcd's Maintenance and Cluster services, as far as there is something to them here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Literal

from dwcp.gateway.desk import ETCD_VERSION, Desk, Unsupported, number_of
from dwcp.gateway.messages import named
from dwcp.gateway.proto import rpc_pb2 as pb
from dwcp.gateway.snapshot import snapshot_file
from dwcp.wire.operations import (
    AlarmRequest,
    AlarmResponse,
    DefragmentRequest,
    DefragmentResponse,
    HashKVRequest,
    HashKVResponse,
    StatusRequest,
    StatusResponse,
)

_ACTIONS: Final[tuple[Literal["GET", "ACTIVATE", "DEACTIVATE"], ...]] = (
    "GET", "ACTIVATE", "DEACTIVATE",
)  # fmt: skip
_ALARMS: Final[tuple[Literal["NONE", "NOSPACE", "CORRUPT"], ...]] = ("NONE", "NOSPACE", "CORRUPT")
BLOB_BYTES: Final = 1024 * 1024


async def status(desk: Desk, _m: pb.StatusRequest) -> pb.StatusResponse:
    """Maintenance.Status: the store's; the gateway calls itself the leader."""
    header, result = await desk.ask(StatusRequest(), StatusResponse)
    return pb.StatusResponse(
        header=desk.header(header.revision), version=ETCD_VERSION, dbSize=result.db_size,
        leader=desk.member_id, raftIndex=header.index, raftTerm=1, raftAppliedIndex=header.index,
        errors=[f"alarm:{alarm}" for alarm in result.alarms], dbSizeInUse=result.db_size,
        storageVersion=ETCD_VERSION, dbSizeQuota=result.quota_bytes,
    )  # fmt: skip


async def alarm(desk: Desk, m: pb.AlarmRequest) -> pb.AlarmResponse:
    """Maintenance.Alarm: of the store, so of no member in particular."""
    asked = AlarmRequest(named(_ACTIONS, m.action, "action"), named(_ALARMS, m.alarm, "alarm"))
    header, result = await desk.ask(asked, AlarmResponse)
    alarms = [pb.AlarmMember(memberID=desk.member_id, alarm=alarm) for alarm in result.alarms]
    return pb.AlarmResponse(header=desk.header(header.revision), alarms=alarms)


async def defragment(desk: Desk, _m: pb.DefragmentRequest) -> pb.DefragmentResponse:
    """Maintenance.Defragment: nothing is to be done."""
    header, _ = await desk.ask(DefragmentRequest(), DefragmentResponse)
    return pb.DefragmentResponse(header=desk.header(header.revision))


async def hash_all(desk: Desk, _m: pb.HashRequest) -> pb.HashResponse:
    """Maintenance.Hash: the first 32 bits of the hash of all that happened."""
    header, result = await desk.ask(HashKVRequest(), HashKVResponse)
    return pb.HashResponse(header=desk.header(header.revision), hash=_short(result.hash))


async def hash_kv(desk: Desk, m: pb.HashKVRequest) -> pb.HashKVResponse:
    """Maintenance.HashKV: the first 32 bits of the hash up to a revision."""
    header, result = await desk.ask(HashKVRequest(m.revision), HashKVResponse)
    return pb.HashKVResponse(
        header=desk.header(header.revision), hash=_short(result.hash),
        compact_revision=result.compact_revision, hash_revision=result.hash_revision,
    )  # fmt: skip


async def snapshot(
    desk: Desk, requests: AsyncIterator[pb.SnapshotRequest]
) -> AsyncGenerator[pb.SnapshotResponse, None]:
    """Maintenance.Snapshot: all keys of one revision, in a file that etcd can restore."""
    async for _ in requests:
        revision, file = await snapshot_file(desk)
        with file:
            left = file.seek(0, 2)
            file.seek(0)
            while blob := file.read(BLOB_BYTES):
                left -= len(blob)
                yield pb.SnapshotResponse(
                    header=desk.header(revision), remaining_bytes=left, blob=blob,
                    version=ETCD_VERSION,
                )  # fmt: skip
        return


async def no_leader(_desk: Desk, _m: pb.MoveLeaderRequest) -> pb.MoveLeaderResponse:
    """Maintenance.MoveLeader."""
    raise Unsupported("leaders are chosen by the replicas: a gateway can not move them")


async def no_downgrade(_desk: Desk, _m: pb.DowngradeRequest) -> pb.DowngradeResponse:
    """Maintenance.Downgrade."""
    raise Unsupported("there is no other version of the store to go back to")


async def members(desk: Desk, _m: pb.MemberListRequest) -> pb.MemberListResponse:
    """Cluster.MemberList: the replicas; their clients' address is the gateway's own.

    A replica answers signed envelopes only, so that what etcd's clients can reach is the gateway.
    """
    urls = [desk.address] if desk.address else []
    found = [
        pb.Member(
            ID=number_of(member.identity), name=member.name, peerURLs=[member.peer],
            clientURLs=urls,
        )
        for member in desk.client.genesis.members
    ]  # fmt: skip
    return pb.MemberListResponse(header=desk.header(desk.newest), members=found)


_ELSEWHERE: Final = "members change through the cluster's resource, by its operator"


async def no_add(_desk: Desk, _m: pb.MemberAddRequest) -> pb.MemberAddResponse:
    """Cluster.MemberAdd."""
    raise Unsupported(_ELSEWHERE)


async def no_remove(_desk: Desk, _m: pb.MemberRemoveRequest) -> pb.MemberRemoveResponse:
    """Cluster.MemberRemove."""
    raise Unsupported(_ELSEWHERE)


async def no_update(_desk: Desk, _m: pb.MemberUpdateRequest) -> pb.MemberUpdateResponse:
    """Cluster.MemberUpdate."""
    raise Unsupported(_ELSEWHERE)


async def no_promote(_desk: Desk, _m: pb.MemberPromoteRequest) -> pb.MemberPromoteResponse:
    """Cluster.MemberPromote."""
    raise Unsupported(_ELSEWHERE)


def _short(whole: bytes) -> int:
    return int.from_bytes(whole[:4], "big")
