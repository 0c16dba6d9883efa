"""What an epoch may be ended with on purpose: members' requests, or the admin's order.

A SWITCH stands in the log like any entry. Only the first valid one of the history that the
SEALs recover acts (epochs.md, Switching).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.records import Member, Protocol
from dwcp.wire.signing import Count, Scope, Signature

MEMBERS_MAX = 1024
Hold = Literal["as-is", "force", "release"]


class SwitchRequest(Struct, frozen=True, array_like=True, tag="switch-request"):
    """One member's wish that `epoch` ends, and the next runs `protocol` with the same members."""

    epoch: Count
    protocol: Protocol
    member: Annotated[int, Meta(ge=0, lt=MEMBERS_MAX)]
    sig: Signature

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the member signs."""
        payload = self.epoch.to_bytes(8, "big") + self.protocol.encode()
        return scope.signing_bytes("switch-request", payload)


class RequestedSwitch(Struct, frozen=True, array_like=True, tag="requested-switch"):
    """f+1 members' requests for one protocol: so that an honest one's cool-down allowed it."""

    protocol: Protocol
    requests: Annotated[tuple[SwitchRequest, ...], Meta(max_length=MEMBERS_MAX)]


class AdminSwitch(Struct, frozen=True, array_like=True, tag="admin-switch"):
    """The admin's order: protocol and whole member set of the record that follows `epoch`.

    Signed under the record that it ends, so that it can not be replayed in a later epoch.
    `hold`: force the protocol, so that it stays until released, release what was forced, or leave
    that as it is.
    """

    epoch: Count
    protocol: Protocol
    members: Annotated[tuple[Member, ...], Meta(max_length=MEMBERS_MAX)]
    sig: Signature
    hold: Hold = "as-is"

    def signing_bytes(self, scope: Scope) -> bytes:
        """What the admin signs: every field but the signature."""
        unsigned = msgspec.structs.replace(self, sig=bytes(64))
        return scope.signing_bytes("admin-switch", msgspec.msgpack.encode(unsigned))


Switch = RequestedSwitch | AdminSwitch
