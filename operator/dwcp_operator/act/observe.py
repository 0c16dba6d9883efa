"""Looks at a cluster on Kubernetes: Pods, volumes and what members can prove of themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

import aiohttp
import msgspec

from dwcp.wire.decoding import decoder_of, json_decoder_of
from dwcp.wire.records import EpochRecord, Identity, Origin, is_complete
from dwcp_operator.act.api import CLAIM, POD, SERVICE
from dwcp_operator.act.keeper import GenesisKeeper
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.build.names import SERVE_PORT
from dwcp_operator.build.pod import SPEC_HASH
from dwcp_operator.local.probe import TIMEOUT, Probe, ProbeError
from dwcp_operator.plan.observed import (
    GenesisSeen,
    MemberObserved,
    Observed,
    Report,
    Source,
    Volume,
)
from dwcp_operator.rules import size_bytes

REASON_BYTES_MAX: Final = 4096
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
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


_decode_origin: Callable[[bytes], Origin] = decoder_of(Origin)


def last_words(pod: Mapping[str, Any]) -> str:
    """What the container of a Pod said when it last ended."""
    statuses: list[Any] = pod.get("status", {}).get("containerStatuses") or []
    for state in ("state", "lastState"):
        ended = statuses[0].get(state, {}).get("terminated", {}) if statuses else {}
        if ended.get("message"):
            return str(ended["message"]).strip()[:1000]
    return ""


class Observer:
    """Looks; changes nothing but its memory of identities and problems, and adds signatures."""

    def __init__(self, keeper: GenesisKeeper, http: aiohttp.ClientSession) -> None:
        self._keeper = keeper
        self._http = http
        self.identities: dict[str, Identity] = {}
        """The verified identities of members that waited when they were last seen."""
        self._silent: dict[str, float] = {}
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
        return snapshot.subject.url(host)

    async def observe(self, snapshot: Snapshot) -> Observed:
        """Look at everything; the genesis comes last, since members may add signatures."""
        await self._follow(snapshot, self._remembered_epoch(snapshot))
        members = await asyncio.gather(
            *(self._member(snapshot, name) for name in snapshot.subject.members)
        )
        newest = max((m.report.epoch for m in members if m.report is not None), default=0)
        await self._follow(snapshot, newest)
        joining = await asyncio.gather(
            *(self._learner(snapshot, name) for name in snapshot.subject.joining)
        )
        return Observed(
            source=await self._source(snapshot),
            keys=self._keeper.keys_exist(snapshot),
            genesis=self._keeper.held(),
            members=tuple(members),
            membership=self._keeper.membership(snapshot.status()),
            joining=tuple(joining),
            former=snapshot.strangers,
        )

    # --- members that come and go ----------------------------------------------------------------

    @staticmethod
    def _remembered_epoch(snapshot: Snapshot) -> int:
        status = snapshot.status()
        known = status.membership if status is not None else None
        return known.epoch if known is not None else 0

    async def _follow(self, snapshot: Snapshot, epoch: int) -> None:
        """Verify epoch records up to one that is spoken of, as far as anybody shows them."""
        chain = self._keeper.chain
        if chain is None:
            return
        for name in snapshot.subject.members:
            if chain.current.epoch >= epoch:
                return
            probe = self.probe(snapshot, name)
            try:
                shown = await probe.records(chain.current.epoch) if probe is not None else ()
            except ProbeError:
                continue
            if (fault := chain.extend(shown)) is not None:
                self.problems[name] = f"{name} shows an epoch that does not hold: {fault}"

    async def _learner(self, snapshot: Snapshot, name: str) -> MemberObserved:
        """One that is to become a member: who it is, and how far it has learnt."""
        pod = snapshot.find(POD, name)
        running = pod is not None and not is_going(pod) and not has_ended(pod)
        probe = self.probe(snapshot, name) if running else None
        token, signed = self._keeper.token(snapshot, name), self._keeper.signed
        identity: bytes | None = None
        report: Report | None = None
        try:
            if probe is not None and signed is not None:
                self.identities[name] = shown = await probe.identity(token, None)
                identity = shown.identity
                report = _learnt(await probe.standing(signed.record, identity))
        except ProbeError:
            report = None  # it waits for its invitation, or only starts
        metadata = (pod or {}).get("metadata", {})
        return MemberObserved(
            name=name,
            volume=self._volume_there(snapshot, name),
            running=running or self._must_wait(snapshot, name),
            identity=identity,
            report=report,
            revision=metadata.get("annotations", {}).get(SPEC_HASH, "") if running else "",
            failing_for_ms=self._silent_ms(name, answers=report is not None),
        )

    def _silent_ms(self, name: str, *, answers: bool) -> int:
        """How long one that is to join has not answered; another process begins to count anew."""
        now = time.monotonic()
        since = self._silent.setdefault(name, now)
        if answers:
            del self._silent[name]
        return 0 if answers else int((now - since) * 1000)

    def _volume_there(self, snapshot: Snapshot, name: str) -> Volume:
        claim = snapshot.find(CLAIM, snapshot.subject.claim(name))
        return Volume.ABSENT if claim is None else Volume.PRESENT

    async def _source(self, snapshot: Snapshot) -> Source:
        """Who serves the backup that the cluster begins from; it must be of the genesis named."""
        wanted = snapshot.subject.cluster.spec.restore
        if wanted is None:
            return Source.ABSENT
        name = snapshot.subject.restore_name
        pod = snapshot.find(POD, name)
        self.problems.pop(name, None)
        if pod is None or snapshot.find(SERVICE, name) is None or is_going(pod):
            return Source.ABSENT
        if self._keeper.origin is not None or self._keeper.signed is not None:
            return Source.SERVING
        address = pod.get("status", {}).get("podIP")
        try:
            async with self._http.get(
                f"http://{address}:{SERVE_PORT}/origin", timeout=TIMEOUT
            ) as response:
                found = _decode_origin(await response.content.read(REASON_BYTES_MAX))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, msgspec.DecodeError):
            ended = last_words(pod)
            if ended:
                self.problems[name] = f"{name} can not serve the backup: {ended}"
            return Source.STARTING
        if found.genesis.hex() != wanted.genesis_hash:
            self.problems[name] = f"{name} serves a backup of another cluster than was asked for"
            return Source.STARTING
        self._keeper.origin = msgspec.structs.replace(found, loss=wanted.accepted_loss)
        return Source.SERVING

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
            endpoint=snapshot.subject.client_url(name),
            attempts=1 if self._must_wait(snapshot, name) else 0,
            identity=identity,
            genesis=genesis,
            report=report,
            zone=_zone(snapshot, name, pod),
            **_of_pod(pod, running=running),
            **_of_claim(snapshot.find(CLAIM, snapshot.subject.claim(name)), pod),
        )

    async def _why_not(self, snapshot: Snapshot, name: str) -> str | None:
        """What a member says of itself, as a clause; None when it does not answer at all."""
        url = self._url(snapshot, name)
        try:
            # unverified TLS: this is shown, and nothing is decided on it
            async with self._http.get(f"{url}/readyz", timeout=TIMEOUT, ssl=False) as response:
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
            record = signed.record if self._keeper.chain is None else self._keeper.chain.current
            known_key = _key_in(record, name)
            report = await probe.report(signed.record, utc_now(), record)
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


def _key_in(record: EpochRecord, name: str) -> bytes | None:
    return next((m.identity for m in record.members if m.name == name), None)


def _learnt(said: Mapping[str, object]) -> Report | None:
    """What a learner's signed status says, as far as a change needs it."""
    final, applied, epoch = (said.get(k) for k in ("finalIndex", "appliedIndex", "epoch"))
    if not (isinstance(final, int) and isinstance(applied, int) and isinstance(epoch, int)):
        return None
    return Report(
        epoch=epoch, view=0, active=False, primary="", mode="", role="learner",
        final_index=final, applied_index=applied, stable_checkpoint=0, stable_state="",
        ready=False, mute=None, evidence=(), seen_at=utc_now(),
    )  # fmt: skip


