"""This replica's connections, as the engine's knowledge of its peers changes.

The engine learns of peers by records and by orders of the admin (`Replica.peers`); the roster says
who of them may connect and who is dialed; dialer and server do it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from dwcp.wire.gossip import GossipMessage, PeerFrame
from dwcp.wire.links import LinkMessage, Ping, Pong
from dwcp.wire.peer import PeerMessage, Status
from dwcp.wire.records import EpochRecord, Member
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.net.counters import PeerCounters
from dwcp_replica.net.dialer import PeerDialer, SecondLane
from dwcp_replica.net.hello import LocalMember
from dwcp_replica.net.roster import Roster
from dwcp_replica.net.server import PeerServer
from dwcp_replica.node.config import Address

Deliver = Callable[[int, PeerMessage | GossipMessage, int], Awaitable[None]]


class PeerDocuments(SecondLane, Protocol):
    """What is said of documents, and who is told."""

    def met(self, number: int) -> None:
        """This peer's connection to us is a new one."""
        ...


class _Lane:
    """Documents are for members and learners: a former one is told nothing of them."""

    def __init__(self, roster: Roster, documents: PeerDocuments) -> None:
        self._roster = roster
        self._documents = documents

    def connected(self, number: int) -> None:
        """See SecondLane."""
        if not self._roster.is_former(number):
            self._documents.connected(number)

    def lost(self, number: int) -> None:
        """See SecondLane."""
        self._documents.lost(number)

    def say(self, number: int) -> bytes | None:
        """See SecondLane."""
        return self._documents.say(number)


class Mesh:
    """Peers come and go; `deliver` gets what those say who may say something.

    Whoever measures links sets `measured`, which gets pings and pongs.
    """

    def __init__(
        self, genesis: bytes, record: EpochRecord, keys: tuple[Signer, bytes], verifier: Verifier,
        deliver: Deliver, counters: PeerCounters, documents: PeerDocuments,
    ) -> None:  # fmt: skip
        self._documents = documents
        self._genesis = genesis
        self._certificate = keys[1]
        self._deliver = deliver
        self._counters = counters
        self._over = asyncio.Event()
        self.measured: Callable[[int, LinkMessage], None] | None = None
        self.roster = Roster(self._local(keys[0], record), record)
        self.dialer = PeerDialer(self.roster, counters, _Lane(self.roster, documents))
        self.server = PeerServer(
            self.roster, verifier, self._received, counters, self._met, self._left
        )

    def _local(self, signer: Signer, record: EpochRecord) -> LocalMember:
        return LocalMember(self._genesis, record.epoch, signer, self._certificate)

    async def start(self, listen: Address, context: ssl.SSLContext) -> None:
        """Listen for peers. Raises OSError when the address can not be bound."""
        await self.server.start(listen.host, listen.port, context)

    def know(self, members: Sequence[Member]) -> None:
        """Take the engine's peers as they are now."""
        if tuple(members) != self.roster.members:
            self.roster.know(members)
            self._follow()

    def enter(self, signer: Signer, record: EpochRecord) -> None:
        """Another record is in force; `signer` holds the key that we are known by now."""
        before = self.roster.local.signer.public_key
        self.roster.enter(self._local(signer, record), record)
        for number in filter(self.roster.is_former, self.roster.others()):
            self._documents.lost(number)
        self._follow()
        if signer.public_key != before:
            self.dialer.dial_anew()

    def settle(self) -> None:
        """A quorum holds the epoch's start: former members are dialed no more, and sent away."""
        self.roster.settle()
        self._over.set()
        self._follow()

    async def run(self) -> None:
        """Keep the connections up, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.dialer.run())
            tasks.create_task(self._dismiss())

    async def _dismiss(self) -> None:
        while True:
            await self._over.wait()
            self._over.clear()
            await self.server.dismiss()

    async def close(self) -> None:
        """Close every connection."""
        await self.server.close()

    def connected(self, number: int) -> bool:
        """True while our connection to this peer stands."""
        return self.dialer.connected(number)

    @property
    def reached(self) -> int:
        """How many other members of the record our connections reach now."""
        members = filter(self.roster.is_member, self.roster.others())
        return sum(map(self.connected, members))

    def _follow(self) -> None:
        self.dialer.follow(self.server.here)

    def _met(self, number: int) -> None:
        self._follow()
        self._documents.met(number)
        self.dialer.try_now(number)

    def _left(self, number: int) -> None:
        if self.roster.is_over(number):
            self._follow()

    async def _received(self, sender: int, message: PeerFrame, size_bytes: int) -> None:
        """Pass a message on, unless its sender may only be told that it is no member."""
        is_document = isinstance(message, GossipMessage)
        former = self.roster.is_former(sender) if is_document else self.roster.is_over(sender)
        if former and not isinstance(message, Status):
            self._counters.frame_refused("former-member")
            return
        if not isinstance(message, Ping | Pong):
            await self._deliver(sender, message, size_bytes)
        elif self.measured is not None:
            self.measured(sender, message)
