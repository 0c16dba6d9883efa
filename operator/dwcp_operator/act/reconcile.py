"""One cluster, level-triggered: read everything, look, plan, do what is safe now, write status.

Reading everything from the API server costs it some twenty requests, so a round does it only
when something has happened, and every RESYNC_S, or RESYNC_SETTLED_S where nothing is to be done.
Between, a round asks only the members, with what was read last. It never acts on that: a round
that has something to do reads everything first and plans again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import aiohttp

from dwcp.client import Client
from dwcp_operator.access import AccessStatus
from dwcp_operator.act.api import CLAIM, CLUSTER, POD, ApiError, KubeApi
from dwcp_operator.act.clients import client_of
from dwcp_operator.act.events import EventReason, Events, restart_reason
from dwcp_operator.act.execute import ACTS, Executor, Settings
from dwcp_operator.act.extras import has_extras
from dwcp_operator.act.gateway import gateway_status
from dwcp_operator.act.keeper import GenesisKeeper, KeeperError
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.observe import Observer, utc_now
from dwcp_operator.act.snapshot import Snapshot, UnreadableError, read
from dwcp_operator.act.steady import Steadiness
from dwcp_operator.act.transitions import transitions
from dwcp_operator.act.writer import Writer
from dwcp_operator.agreed import AgreedSettings
from dwcp_operator.build.names import Object
from dwcp_operator.conditions import Situation, situation
from dwcp_operator.granting import administrator
from dwcp_operator.late import failing_since, with_failing
from dwcp_operator.plan.change import wanted_change
from dwcp_operator.plan.planner import plan
from dwcp_operator.plan.quorum import quorum
from dwcp_operator.plan.steps import Step, WaitFor, WaitReason
from dwcp_operator.resources import ClusterStatus, Condition, MembershipStatus
from dwcp_operator.rules import size_bytes
from dwcp_operator.status import cluster_status, is_available
from dwcp_operator.upgrade import Rollout, desired, rollout, upgrade_status

RESYNC_S: Final = 10.0
RESYNC_SETTLED_S: Final = 60.0
"""Where nothing is to be done: events tell of most changes, this finds the others."""
IDLE_S: Final = 1.0
BUSY_S: Final = 0.25
PROGRESS_S: Final = 10.0
"""Members' progress alone is written this often: it changes all the time."""
LAST_SEEN_S: Final = 60.0
"""And that they still answer, when nothing else is new, this often."""
PATIENT: Final = frozenset({WaitReason.WINDOW, WaitReason.PAUSED, WaitReason.GROWTH})
TROUBLE_ROUNDS_SHOWN: Final = 5
"""What goes wrong in this many rounds in a row is no passing conflict: it is shown."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What all clusters share."""

    api: KubeApi
    http: aiohttp.ClientSession
    writer: Writer
    events: Events
    metrics: OperatorMetrics
    settings: Settings


