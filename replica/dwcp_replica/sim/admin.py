"""The admin of a simulated cluster: orders epochs, members and protocols until they are there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from dwcp.wire.records import EpochRecord, Member, Protocol, scope_of
from dwcp.wire.signing import Signer
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.world import World

AGAIN_MS: Final = 250


@dataclass(frozen=True, slots=True)
class Goal:
    """What the admin wants: the members of the next record, given the present one.

    `reached` says whether a record fulfils it; `protocol` None leaves that as it is.
    """

    members: Callable[[EpochRecord], tuple[Member, ...]]
    reached: Callable[[EpochRecord], bool]
    protocol: Protocol | None = None


class Admin:
    """Pursues one goal after the other: signs for the present record, asks all, looks again."""

    def __init__(
        self, world: World, genesis: EpochRecord, signer: Signer, hosts: Sequence[Host]
    ) -> None:
        self._world = world
        self._genesis = genesis
        self._signer = signer
        self._hosts = hosts
        self._goals: deque[Goal] = deque()
        self._busy = False

    @property
    def done(self) -> bool:
        """Every goal is reached."""
        return not self._goals

    def newest(self) -> EpochRecord:
        """The newest record that any member has."""
        return max((host.record for host in self._hosts), key=lambda record: record.epoch)

    def want(self, goal: Goal) -> None:
        """Pursue this too."""
        self._goals.append(goal)
        if not self._busy:
            self._busy = True
            self._pursue()

    def refresh(self) -> None:
        """Another epoch with the same members."""
        epoch = self.newest().epoch
        self.want(Goal(lambda record: record.members, lambda record: record.epoch > epoch))

    def switch(self, protocol: Protocol) -> None:
        """Another protocol with the same members."""

        def reached(record: EpochRecord) -> bool:
            return record.protocol == protocol

        self.want(Goal(lambda record: record.members, reached, protocol))

    def replace(self, old: bytes, new: Member) -> None:
        """A new member in the place of an old one."""

        def members(record: EpochRecord) -> tuple[Member, ...]:
            return tuple(new if m.identity == old else m for m in record.members)

        def reached(record: EpochRecord) -> bool:
            return record.member_with(old) is None

        self.want(Goal(members, reached))

    def grow(self, more: Sequence[Member]) -> None:
        """These members too."""

        def members(record: EpochRecord) -> tuple[Member, ...]:
            return (*record.members, *more)

        self.want(Goal(members, lambda r: r.member_with(more[0].identity) is not None))

    def shrink(self, count: int, is_sound: Callable[[bytes], bool]) -> None:
        """Only so many of the members: those that are sound, then the others."""

        def members(record: EpochRecord) -> tuple[Member, ...]:
            by_worth = sorted(record.members, key=lambda m: not is_sound(m.identity))
            return tuple(by_worth[:count])

        self.want(Goal(members, lambda record: len(record.members) <= count))

    def _pursue(self) -> None:
        record = self.newest()
        while self._goals and self._goals[0].reached(record):
            self._goals.popleft()
        if not self._goals:
            self._busy = False
            return
        goal = self._goals[0]
        protocol = goal.protocol or record.protocol
        unsigned = AdminSwitch(record.epoch, protocol, goal.members(record), bytes(64))
        signed = unsigned.signing_bytes(scope_of(self._genesis, record))
        order = msgspec.structs.replace(unsigned, sig=self._signer.sign(signed))
        for host in self._hosts:
            if host.up:
                self._world.deliver(("client", host.name), 1000, host.order, order)
        self._world.after(AGAIN_MS, self._pursue)
