"""A member's wish for another protocol, since the network is another: requests and patience.

The wish is what the decided mode needs (core/modes); the request is signed only when this
member's cool-down is over, and f+1 members' requests make a SWITCH, so that an honest one's
cool-down binds (epochs.md, Switching). An epoch that ended in PBFT although Raft was wished for is
a fail-over: the way back takes longer each time.
"""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.records import Protocol
from dwcp_replica.core.epochs import switching, triggers
from dwcp_replica.core.epochs.cooldown import Cooldown
from dwcp_replica.core.state import Core


@dataclass(frozen=True, slots=True)
class Wish:
    """The protocol that the decided mode needs; said again while the epoch runs another."""

    protocol: Protocol


class Wishes:
    """What this member wishes for, and how long it must wait."""

    def __init__(self) -> None:
        self.wanted: Protocol | None = None
        self.cooldown = Cooldown()
        self._ran: Protocol | None = None

    def entered(self, core: Core) -> None:
        """An epoch begins: note a switch, or a fail-over."""
        runs = core.record.protocol
        if self._ran is not None and runs != self._ran:
            away = self.wanted is not None and runs != self.wanted
            cooldown, now_ms = self.cooldown, core.now_ms
            self.cooldown = cooldown.failed(now_ms) if away else cooldown.switched(now_ms)
        self._ran = runs

    def wish(self, core: Core, protocol: Protocol) -> None:
        """Ask for an epoch of this protocol as soon as patience allows; or ask again."""
        self.wanted = protocol
        self._ran = core.record.protocol
        if core.sealed or core.waiting or core.halted is not None:
            return
        held = core.record.forced is not None  # what the admin holds is not for members to change
        if held or protocol == core.record.protocol or not triggers.can_end(core.record):
            return
        mine = core.ending.requests.get(core.me)
        if mine is not None and mine.protocol == protocol:
            core.broadcast(mine)
        elif not self.cooldown.failures or self.cooldown.allows(core.now_ms):
            # without a fail-over the cluster's own cool-down was part of the decision
            switching.request(core, protocol)