class Reconciler:
    """Brings one cluster to what its resource says; `round` is to be called again and again."""

    def __init__(self, tools: Tools, namespace: str, name: str) -> None:
        self._tools = tools
        self._namespace = namespace
        self._name = name
        self._keeper = GenesisKeeper()
        self._observer = Observer(self._keeper, tools.http)
        self._executor = Executor(
            tools.writer, self._keeper, self._observer, tools.events, tools.metrics, tools.settings
        )
        self._agreed = AgreedSettings(self._client, partial(_log.info, "agreed: %s"))
        self._snapshot: Snapshot | None = None
        self._read_at = 0.0
        self._stale = True
        self._progress_at = time.monotonic()
        self._restarts: dict[str, int] = {}
        self._failed_rounds = 0
        self._steady = Steadiness()
        self._in_doubt = False
        self._settled = False
        self._troubles: dict[str, int] = {}
        self._told = ""
        self._quorum_since: float | None = None

    def touch(self) -> None:
        """Something has happened: the next round reads everything."""
        self._stale = True

    async def round(self) -> float | None:
        """One round; seconds until the next, or None when the resource is gone.

        Raises ApiError when not everything could be read (nothing was done then), and
        LeaseLostError.
        """
        began = time.monotonic()
        resync_s = RESYNC_SETTLED_S if self._settled else RESYNC_S
        full = self._stale or began - self._read_at >= resync_s
        try:
            delay_s = await self._round(full=full)
        except (UnreadableError, KeeperError) as error:
            delay_s = await self._tell_trouble(error)
        finally:
            kind = "full" if full else "members"
            self._tools.metrics.rounds.labels(kind).observe(time.monotonic() - began)
        return delay_s

    async def _round(self, *, full: bool) -> float | None:
        if full and not await self._read():
            return None
        snapshot, began = self._snapshot, time.monotonic()
        assert snapshot is not None, "the first round reads"
        cluster = snapshot.subject.cluster
        out = rollout(cluster, snapshot.status())
        members = snapshot.subject.members
        wanted = desired(cluster, out, time.time_ns() // 1_000_000, members)
        watched_s = began - (self._quorum_since or began)
        looked = await self._observer.observe(snapshot)
        observed = with_failing(looked, snapshot.status(), utc_now(), watched_s)
        if observed.membership is not None and observed.membership.members != members:
            return await self._round(full=True)  # another epoch: who belongs here has changed
        steps = plan(wanted, observed)
        acts = any(isinstance(step, ACTS) for step in steps)
        if acts and not full:
            return await self._round(full=True)
        self._settled = not steps
        seen = situation(wanted, observed, steps)
        if full and not wanted.paused:
            await self._executor.round(snapshot, seen, out, _ready_but_faulty(seen))
            await self._tell_restarts(snapshot)
            self._failed_rounds = self._failed_rounds + 1 if self._executor.failures else 0
            self._stale = self._stale or acts or bool(self._executor.failures)
        documents = cluster.spec.documents
        before = snapshot.status()
        ready = self._keeper.published and before is not None and is_available(before)
        if documents is not None and ready and not wanted.paused:
            self._agreed.want(documents.settings())
        trouble = self._lasting_trouble()
        await self._tell(snapshot.raw, trouble, EventReason.ACTION_FAILED)
        await self._write(snapshot, seen, out, trouble)
        return self._delay_s(steps)

    def _delay_s(self, steps: tuple[Step, ...]) -> float:
        """Soon while there is something to do or to wait for; slower the longer it fails."""
        if self._failed_rounds:
            return float(min(BUSY_S * 2 ** min(self._failed_rounds, 6), RESYNC_S))
        if self._in_doubt:
            return BUSY_S
        return IDLE_S if all(_is_patient(step) for step in steps) else BUSY_S

    async def _read(self) -> bool:
        """Read everything; False when the resource is gone. What fails leaves nothing half-read."""
        self._stale = True
        began = time.monotonic()
        # What is no longer asked for is looked for once, and then as long as it is there.
        extras = self._snapshot is None or has_extras(self._snapshot)
        snapshot = await read(self._tools.api, self._namespace, self._name, extras=extras)
        if snapshot is None:
            return False
        if self._snapshot is not None and self._snapshot.subject.uid != snapshot.subject.uid:
            return False  # another resource of the same name: it begins without our memory
        self._keeper.refresh(snapshot)
        snapshot = replace(snapshot, subject=self._keeper.subject(snapshot))
        self._snapshot, self._read_at, self._stale = snapshot, began, False
        return True

    def _client(self) -> Client:
        assert self._snapshot is not None, "the first round reads"
        name = administrator(self._snapshot.subject.cluster.spec)
        return client_of(self._snapshot, self._keeper, name)

    # --- status ----------------------------------------------------------------------------

    async def _write(self, snapshot: Snapshot, seen: Situation, out: Rollout, trouble: str) -> None:
        """Write the status when it says something new; tell what has changed."""
        before = snapshot.status()
        access = self._executor.access.status(snapshot, before)
        after = _status(snapshot, before, seen, out, self._membership(before, seen), access)
        if before is None or before.membership != after.membership:
            self._stale = True  # what is to be made for those that join is looked up by name
        self._in_doubt = self._steady.doubts(before, after)
        if self._in_doubt:
            return
        votes = len(seen.good) >= quorum(seen.n)
        self._quorum_since = (self._quorum_since or time.monotonic()) if votes else None
        if trouble:
            after = _with_trouble(before, after, trouble)
        if before is not None and _gist(before) == _gist(after):
            pause_s = LAST_SEEN_S if _progress(before) == _progress(after) else PROGRESS_S
            if time.monotonic() - self._progress_at < pause_s:
                return
        body = {**snapshot.raw, "status": after.manifest()}
        try:
            written = await self._tools.writer.replace_status(body)
        except ApiError as error:
            if not (error.is_conflict or error.is_missing):
                raise
            self._stale = True  # the resource has changed: read it first
            return
        self._progress_at = time.monotonic()
        snapshot.raw.clear()
        snapshot.raw.update(written)
        for told in transitions(before, after):
            await self._tools.events.post(snapshot.subject, told.reason, told.note, kind=told.kind)

    def _membership(self, before: ClusterStatus | None, seen: Situation) -> MembershipStatus | None:
        """What the status is to say and to remember of the members."""
        known, chain = seen.observed.membership, self._keeper.chain
        remembered = before.membership if before is not None else None
        if known is None or chain is None or not known.is_current:
            return remembered
        change = wanted_change(seen.desired, seen.observed)
        return MembershipStatus(
            epoch=known.epoch,
            record=chain.current.hash().hex(),
            names=known.members,
            used=tuple(sorted(known.used)),
            joining=change.joining if change is not None else (),
        )

    def _lasting_trouble(self) -> str:
        """What has gone wrong for some rounds now: failing steps, members not to be believed."""
        texts = [*self._executor.failures.values(), *self._observer.problems.values()]
        texts += [self._agreed.problem] if self._agreed.problem else []
        self._troubles = {text: self._troubles.get(text, 0) + 1 for text in texts}
        lasting = (t for t, rounds in self._troubles.items() if rounds >= TROUBLE_ROUNDS_SHOWN)
        return "; ".join(lasting)

    # --- events ----------------------------------------------------------------------------

    async def _tell_restarts(self, snapshot: Snapshot) -> None:
        """Containers that ended since the last round, each with its reason."""
        seen: dict[str, int] = {}
        for member in snapshot.subject.members:
            pod = snapshot.find(POD, member)
            container = _container_status(pod)
            if pod is None or container is None:
                continue
            uid, count = pod["metadata"]["uid"], container["restartCount"]
            seen[uid] = count
            if count > self._restarts.get(uid, count):
                terminated = container.get("lastState", {}).get("terminated", {})
                reason = restart_reason(terminated)
                self._tools.metrics.restarts.labels(str(reason)).inc()
                note = (
                    f"{member}: {reason} (exit code {terminated.get('exitCode', 'unknown')}), "
                    f"started again for the {count}. time"
                )
                await self._tools.events.post(
                    snapshot.subject, EventReason.MEMBER_RESTARTED, note, kind="Warning"
                )
        self._restarts = seen

    async def _tell_trouble(self, error: Exception) -> float:
        """Keys, genesis or the resource itself can not be used: nothing is done until they can."""
        self._tools.metrics.errors.labels(type(error).__name__).inc()
        raw = await self._tools.api.get(CLUSTER, self._namespace, self._name)
        if raw is not None:
            unread = isinstance(error, UnreadableError)
            reason = EventReason.RESOURCE_UNREADABLE if unread else EventReason.ACTION_FAILED
            await self._tell(raw, str(error), reason)
            await self._show(raw, str(error), reason)
        return RESYNC_S

    async def _show(self, raw: Object, trouble: str, reason: EventReason) -> None:
        """Degraded says what is wrong; all else in the status stays as it was."""
        status = dict(raw.get("status") or {})
        conditions = [c for c in status.get("conditions", []) if c["type"] != "Degraded"]
        old = [c for c in status.get("conditions", []) if c["type"] == "Degraded"]
        same = [c for c in old if (c["status"], c["message"]) == ("True", trouble[:4096])]
        if same:
            return
        degraded = Condition(
            type="Degraded",
            status="True",
            reason=str(reason),
            message=trouble[:4096],
            observed_generation=raw["metadata"].get("generation", 0),
            last_transition_time=utc_now(),
        )
        shown = degraded.model_dump(mode="json", by_alias=True)
        body = {**raw, "status": {**status, "conditions": [*conditions, shown]}}
        try:
            await self._tools.writer.replace_status(body)
        except ApiError as refused:
            if not (refused.is_conflict or refused.is_missing):
                raise

    async def _tell(self, raw: Object, trouble: str, reason: EventReason) -> None:
        """Post what is wrong, once."""
        if trouble and trouble != self._told:
            await self._tools.events.post_on(raw, reason, trouble, kind="Warning")
        self._told = trouble


def _status(
    snapshot: Snapshot, before: ClusterStatus | None, seen: Situation, out: Rollout,
    membership: MembershipStatus | None, access: tuple[AccessStatus, ...],
) -> ClusterStatus:  # fmt: skip
    subject, generation, now = snapshot.subject, snapshot.generation, utc_now()
    if seen.desired.paused:
        # What is asked for now is not acted on: whoever compares generations must see that.
        generation = before.observed_generation if before is not None else 0
    return cluster_status(
        seen,
        generation=generation,
        cluster_id=subject.cluster_id,
        previous=before.conditions if before is not None else (),
        now=now,
        upgrade=upgrade_status(subject.cluster, out, seen),
        storage_size=_storage_size(snapshot),
        membership=membership,
        gateway=gateway_status(snapshot),
        access=access,
        failing=failing_since(seen, before, now),
        nodes={
            name: node
            for name in subject.members
            if (node := (snapshot.find(POD, name) or {}).get("spec", {}).get("nodeName"))
        },
    )


def _storage_size(snapshot: Snapshot) -> str | None:
    """The largest size that a volume has been asked to have, as its claim says it."""
    claims = (snapshot.find(CLAIM, snapshot.subject.claim(m)) for m in snapshot.subject.members)
    sizes = [c["spec"]["resources"]["requests"]["storage"] for c in claims if c is not None]
    return max(sizes, key=lambda size: size_bytes(size) or 0, default=None)


def _is_patient(step: Step) -> bool:
    """True for a wait that may last for days, of which an event tells or a clock."""
    return isinstance(step, WaitFor) and step.reason in PATIENT


def _ready_but_faulty(seen: Situation) -> int:
    """Members that Kubernetes holds for good and of which the cluster knows better."""
    return sum(1 for m in seen.observed.members if m.ready and m.name in seen.agreed.faulty)


def _container_status(pod: Object | None) -> Object | None:
    statuses: list[Any] = (pod or {}).get("status", {}).get("containerStatuses") or []
    return statuses[0] if statuses else None


def _gist(status: ClusterStatus) -> tuple[object, ...]:
    """What a status says besides members' progress."""
    members = tuple(
        (
            *(m.name, m.role, m.ready, m.view, m.node, m.zone, m.revision),
            *(m.healthy, m.suspicion),
        )
        for m in status.members
    )
    return (
        status.observed_generation, status.conditions, status.epoch, status.view, status.primary,
        status.ready, status.replicas, status.mode, status.genesis_hash, members,
        status.upgrade, status.storage_size, status.membership, status.gateway, status.access,
        status.last_switch,
    )  # fmt: skip


def _progress(status: ClusterStatus) -> tuple[object, ...]:
    return tuple((m.name, m.applied_index, m.lag, m.failing_since) for m in status.members)


def _with_trouble(
    before: ClusterStatus | None, after: ClusterStatus, trouble: str
) -> ClusterStatus:
    """Degraded says what goes wrong, besides what it says already."""
    old = next((c for c in before.conditions if c.type == "Degraded"), None) if before else None
    since = old.last_transition_time if old and old.status == "True" else utc_now()
    shown = tuple(
        _troubled(c, trouble, since) if c.type == "Degraded" else c for c in after.conditions
    )
    return after.model_copy(update={"conditions": shown})


def _troubled(condition: Condition, trouble: str, since: str) -> Condition:
    if condition.status == "True":
        message = f"{condition.message}; {trouble}"
        return condition.model_copy(update={"message": message[:4096]})
    update = {
        "status": "True",
        "reason": str(EventReason.ACTION_FAILED),
        "message": trouble[:4096],
        "last_transition_time": since,
    }
    return condition.model_copy(update=update)
