"""What all of the gateway's services share: one operation's answer, headers, and errors by code."""

from __future__ import annotations

import hashlib
from typing import Final, TypeVar

from dwcp import errors
from dwcp.client import Client
from dwcp.gateway.proto.rpc_pb2 import ResponseHeader
from dwcp.gateway.shapes import ShapeError
from dwcp.results import Header
from dwcp.wire.operations import Failure, Operation

ETCD_VERSION: Final = "3.6.0"
"""What the API is like; clients look whether it is 3.5.13 or newer."""
UNIMPLEMENTED: Final = 12
UNAVAILABLE: Final = 14
UINT64: Final = 2**64

_Response = TypeVar("_Response")


class Unsupported(Exception):  # noqa: N818 it says what happened
    """Nothing here does this; the message says what does."""


class Desk:
    """Asks for the gateway's users. `timeout_ms` is how long one answer may take.

    `address` is where users reach the gRPC port, as a URL; empty when that is not known.
    """

    def __init__(self, client: Client, public_key: bytes, timeout_ms: int) -> None:
        self.client = client
        self.timeout_ms = timeout_ms
        self.member_id = number_of(public_key)
        self.cluster_id = int.from_bytes(client.genesis.cluster_id[:8], "big")
        self.address = ""
        self.newest = 1
        """The highest revision that an answer had so far."""

    async def ask(self, operation: Operation, kind: type[_Response]) -> tuple[Header, _Response]:
        """One operation's result. Raises errors.DWCPError."""
        done = await self.client.execute(operation, timeout_ms=self.timeout_ms)
        (result,) = done.results
        if isinstance(result, Failure):
            raise errors.Refused(result.code, result.message)
        if not isinstance(result, kind):
            raise errors.BrokenAnswer(f"{operation!r:.100} was answered by {result!r:.100}")
        self.newest = max(self.newest, done.header.revision)
        return done.header, result

    def header(self, revision: int) -> ResponseHeader:
        """etcd's header. Its term is always 1."""
        return ResponseHeader(
            cluster_id=self.cluster_id, member_id=self.member_id, revision=revision, raft_term=1
        )


def number_of(public_key: bytes) -> int:
    """What stands for a key where etcd has a member's id: 64 bits."""
    return int.from_bytes(hashlib.sha256(public_key).digest()[:8], "big")


def code_of(error: Exception) -> tuple[int, str] | None:
    """The gRPC code and etcd's text for what went wrong; None for what nobody expects."""
    match error:
        case ShapeError() | errors.Refused():
            return error.code, str(error)
        case errors.Busy():
            return errors.RESOURCE_EXHAUSTED, f"etcdserver: too many requests: {error}"
        case errors.TimedOut() | errors.NotEnoughReplies():
            return UNAVAILABLE, f"etcdserver: request timed out: {error}"
        case errors.DWCPError():
            return UNAVAILABLE, str(error)
        case Unsupported():
            return UNIMPLEMENTED, str(error)
        case _:
            return None
