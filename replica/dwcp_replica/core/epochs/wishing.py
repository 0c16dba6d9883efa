"""A member's wish for another protocol, since the network is another: requests and patience.

The wish is what the decided mode needs (core/modes); the request is signed only when this
member's cool-down is over, and f+1 members' requests make a SWITCH, so that an honest one's
cool-down binds (epochs.md, Switching). An epoch that ended in PBFT although Raft was what the log
had decided is a fail-over: the way back takes longer each time. What this member had wished for
last says nothing of that, since it may lag behind those who asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from dwcp.wire.records import EpochRecord, Protocol
from dwcp_replica.core.epochs import switching, triggers
from dwcp_replica.core.epochs.cooldown import Cooldown
from dwcp_replica.core.state import Core


@dataclass(frozen=True, slots=True)
class Wish:
    """The protocol that the decided mode needs; said again while the epoch runs another.

    `at_start`: the one that it needed where the present epoch began. `patient`: the member's own
    cool-down binds it even where no fail-over was, since others may wish otherwise.
    """

    protocol: Protocol
    at_start: Protocol
    patient: bool = False


def first_protocol(genesis: EpochRecord, record: EpochRecord) -> Wish | None:
    """What a member asks for that is pinned to the protocol of genesis; None while it runs."""
    wanted = genesis.protocol
    if record.forced is not None or record.protocol == wanted:
        return None
    return Wish(wanted, wanted, patient=True)


class Wishes:
    """How long this member must wait before it asks."""

    def __init__(self) -> None:
        self.cooldown = Cooldown()
        self._ran: Protocol | None = None
        self._changed_ms: int | None = None

    def entered(self, core: Core) -> None:
        """An epoch begins: whether a change of protocol was a fail-over, the next wish tells."""
        runs = core.record.protocol
        if self._changed_ms is not None:
            self.cooldown = self.cooldown.switched(self._changed_ms)
        self._changed_ms = core.now_ms if self._ran not in (None, runs) else None
        self._ran = runs

    def wish(self, core: Core, wish: Wish) -> None:
        """Ask for an epoch of this protocol as soon as patience allows; or ask again."""
        self._ran = core.record.protocol
        self._judge(core, wish.at_start)
        if core.sealed or core.waiting or core.halted is not None:
            return
        protocol = wish.protocol
        held = core.record.forced is not None  # what the admin holds is not for members to change
        if held or protocol == core.record.protocol or not triggers.can_end(core.record):
            return
        mine = core.ending.requests.get(core.me)
        if mine is not None and mine.protocol == protocol:
            core.broadcast(mine)
        elif not (wish.patient or self.cooldown.failures) or self.cooldown.allows(core.now_ms):
            # without a fail-over the cluster's own cool-down was part of the decision
            switching.request(core, protocol)

    def _judge(self, core: Core, at_start: Protocol) -> None:
        changed_ms, self._changed_ms = self._changed_ms, None
        if changed_ms is not None:
            away = at_start == "raft" and core.record.protocol == "pbft"
            cooldown = self.cooldown
            self.cooldown = cooldown.failed(changed_ms) if away else cooldown.switched(changed_ms)
