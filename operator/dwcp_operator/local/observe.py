"""Looks at a local cluster: directories, processes and what members can prove of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime

import aiohttp
from msgspec import Struct

from dwcp.wire.records import EpochRecord, Identity, SignedGenesis, is_complete
from dwcp_operator.local.genesis import GenesisKeeper
from dwcp_operator.local.layout import ClusterFile, Layout, MemberPorts
from dwcp_operator.local.probe import Probe, ProbeError, checked_genesis
from dwcp_operator.plan.observed import GenesisSeen, MemberObserved, Observed, Report, Volume


class Run(Struct, frozen=True):
    """What the caller knows of a member's process; times are milliseconds.

    `revision` names the request for a restart after which it was started, "" when unknown.
    """

    running: bool
    attempts: int = 0
    last_exit: int | None = None
    stopped_for_ms: int = 0
    revision: str = ""
    unready_for_ms: int = 0


STOPPED = Run(running=False)


def utc_now() -> str:
    """The time as conditions and reports carry it: RFC 3339, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Observer:
    """Looks; changes nothing but its memory of identities and problems."""

    def __init__(
        self,
        layout: Layout,
        cluster: ClusterFile,
        keeper: GenesisKeeper,
        http: aiohttp.ClientSession,
    ) -> None:
        self._layout = layout
        self._cluster = cluster
        self._keeper = keeper
        self._probes = {m.name: Probe(http, m.name, m.client_url) for m in cluster.members}
        self.identities: dict[str, Identity] = {}
        """The verified identities of members that waited when they were last seen."""
        self.problems: dict[str, str] = {}
        """Why a running member could not be believed when it was last looked at."""

    def probe(self, member: str) -> Probe:
        """The connection to a member's client API."""
        return self._probes[member]

    async def observe(self, runs: Mapping[str, Run]) -> Observed:
        """Look at everything."""
        names = self._keeper.members
        members = await asyncio.gather(
            *(
                self._member(m, runs.get(m.name, STOPPED))
                for m in self._cluster.members
                if m.name in names
            )
        )
        return Observed(
            keys=self._keeper.keys_exist(), genesis=self._keeper.held(), members=tuple(members)
        )

    def _volume(self, name: str) -> Volume:
        volume = self._layout.volume(name)
        # After the genesis a volume is one that still holds the member's identity.
        sign = volume / "member.json" if self._keeper.signed is not None else volume
        return Volume.PRESENT if sign.exists() else Volume.ABSENT

    async def _member(self, member: MemberPorts, run: Run) -> MemberObserved:
        identity: bytes | None = None
        genesis: GenesisSeen | None = None
        report: Report | None = None
        if run.running:
            try:
                identity, genesis, report = await self._ask(member.name)
                self.problems.pop(member.name, None)
            except ProbeError as error:
                self.problems[member.name] = str(error)
        else:
            self.problems.pop(member.name, None)
        return MemberObserved(
            name=member.name,
            volume=self._volume(member.name),
            running=run.running,
            endpoint=member.client_url,
            attempts=run.attempts,
            last_exit=run.last_exit,
            stopped_for_ms=run.stopped_for_ms,
            identity=identity,
            genesis=genesis,
            report=report,
            revision=run.revision if run.running else "",
            serving=report is not None and report.ready,
            unready_for_ms=run.unready_for_ms,
        )

    async def _ask(self, name: str) -> tuple[bytes | None, GenesisSeen | None, Report | None]:
        """A running member's key, genesis and report; raises ProbeError."""
        probe, signed = self._probes[name], self._keeper.signed
        known_key = None
        if signed is not None:
            assert self._keeper.record is not None, "there is a genesis"
            known_key = _key_in(self._keeper.record, name)
            report = await probe.report(signed.record, utc_now(), self._keeper.record)
            if report is not None:
                await self._follow(probe, report.epoch)
                return known_key, GenesisSeen(signed.record.hash(), complete=True), report
        found = await self.genesis_of(name)
        if found is not None and signed is None:
            # Our record is lost, and perhaps the token too: its signatures speak for this one.
            return None, GenesisSeen(found.record.hash(), complete=is_complete(found)), None
        shown = await probe.identity(self._keeper.token(name), known_key)
        self.identities[name] = shown
        genesis = None
        if found is not None:
            genesis = GenesisSeen(found.record.hash(), complete=is_complete(found))
        return shown.identity, genesis, None

    async def _follow(self, probe: Probe, epoch: int) -> None:
        """Take the records up to a member's epoch, as far as they verify. Raises ProbeError."""
        record = self._keeper.record
        assert record is not None, "epochs follow a genesis"
        if epoch <= record.epoch:
            return
        if (fault := self._keeper.follow(await probe.records(record.epoch))) is not None:
            raise ProbeError(f"{probe.name} shows an epoch that does not hold: {fault}")

    async def genesis_of(self, name: str) -> SignedGenesis | None:
        """The genesis that a member shows or, while we keep none, that its volume holds.

        A member shows only a complete one: one that lacks signatures lies on its volume, and
        must be found before another could be made. Raises ProbeError.
        """
        found = await self._probes[name].genesis()
        if found is not None or self._keeper.signed is not None:
            return found
        try:
            data = (self._layout.volume(name) / "genesis.msgpack").read_bytes()
        except FileNotFoundError:
            return None
        return checked_genesis(name, data)


def _key_in(record: EpochRecord, name: str) -> bytes | None:
    return next((m.identity for m in record.members if m.name == name), None)
