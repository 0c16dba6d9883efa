"""Which function answers which of etcd's methods, and under which paths in JSON.

A method of one request and one answer is a coroutine; one that streams is an asynchronous
generator over its requests. Types of messages come from the descriptors.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dwcp.gateway import keys, locks, upkeep, users, watches
from dwcp.gateway.desk import Desk
from dwcp.gateway.proto import election_pb2, lock_pb2, rpc_pb2

Unary = Callable[[Desk, Any], Awaitable[Message]]
Stream = Callable[[Desk, AsyncIterator[Any]], AsyncGenerator[Message, None]]

FILES: Final[tuple[FileDescriptor, ...]] = (
    rpc_pb2.DESCRIPTOR, lock_pb2.DESCRIPTOR, election_pb2.DESCRIPTOR,
)  # fmt: skip
UNARY: Final[dict[str, tuple[Unary, str]]] = {
    "KV.Range": (keys.get, ""),
    "KV.Put": (keys.put, ""),
    "KV.DeleteRange": (keys.delete, ""),
    "KV.Txn": (keys.txn, ""),
    "KV.Compact": (keys.compact, ""),
    "Lease.LeaseGrant": (keys.grant, "lease/grant"),
    "Lease.LeaseRevoke": (keys.revoke, "lease/revoke kv/lease/revoke"),
    "Lease.LeaseTimeToLive": (keys.time_to_live, "lease/timetolive kv/lease/timetolive"),
    "Lease.LeaseLeases": (keys.leases, "lease/leases kv/lease/leases"),
    "Cluster.MemberList": (upkeep.members, "cluster/member/list"),
    "Cluster.MemberAdd": (upkeep.no_add, "cluster/member/add"),
    "Cluster.MemberRemove": (upkeep.no_remove, "cluster/member/remove"),
    "Cluster.MemberUpdate": (upkeep.no_update, "cluster/member/update"),
    "Cluster.MemberPromote": (upkeep.no_promote, "cluster/member/promote"),
    "Maintenance.Status": (upkeep.status, "maintenance/status"),
    "Maintenance.Alarm": (upkeep.alarm, "maintenance/alarm"),
    "Maintenance.Defragment": (upkeep.defragment, "maintenance/defragment"),
    "Maintenance.Hash": (upkeep.hash_all, "maintenance/hash"),
    "Maintenance.HashKV": (upkeep.hash_kv, "maintenance/hashkv"),
    "Maintenance.MoveLeader": (upkeep.no_leader, "maintenance/transfer-leadership"),
    "Maintenance.Downgrade": (upkeep.no_downgrade, "maintenance/downgrade"),
    "Auth.AuthEnable": (users.elsewhere, "auth/enable"),
    "Auth.AuthDisable": (users.elsewhere, "auth/disable"),
    "Auth.AuthStatus": (users.status, "auth/status"),
    "Auth.Authenticate": (users.authenticate, "auth/authenticate"),
    "Auth.UserAdd": (users.elsewhere, "auth/user/add"),
    "Auth.UserGet": (users.user, "auth/user/get"),
    "Auth.UserList": (users.users, "auth/user/list"),
    "Auth.UserDelete": (users.elsewhere, "auth/user/delete"),
    "Auth.UserChangePassword": (users.elsewhere, "auth/user/changepw"),
    "Auth.UserGrantRole": (users.elsewhere, "auth/user/grant"),
    "Auth.UserRevokeRole": (users.elsewhere, "auth/user/revoke"),
    "Auth.RoleAdd": (users.elsewhere, "auth/role/add"),
    "Auth.RoleGet": (users.role, "auth/role/get"),
    "Auth.RoleList": (users.roles, "auth/role/list"),
    "Auth.RoleDelete": (users.elsewhere, "auth/role/delete"),
    "Auth.RoleGrantPermission": (users.grant, "auth/role/grant"),
    "Auth.RoleRevokePermission": (users.revoke, "auth/role/revoke"),
    "Lock.Lock": (locks.acquire, "lock/lock"),
    "Lock.Unlock": (locks.release, "lock/unlock"),
    "Election.Campaign": (locks.campaign, "election/campaign"),
    "Election.Proclaim": (locks.proclaim, "election/proclaim"),
    "Election.Leader": (locks.leader, "election/leader"),
    "Election.Resign": (locks.resign, "election/resign"),
}
"""The function, and the paths under /v3/ (those of KV are served by server.py)."""
STREAMS: Final[dict[str, tuple[Stream, str]]] = {
    "Watch.Watch": (watches.watch, "watch"),
    "Lease.LeaseKeepAlive": (keys.keep_alive, "lease/keepalive"),
    "Maintenance.Snapshot": (upkeep.snapshot, "maintenance/snapshot"),
    "Election.Observe": (locks.observe, "election/observe"),
}
PATHS: Final = {
    f"/v3/{path}": name
    for name, (_, paths) in (*UNARY.items(), *STREAMS.items())
    for path in paths.split()
}
"""The method behind each path."""


@dataclass(frozen=True, slots=True)
class Method:
    """One of etcd's methods, `name` as Service.Method."""

    name: str
    path: str
    request: type[Message]
    response: type[Message]
    client_streams: bool
    server_streams: bool


def methods() -> Iterator[Method]:
    """All methods, as the descriptors list them."""
    for file in FILES:
        for service in file.services_by_name.values():
            for method in service.methods:
                yield _method(service.full_name, service.name, method)


def _method(service_path: str, service: str, found: MethodDescriptor) -> Method:
    return Method(
        f"{service}.{found.name}", f"/{service_path}/{found.name}",
        GetMessageClass(found.input_type), GetMessageClass(found.output_type),
        found.client_streaming, found.server_streaming,
    )  # fmt: skip


METHODS: Final = {method.name: method for method in methods()}
assert METHODS.keys() == UNARY.keys() | STREAMS.keys(), "each method has its function"