class _OfPod(TypedDict):
    revision: str
    serving: bool
    unready_for_ms: int
    steady_for_ms: int


class _OfClaim(TypedDict):
    volume_bytes: int
    growing: bool
    needs_restart: bool
    storage_class: str | None


def _of_pod(pod: Mapping[str, Any] | None, *, running: bool) -> _OfPod:
    """What the API server knows of a member's Pod; one that is going away is none that runs."""
    metadata = (pod or {}).get("metadata", {})
    if pod is None or not running:
        gone_ms = _age_ms(metadata.get("deletionTimestamp"))
        return {
            "revision": "",
            "serving": False,
            "unready_for_ms": gone_ms,
            "steady_for_ms": 0,
        }
    ready = _condition(pod, "Ready")
    serving = ready is not None and ready["status"] == "True"
    since = (ready or {}).get("lastTransitionTime") or metadata.get("creationTimestamp")
    return {
        "revision": metadata.get("annotations", {}).get(SPEC_HASH, ""),
        "serving": serving,
        "unready_for_ms": 0 if serving else _age_ms(since),
        "steady_for_ms": _age_ms(since) if serving else 0,
    }


def _of_claim(claim: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> _OfClaim:
    """How large a volume is to be, whether it is, and whether it waits for a restart."""
    asked = _storage((claim or {}).get("spec", {}).get("resources", {}).get("requests"))
    holds = _storage((claim or {}).get("status", {}).get("capacity"))
    pending = _condition(claim or {}, "FileSystemResizePending")
    made_ms = _age_ms((pod or {}).get("metadata", {}).get("creationTimestamp"))
    waits = pending is not None and pending["status"] == "True"
    return {
        "volume_bytes": asked,
        "growing": 0 < holds < asked,
        "storage_class": (claim or {}).get("spec", {}).get("storageClassName"),
        # A Pod that was made after the volume began to wait is the restart it waited for.
        "needs_restart": waits and _age_ms((pending or {}).get("lastTransitionTime")) < made_ms,
    }


def _storage(amounts: Mapping[str, Any] | None) -> int:
    return size_bytes(str((amounts or {}).get("storage", ""))) or 0


def _condition(found: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    conditions: list[Mapping[str, Any]] = found.get("status", {}).get("conditions") or []
    return next((c for c in conditions if c["type"] == kind), None)


def _age_ms(since: str | None) -> int:
    """Milliseconds since a time of the API server's; 0 when it is not known or in the future."""
    if since is None:
        return 0
    age = datetime.now(UTC) - datetime.fromisoformat(since)
    return max(0, int(age.total_seconds() * 1000))


def _zone(snapshot: Snapshot, name: str, pod: Mapping[str, Any] | None) -> str | None:
    """The site that the member is dealt to, or its node's zone where Pods bear that label."""
    site = snapshot.subject.cluster.spec.placement.site(name)
    if site is not None:
        return site.name
    labels: Mapping[str, str] = (pod or {}).get("metadata", {}).get("labels", {})
    return labels.get(ZONE_LABEL)
