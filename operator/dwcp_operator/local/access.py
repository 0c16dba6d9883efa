"""Brings clients' rights to what the manifest says, on this machine, while a quorum votes."""

from __future__ import annotations

from collections.abc import Callable

from dwcp.client import Client
from dwcp.errors import BadCluster
from dwcp.identity import Ed25519Signer, KeyFileError
from dwcp_operator.access import AccessStatus
from dwcp_operator.granting import AccessError, Granter, administrator, shown, wanted_rights
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

    def administrator(self, manifest: DWCPCluster, keeper: GenesisKeeper) -> Client:
        """The cluster as somebody sees it who may administer. Raises BadCluster."""
        return self._client(manifest, keeper, administrator(manifest.spec))

    def _client(self, manifest: DWCPCluster, keeper: GenesisKeeper, name: str) -> Client:
        signed, chain = keeper.signed, keeper.chain
        assert signed is not None, "the genesis is published"
        assert chain is not None, "kept beside the genesis"
        try:
            key = self._key(manifest, name)
        except KeyFileError as error:
            raise BadCluster(str(error)) from None
        return Client.connect(signed, key, records=tuple(chain.certified))

    async def round(self, manifest: DWCPCluster, keeper: GenesisKeeper) -> None:
        """Look at the log when it is time, and change what differs; what fails is said once."""
        spec = manifest.spec
        if spec.access is None or not keeper.is_published:
            return
        wanted = wanted_rights(spec.clients, spec.access)
        if not self._granter.is_due(wanted):
            return

        def opened(name: str) -> Client:
            return self._client(manifest, keeper, name)

        try:
            public = {name: self._key(manifest, name).public_key for name in spec.clients}
            steps = await self._granter.bring(wanted, public, opened)
        except (AccessError, KeyFileError) as error:
            if self._told != str(error):
                self._emit(f"what clients may do is not as the manifest says yet: {error}")
            self._told = str(error)
            return
        self._told = ""
        for step in steps:
            self._emit(f"{step.client} may now: {shown(step.access)}")

    def _key(self, manifest: DWCPCluster, name: str) -> Ed25519Signer:
        number = manifest.spec.clients.index(name)
        return Ed25519Signer.load(self._layout.client_key(number, name))
