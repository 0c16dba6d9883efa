"""Looks at a cluster on Kubernetes: Pods, volumes and what members can prove of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec

from dwcp.wire.decoding import json_decoder_of
from dwcp.wire.records import Identity, SignedGenesis, is_complete
from dwcp_operator.act.api import CLAIM, POD
from dwcp_operator.act.keeper import GenesisKeeper
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.build.names import CLIENT_PORT
from dwcp_operator.local.probe import TIMEOUT, Probe, ProbeError
from dwcp_operator.plan.observed import GenesisSeen, MemberObserved, Observed, Report, Volume

REASON_BYTES_MAX: Final = 4096
ENDED_PHASES: Final = frozenset({"Failed", "Succeeded"})


def utc_now() -> str:
    """The time as conditions and reports carry it: RFC 3339, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def has_ended(pod: Mapping[str, Any]) -> bool:
    """True for a Pod that was evicted or ended otherwise: its container never starts again."""
    return pod.get("status", {}).get("phase") in ENDED_PHASES


def is_going(found: Mapping[str, Any] | None) -> bool:
    """True for an object that is being deleted and still there."""
    return found is not None and "deletionTimestamp" in found["metadata"]


class _NotReady(msgspec.Struct, frozen=True):
    """What a member's /readyz says."""

    reason: str = ""


_decode_not_ready: Callable[[bytes], _NotReady] = json_decoder_of(_NotReady)


class Observer:
    """Looks; changes nothing but its memory of identities and problems, and adds signatures."""

    def __init__(self, keeper: GenesisKeeper, http: aiohttp.ClientSession) -> None:
        self._keeper = keeper
        self._http = http
        self.identities: dict[str, Identity] = {}
        """The verified identities of members that waited when they were last seen."""
        self.problems: dict[str, str] = {}
        """What is wrong with members that answered and could not be believed."""

    def probe(self, snapshot: Snapshot, member: str) -> Probe | None:
        """The client API of a member, at its Pod's address; None while it has none."""
        url = self._url(snapshot, member)
        return None if url is None else Probe(self._http, member, url)

    def _url(self, snapshot: Snapshot, member: str) -> str | None:
        pod = snapshot.find(POD, member)
        address = (pod or {}).get("status", {}).get("podIP")
        if not address:
            return None
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{CLIENT_PORT}"

    async def observe(self, snapshot: Snapshot) -> Observed:
        """Look at everything; the genesis comes last, since members may add signatures."""
        members = await asyncio.gather(
            *(self._member(snapshot, name) for name in snapshot.subject.members)
        )
        return Observed(
            keys=self._keeper.keys_exist(snapshot),
            genesis=self._keeper.held(),
            members=tuple(members),
        )

    async def _member(self, snapshot: Snapshot, name: str) -> MemberObserved:
        pod = snapshot.find(POD, name)
        running = pod is not None and not is_going(pod) and not has_ended(pod)
        seen: tuple[bytes | None, GenesisSeen | None, Report | None] = (None, None, None)
        self.problems.pop(name, None)
        if running:
            try:
                seen = await self._ask(snapshot, name)
            except ProbeError as error:
                why = await self._why_not(snapshot, name)
                if why is not None:
                    self.problems[name] = f"{error}{why}"
        identity, genesis, report = seen
        return MemberObserved(
            name=name,
            volume=self._volume(snapshot, name),
            running=running,
            endpoint=f"http://{snapshot.subject.host(name)}:{CLIENT_PORT}",
            attempts=1 if self._must_wait(snapshot, name) else 0,
            identity=identity,
            genesis=genesis,
            report=report,
        )

    async def _why_not(self, snapshot: Snapshot, name: str) -> str | None:
        """What a member says of itself, as a clause; None when it does not answer at all."""
        url = self._url(snapshot, name)
        try:
            async with self._http.get(f"{url}/readyz", timeout=TIMEOUT) as response:
                said = await response.content.read(REASON_BYTES_MAX)
            reason = _decode_not_ready(said).reason
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None  # it only starts, or is gone: the Pod's own state says so
        except msgspec.DecodeError:
            return ""
        return f"; it says: {reason}" if reason else ""

    def _volume(self, snapshot: Snapshot, name: str) -> Volume:
        claim = snapshot.find(CLAIM, snapshot.subject.claim(name))
        lost = is_going(claim) and self._keeper.signed is not None
        return Volume.ABSENT if claim is None or lost else Volume.PRESENT

    def _must_wait(self, snapshot: Snapshot, name: str) -> bool:
        """True while a Pod of this name or its volume is still going away.

        It is told to the planner as a run that has ended just now: it looks again, and starts
        no second Pod.
        """
        claim = snapshot.find(CLAIM, snapshot.subject.claim(name))
        taken = (POD.kind, name) in snapshot.taken
        return taken or is_going(snapshot.find(POD, name)) or is_going(claim)

    async def _ask(
        self, snapshot: Snapshot, name: str
    ) -> tuple[bytes | None, GenesisSeen | None, Report | None]:
        """A running member's key, genesis and report; raises ProbeError."""
        probe, signed = self.probe(snapshot, name), self._keeper.signed
        if probe is None:
            return None, None, None
        known_key = None
        if signed is not None:
            known_key = _key_in(signed, name)
            report = await probe.report(signed.record, utc_now())
            if report is not None:
                await self._collect(probe)
                return known_key, GenesisSeen(signed.record.hash(), complete=True), report
        shown = await probe.identity(self._keeper.token(snapshot, name), known_key)
        self.identities[name] = shown
        found = await probe.genesis()
        genesis = None
        if found is not None:
            genesis = GenesisSeen(found.record.hash(), complete=is_complete(found))
        return shown.identity, genesis, None

    async def _collect(self, probe: Probe) -> None:
        """A member that runs holds all signatures: take those that we lack, after a restart."""
        signed = self._keeper.signed
        if signed is None or is_complete(signed):
            return
        found = await probe.genesis()
        if found is not None and found.record.hash() == signed.record.hash():
            self._keeper.collect(found)


def _key_in(signed: SignedGenesis, name: str) -> bytes | None:
    return next((m.identity for m in signed.record.members if m.name == name), None)
