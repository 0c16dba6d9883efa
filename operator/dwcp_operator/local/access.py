"""Brings clients' rights to what the manifest says, on this machine, while a quorum votes."""

from __future__ import annotations

from collections.abc import Callable

from dwcp.client import Client
from dwcp.identity import Ed25519Signer
from dwcp_operator.access import AccessStatus
from dwcp_operator.granting import AccessError, Granter, shown, wanted_rights
from dwcp_operator.local.genesis import GenesisKeeper
from dwcp_operator.local.layout import Layout
from dwcp_operator.resources import DWCPCluster


class Granting:
    """Keeps one local cluster's rights; `emit` gets a line for each change."""

    def __init__(self, layout: Layout, emit: Callable[[str], None]) -> None:
        self._layout = layout
        self._emit = emit
        self._granter = Granter()
        self._told = ""

    def status(self, manifest: DWCPCluster) -> tuple[AccessStatus, ...]:
        """What clients may do, as the log last said."""
        return () if manifest.spec.access is None else self._granter.status or ()

    async def round(self, manifest: DWCPCluster, keeper: GenesisKeeper) -> None:
        """Look at the log when it is time, and change what differs; what fails is said once."""
        spec, signed, chain = manifest.spec, keeper.signed, keeper.chain
        if spec.access is None or signed is None or chain is None or not keeper.is_published:
            return
        wanted = wanted_rights(spec.clients, spec.access)
        if not self._granter.is_due(wanted):
            return
        keys = {
            name: Ed25519Signer.load(self._layout.client_key(number, name))
            for number, name in enumerate(spec.clients)
        }

        def opened(name: str) -> Client:
            return Client.connect(signed, keys[name], records=tuple(chain.certified))

        try:
            public = {name: key.public_key for name, key in keys.items()}
            steps = await self._granter.bring(wanted, public, opened)
        except AccessError as error:
            if self._told != str(error):
                self._emit(f"what clients may do is not as the manifest says yet: {error}")
            self._told = str(error)
            return
        self._told = ""
        for step in steps:
            self._emit(f"{step.client} may now: {shown(step.access)}")
