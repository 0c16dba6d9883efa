"""gRPC: errors have etcd's codes and texts; mutated messages are never an internal error."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from client.gateway.running import Running, running
from dwcp.gateway.proto import auth_pb2, election_pb2, lock_pb2
from dwcp.gateway.proto import rpc_pb2 as pb
from dwcp.gateway.services import METHODS, UNARY
from replica.waiting import until

MESSAGES = int(os.environ.get("DWCP_FUZZ_FRAMES", "1000"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))
AT_ONCE = 50
FINE = {
    grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.RESOURCE_EXHAUSTED,
}  # fmt: skip

PUT = pb.PutRequest(key=b"k", value=b"v", prev_kv=True)
RANGE = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=3, sort_order=pb.RangeRequest.DESCEND)
TXN = pb.TxnRequest(
    compare=[pb.Compare(key=b"k", target=pb.Compare.VALUE, value=b"v")],
    success=[pb.RequestOp(request_put=PUT), pb.RequestOp(request_range=RANGE)],
    failure=[pb.RequestOp(request_txn=pb.TxnRequest(success=[pb.RequestOp(request_put=PUT)]))],
)
SEEDS: dict[str, Message] = {
    "KV.Range": RANGE,
    "KV.Put": PUT,
    "KV.DeleteRange": pb.DeleteRangeRequest(key=b"k", range_end=b"z", prev_kv=True),
    "KV.Txn": TXN,
    "KV.Compact": pb.CompactionRequest(revision=1),
    "Lease.LeaseGrant": pb.LeaseGrantRequest(TTL=60),
    "Lease.LeaseRevoke": pb.LeaseRevokeRequest(ID=5),
    "Lease.LeaseTimeToLive": pb.LeaseTimeToLiveRequest(ID=5, keys=True),
    "Maintenance.Alarm": pb.AlarmRequest(alarm=pb.NOSPACE),
    "Maintenance.HashKV": pb.HashKVRequest(revision=1),
    "Auth.UserGet": pb.AuthUserGetRequest(name="default"),
    "Auth.RoleGrantPermission": pb.AuthRoleGrantPermissionRequest(
        name="default", perm=auth_pb2.Permission(key=b"k", permType=auth_pb2.Permission.WRITE)
    ),
    "Lock.Unlock": lock_pb2.UnlockRequest(key=b"k/1"),
    "Lock.Lock": lock_pb2.LockRequest(name=b"k", lease=77),
    "Election.Leader": election_pb2.LeaderRequest(name=b"k"),
    "Election.Proclaim": election_pb2.ProclaimRequest(
        leader=election_pb2.LeaderKey(name=b"n", key=b"n/1", rev=3, lease=1), value=b"v"
    ),
    "Election.Resign": election_pb2.ResignRequest(
        leader=election_pb2.LeaderKey(name=b"n", key=b"n/1", rev=3, lease=1)
    ),
}
"""The others take empty messages; what would stand in the way of all (ACTIVATE) is not sent."""


async def call(channel: grpc.aio.Channel, name: str, data: bytes) -> tuple[grpc.StatusCode, str]:
    """A unary call with any bytes as the message."""
    try:
        await channel.unary_unary(METHODS[name].path)(data, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""


def test_errors_have_etcds_codes_and_texts() -> None:
    async def run(found: Running, channel: grpc.aio.Channel) -> None:
        async def fails(name: str, message: Message) -> tuple[int, str]:
            code, text = await call(channel, name, message.SerializeToString())
            return code.value[0], text

        await found.client.put("k", "v")
        assert await fails("KV.Put", pb.PutRequest()) == (3, "etcdserver: key is not provided")
        future = pb.RangeRequest(key=b"k", revision=99)
        assert (await fails("KV.Range", future))[0] == 11
        assert await fails("Lease.LeaseRevoke", pb.LeaseRevokeRequest(ID=5)) == (
            5, "etcdserver: requested lease not found",
        )  # fmt: skip
        login = pb.AuthenticateRequest(name="a", password="b")
        assert (await fails("Auth.Authenticate", login))[0] == 9
        assert (await fails("Auth.UserAdd", pb.AuthUserAddRequest(name="a")))[0] == 12
        open_enum = pb.RangeRequest(key=b"k", sort_order=77)  # type: ignore[arg-type]
        assert (await fails("KV.Range", open_enum))[0] == 3
        assert (await call(channel, "KV.Put", b"\xff\xff"))[0] is grpc.StatusCode.INVALID_ARGUMENT
        for node in found.loopback.nodes[:3]:
            await node.stop()
        await until(lambda: sum(found.client.connected.values()) == 1, what="disconnected")
        code, text = await fails("KV.Put", PUT)
        assert (code, text.split(":")[1]) == (14, " request timed out")
        samples = [m for family in found.metrics.requests.collect() for m in family.samples]
        codes = {m.labels["code"] for m in samples if m.labels["path"] == "/etcdserverpb.KV/Put"}
        assert codes == {"grpc-3", "grpc-14"}

    with_channel(run)


@pytest.mark.timeout(3600)
def test_mutated_messages_are_never_an_internal_error() -> None:
    print(f"replay: DWCP_FUZZ_SEED={SEED} DWCP_FUZZ_FRAMES={MESSAGES} pytest {__file__}")
    draw = random.Random(SEED)

    def mutated(name: str) -> bytes:
        seed = SEEDS.get(name)
        data = bytearray(b"" if seed is None else seed.SerializeToString())
        for _ in range(draw.randint(0, 3)):
            at = draw.randrange(len(data) + 1)
            match draw.randrange(4):
                case 0:
                    data[at:at] = draw.randbytes(draw.randint(1, 6))
                case 1:
                    del data[at : at + draw.randint(1, 8)]
                case 2:
                    data[at : at + 1] = bytes((draw.randrange(256),))
                case _:
                    data[at:at] = data[: draw.randint(0, len(data))]
        return bytes(data)

    async def run(found: Running, channel: grpc.aio.Channel) -> None:
        seen: Counter[grpc.StatusCode] = Counter()

        async def one(name: str, data: bytes) -> None:
            if waits(name, data):
                return
            code, text = await call(channel, name, data)
            assert code in FINE, (name, data.hex(), code, text)
            seen[code] += 1

        names = sorted(UNARY)
        for start in range(0, MESSAGES, AT_ONCE):
            count = min(AT_ONCE, MESSAGES - start)
            chosen = [draw.choice(names) for _ in range(count)]
            await asyncio.gather(*(one(name, mutated(name)) for name in chosen))
        print({code.name: n for code, n in seen.items()})
        assert {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT} <= seen.keys()
        assert (await call(channel, "KV.Range", RANGE.SerializeToString()))[1] == ""

    with_channel(run)


def waits(name: str, data: bytes) -> bool:
    """Locks wait for others, access that is taken away stays so, alarms stop every write."""
    if name in ("Lock.Lock", "Election.Campaign", "Auth.RoleRevokePermission"):
        return True
    return name == "Maintenance.Alarm" and data != SEEDS[name].SerializeToString()


def with_channel(scenario: Any) -> None:
    async def run() -> None:
        async with running() as found, grpc.aio.insecure_channel(found.address) as channel:
            await scenario(found, channel)

    asyncio.run(run())
