"""Brings clients' rights to what the resource says, on Kubernetes, while a quorum votes."""

from __future__ import annotations

from dwcp.client import Client
from dwcp_operator.access import AccessStatus
from dwcp_operator.act.clients import client_of
from dwcp_operator.act.events import EventReason, Events
from dwcp_operator.act.keeper import GenesisKeeper, client_keys
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.granting import Granter, shown, wanted_rights
from dwcp_operator.resources import ClusterStatus


class AccessActor:
    """Keeps one cluster's rights as its resource says."""

    def __init__(self, keeper: GenesisKeeper, events: Events) -> None:
        self._keeper = keeper
        self._events = events
        self._granter = Granter()

    async def round(self, snapshot: Snapshot, *, votes: bool) -> None:
        """Look at the log when it is time, and change what differs; `votes`: a quorum does.

        Raises AccessError, and KeeperError when keys are missing.
        """
        spec = snapshot.subject.cluster.spec
        if spec.access is None or not votes or not self._keeper.published:
            return
        wanted = wanted_rights(spec.clients, spec.access)
        if not self._granter.is_due(wanted):
            return
        keys, before = client_keys(snapshot), snapshot.status()
        if self._granter.status is None and before is not None:
            self._granter.status = before.access

        def opened(name: str) -> Client:
            return client_of(snapshot, self._keeper, name)

        public = {name: key.public_key for name, key in keys.items()}
        for step in await self._granter.bring(wanted, public, opened):
            note = f"{step.client} may now: {shown(step.access)}"
            await self._events.post(snapshot.subject, EventReason.ACCESS_CHANGED, note)

    def status(self, snapshot: Snapshot, before: ClusterStatus | None) -> tuple[AccessStatus, ...]:
        """What clients may do, as the log last said; what the status says until it was asked."""
        if snapshot.subject.cluster.spec.access is None:
            return ()
        if self._granter.status is not None:
            return self._granter.status
        return () if before is None else before.access
