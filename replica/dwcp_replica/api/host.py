"""What the handlers need from the process they run in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from dwcp.wire.envelope import Envelope, Rejected
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.keys import KeyRequest, NextKey
from dwcp.wire.query import Query
from dwcp.wire.records import EpochRecord, Identity, SignedGenesis
from dwcp.wire.signing import Verifier
from dwcp.wire.switch import AdminSwitch
from dwcp.wire.watch import Pull
from dwcp_replica.api.desk import Answer, ClientDesk
from dwcp_replica.api.views import EvidenceView, StatusView
from dwcp_replica.core.outline import Outline
from dwcp_replica.store.records import View

if TYPE_CHECKING:
    from dwcp_replica.api.documents import DocumentService


class GenesisRefusedError(Exception):
    """An offered genesis was refused and changed nothing; `status` is the HTTP status."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class ClientService(Protocol):
    """A running replica, as its clients see it."""

    @property
    def genesis(self) -> EpochRecord:
        """The record that began the cluster."""
        ...

    @property
    def identity(self) -> bytes:
        """This replica's public key."""
        ...

    @property
    def verifier(self) -> Verifier:
        """Checks the signatures of clients that connect."""
        ...

    @property
    def desk(self) -> ClientDesk:
        """Where clients wait for their replies."""
        ...

    def admit(self, envelope: Envelope, answer: Callable[[Answer], None]) -> None:
        """Take a decoded envelope in. Never waits.

        `answer` is called at most once, now or later, and only with what concerns this sender
        alone: Busy, Rejected, or the reply to a request that was executed before. Replies of
        requests that are executed from now on come over the desk.
        """
        ...

    def ask(self, query: Query, answer: Callable[[Answer], None]) -> None:
        """Take a decoded query in. Never waits; `answer` is called at most once, now or later."""
        ...

    def watch(self, client: bytes, pull: Pull, answer: Callable[[Answer], None]) -> None:
        """Answer a pull when something matches, or after a while. Never waits.

        A connection's pulls are forgotten by `unwatch`.
        """
        ...

    def unwatch(self, answer: Callable[[Answer], None]) -> None:
        """The connection that gave this `answer` is gone."""
        ...

    def unreadable(self, reason: str, message: str) -> Rejected:
        """The signed and counted answer to a frame that holds no envelope."""
        ...


class Host(Protocol):
    """The replica process in any phase."""

    def readiness(self) -> str | None:
        """Why this replica does not vote; None when it does."""
        ...

    def identity(self) -> Identity | None:
        """Key, certificate, proof and MAC; None when the data directory can not be used."""
        ...

    def genesis(self) -> SignedGenesis | None:
        """The complete genesis, or None while waiting for it."""
        ...

    def offer_genesis(self, offer: SignedGenesis, mac: bytes) -> SignedGenesis:
        """Take a genesis in durably; return it with this replica's signature.

        Raises GenesisRefusedError.
        """
        ...

    def service(self) -> ClientService | None:
        """The running replica, or None while there is none."""
        ...

    def documents(self) -> DocumentService | None:
        """The running replica's documents, or None while there is none."""
        ...

    def certified(self) -> tuple[CertifiedRecord, ...] | None:
        """The epoch records after genesis, with their certificates; None while not running."""
        ...

    def backup(self) -> tuple[Outline, View | None] | None:
        """What proves the saved state, with a view of it that the caller closes.

        None while there is nothing that could be proved.
        """
        ...

    def invite(self, encoded: bytes, mac: bytes) -> None:
        """Take an invitation (dwcp.epochs.Invitation) in durably. Raises GenesisRefusedError."""
        ...

    def order(self, order: AdminSwitch, *, learn: bool) -> tuple[str, str] | None:
        """Take an order of the admin; else an enumerated word and a sentence why not.

        With `learn` its new members may fetch what they need, and nothing else happens.
        """
        ...

    def next_key(self, request: KeyRequest) -> NextKey | tuple[str, str]:
        """Make the next identity key durably, or show the one that is made.

        Else an enumerated word and a sentence why not.
        """
        ...

    def status(self) -> StatusView:
        """Where the replica stands."""
        ...

    def sign_status(self, payload: bytes) -> bytes | None:
        """This replica's signature over a status, or None while it has no genesis."""
        ...

    def evidence(self) -> list[EvidenceView]:
        """The proofs against members that this replica holds."""
        ...

    def refresh_metrics(self) -> None:
        """Set the gauges to what is so now."""
        ...
