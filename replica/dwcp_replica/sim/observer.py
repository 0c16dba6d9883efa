"""Whoever checks what simulated replicas do, as their hosts see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dwcp.wire.peer import PeerMessage
from dwcp_replica.core.effects import Event, Record
from dwcp_replica.store.store import Outcome

if TYPE_CHECKING:
    from dwcp_replica.sim.host import Host


class Observer(Protocol):
    """Whoever checks what replicas do."""

    def started(self, host: Host) -> None:
        """`host` begins a life."""

    def durable(self, host: Host, record: Record) -> None:
        """`host` has synced a record."""

    def sent(self, host: Host, message: PeerMessage) -> None:
        """`host` lets a message go."""

    def executed(self, host: Host, index: int, hash_: bytes, outcomes: tuple[Outcome, ...]) -> None:
        """`host` has executed an entry."""

    def restored(self, host: Host, index: int, state: bytes) -> None:
        """`host` has the state at a checkpoint from others."""

    def digested(self, host: Host, index: int, state: bytes) -> None:
        """`host` has computed the digest of its state at a checkpoint."""

    def event(self, host: Host, event: Event) -> None:
        """The engine of `host` reports something."""
