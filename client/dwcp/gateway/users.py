"""etcd's Auth service, as far as the cluster's own identities map to it.

A user is a client of the cluster; it has one role, of its own name, with what it may do (and
`root` beside it if it is an administrator). Clients prove themselves with keys, not passwords:
users can not be made, nor log in, here. Granting and revoking permissions goes through the log.
"""

from __future__ import annotations

from typing import Final

from dwcp import errors
from dwcp.gateway.desk import Desk, Unsupported
from dwcp.gateway.messages import named
from dwcp.gateway.proto import rpc_pb2 as pb
from dwcp.gateway.proto.auth_pb2 import Permission
from dwcp.results import Header
from dwcp.wire.operations import (
    Access,
    AccessGetRequest,
    AccessGetResponse,
    AccessSetRequest,
    AccessSetResponse,
    Grant,
)

ROOT: Final = "root"
NO_USER: Final = "etcdserver: user name not found"
NO_ROLE: Final = "etcdserver: role name not found"
NOT_ENABLED: Final = "etcdserver: authentication is not enabled"
NOT_GRANTED: Final = "etcdserver: permission is not granted to the role"
_EVERYTHING: Final = Permission(permType=Permission.READWRITE, key=b"\0", range_end=b"\0")
_READS: Final = (True, False, True)
_WRITES: Final = (False, True, True)


async def status(desk: Desk, _m: pb.AuthStatusRequest) -> pb.AuthStatusResponse:
    """Auth.AuthStatus: there are no passwords, so it is not enabled."""
    return pb.AuthStatusResponse(header=desk.header(desk.newest), authRevision=1)


async def authenticate(_desk: Desk, _m: pb.AuthenticateRequest) -> pb.AuthenticateResponse:
    """Auth.Authenticate."""
    raise errors.Refused(errors.FAILED_PRECONDITION, NOT_ENABLED)


async def users(desk: Desk, _m: pb.AuthUserListRequest) -> pb.AuthUserListResponse:
    """Auth.UserList: the clients."""
    names = [client.name for client in desk.client.genesis.clients]
    return pb.AuthUserListResponse(header=desk.header(desk.newest), users=names)


async def roles(desk: Desk, _m: pb.AuthRoleListRequest) -> pb.AuthRoleListResponse:
    """Auth.RoleList: the clients' own, and root."""
    names = [client.name for client in desk.client.genesis.clients]
    return pb.AuthRoleListResponse(header=desk.header(desk.newest), roles=[*names, ROOT])


async def user(desk: Desk, m: pb.AuthUserGetRequest) -> pb.AuthUserGetResponse:
    """Auth.UserGet: its own role, and root if it is an administrator."""
    header, access = await _access(desk, _key(desk, m.name, NO_USER))
    root = [ROOT] if access is None or access.admin else []
    return pb.AuthUserGetResponse(header=desk.header(header.revision), roles=[m.name, *root])


async def role(desk: Desk, m: pb.AuthRoleGetRequest) -> pb.AuthRoleGetResponse:
    """Auth.RoleGet: the intervals of keys that a client may read or write."""
    if m.role == ROOT:
        return pb.AuthRoleGetResponse(header=desk.header(desk.newest), perm=[_EVERYTHING])
    header, access = await _access(desk, _key(desk, m.role, NO_ROLE))
    shown = [_EVERYTHING] if access is None else [_permission(one) for one in access.grants]
    return pb.AuthRoleGetResponse(header=desk.header(header.revision), perm=shown)


async def grant(
    desk: Desk, m: pb.AuthRoleGrantPermissionRequest
) -> pb.AuthRoleGrantPermissionResponse:
    """Auth.RoleGrantPermission: in place of what was granted for the same interval."""
    kind = m.perm.permType
    made = Grant(
        m.perm.key, m.perm.range_end, named(_READS, kind, "permType"),
        named(_WRITES, kind, "permType"),
    )  # fmt: skip
    key = _key(desk, m.name, NO_ROLE)
    _, access = await _access(desk, key)
    if access is None:
        raise errors.Refused(errors.FAILED_PRECONDITION, f"{m.name} may do everything already")
    kept = (one for one in access.grants if not _same(one, made.key, made.range_end))
    header = await _change(desk, key, Access(access.admin, (*kept, made)))
    return pb.AuthRoleGrantPermissionResponse(header=desk.header(header.revision))


async def revoke(
    desk: Desk, m: pb.AuthRoleRevokePermissionRequest
) -> pb.AuthRoleRevokePermissionResponse:
    """Auth.RoleRevokePermission: of exactly this interval."""
    key = _key(desk, m.role, NO_ROLE)
    _, access = await _access(desk, key)
    grants = () if access is None else access.grants
    kept = tuple(one for one in grants if not _same(one, m.key, m.range_end))
    if access is None or len(kept) == len(grants):
        raise errors.Refused(errors.FAILED_PRECONDITION, NOT_GRANTED)
    header = await _change(desk, key, Access(access.admin, kept))
    return pb.AuthRoleRevokePermissionResponse(header=desk.header(header.revision))


async def elsewhere(_desk: Desk, _m: object) -> pb.AuthEnableResponse:
    """All of Auth that makes or changes users and roles."""
    raise Unsupported("clients are keys: the cluster's resource declares them, not this API")


def _key(desk: Desk, name: str, missing: str) -> bytes:
    clients = desk.client.genesis.clients
    found = next((client.key for client in clients if client.name == name), None)
    if found is None:
        raise errors.Refused(errors.FAILED_PRECONDITION, missing)
    return found


async def _access(desk: Desk, key: bytes) -> tuple[Header, Access | None]:
    header, found = await desk.ask(AccessGetRequest(key), AccessGetResponse)
    return header, found.access


async def _change(desk: Desk, key: bytes, access: Access) -> Header:
    header, _ = await desk.ask(AccessSetRequest(key, access), AccessSetResponse)
    return header


def _permission(one: Grant) -> Permission:
    kind = Permission.READ if one.read else Permission.WRITE
    if one.read and one.write:
        kind = Permission.READWRITE
    return Permission(permType=kind, key=one.key, range_end=one.range_end)


def _same(one: Grant, key: bytes, range_end: bytes) -> bool:
    return (one.key, one.range_end) == (key, range_end)
