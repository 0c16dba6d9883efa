"""Where tests let a replica lie: both hooks are absent in every ordinary start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from dwcp.wire.envelope import Reply
from dwcp.wire.query import QueryReply
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer
from dwcp_replica.core.effects import Outbound

OutboundHook = Callable[[list[Outbound]], list[Outbound]]
"""Sees what is about to be sent to peers, returns what is sent instead."""
AnyReply = TypeVar("AnyReply", Reply, QueryReply)


class ReplyHook(Protocol):
    """Sees a reply before it is signed, returns what is signed and sent instead."""

    def __call__(self, reply: AnyReply, /) -> AnyReply:
        """The reply that the client gets."""
        ...


HookMaker = Callable[[EpochRecord, int, Signer], tuple[OutboundHook, ReplyHook]]
"""Makes the hooks of one replica from the genesis, its member number and its key."""
