"""Where tests let a replica lie: both hooks are absent in every ordinary start."""

from __future__ import annotations

from collections.abc import Callable

from dwcp.wire.envelope import Reply
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer
from dwcp_replica.core.effects import Outbound

OutboundHook = Callable[[list[Outbound]], list[Outbound]]
"""Sees what is about to be sent to peers, returns what is sent instead."""
ReplyHook = Callable[[Reply], Reply]
"""Sees a reply before it is signed, returns what is signed and sent instead."""
HookMaker = Callable[[EpochRecord, int, Signer], tuple[OutboundHook, ReplyHook]]
"""Makes the hooks of one replica from the genesis, its member number and its key."""
