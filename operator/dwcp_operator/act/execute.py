"""Carries out one round of the planner's steps on Kubernetes."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from dataclasses import dataclass

from dwcp_operator.act.access import AccessActor
from dwcp_operator.act.api import CLAIM, POD, SECRET, SERVICE, ApiError
from dwcp_operator.act.clients import client_extras, refresh_clients
from dwcp_operator.act.events import EventReason, Events
from dwcp_operator.act.extras import Extras
from dwcp_operator.act.gateway import Gateways
from dwcp_operator.act.keeper import GenesisKeeper, KeeperError
from dwcp_operator.act.members import MemberChanger
from dwcp_operator.act.metrics import OperatorMetrics
from dwcp_operator.act.observe import Observer, has_ended, is_going
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.act.writer import TakenError, Writer
from dwcp_operator.build import backup, budget, network, storage
from dwcp_operator.build.names import Object, Subject
from dwcp_operator.build.pod import PodSettings, mounts_token, pod
from dwcp_operator.conditions import Situation
from dwcp_operator.granting import AccessError
from dwcp_operator.local.probe import DeliveryRefusedError, ProbeError
from dwcp_operator.plan.change import wanted_change
from dwcp_operator.plan.quorum import quorum
from dwcp_operator.plan.steps import (
    AdoptGenesis,
    AnnounceMembers,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    DropBackup,
    EnsureKeys,
    GrowVolume,
    InviteMember,
    OrderMembers,
    RemoveMember,
    RollMember,
    ServeBackup,
    StartMember,
    Step,
    StopMember,
)
from dwcp_operator.upgrade import Rollout, roll_reason

ACTS = (
    EnsureKeys,
    CreateVolume,
    StartMember,
    CreateGenesis,
    AdoptGenesis,
    DeliverGenesis,
    CompleteGenesis,
    RollMember,
    StopMember,
    GrowVolume,
    ServeBackup,
    DropBackup,
    InviteMember,
    AnnounceMembers,
    OrderMembers,
    RemoveMember,
)
"""Steps that change something; the others are waits and reports."""

FAILURES = (AccessError, ApiError, KeeperError, TakenError, ProbeError, DeliveryRefusedError)
"""What may keep one step from being done; the next round tries again."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator, not the user, decides of all clusters."""

    pod: PodSettings
    access_mode: storage.AccessMode = "ReadWriteOnce"


class Executor:
    """Acts for one cluster. `failures` says what did not work in the last round, and why."""

    def __init__(
        self,
        writer: Writer,
        keeper: GenesisKeeper,
        observer: Observer,
        events: Events,
        metrics: OperatorMetrics,
        settings: Settings,
    ) -> None:
        self._writer = writer
        self._keeper = keeper
        self._observer = observer
        self._events = events
        self._metrics = metrics
        self._settings = settings
        self._extras = Extras(writer, events)
        self._gateways = Gateways(writer, events, settings.pod)
        self._changer = MemberChanger(keeper, observer)
        self.access = AccessActor(keeper, events)
        self._out: Rollout | None = None
        self._seen: Situation | None = None
        self.failures: dict[str, str] = {}

    async def round(
        self, snapshot: Snapshot, seen: Situation, out: Rollout, ready_but_faulty: int
    ) -> None:
        """Make what surrounds the members as it must be, then do each step, then tidy up.

        `snapshot` was read in this round. Raises LeaseLostError.
        """
        self.failures, self._out, self._seen = {}, out, seen
        for body in _surroundings(snapshot.subject, ready_but_faulty):
            await self._try(f"{body['kind']}", self._writer.ensure(snapshot, body))
        for action in self._extras.actions(snapshot):
            await self._try("monitoring", action)
        for step in seen.steps:
            if isinstance(step, ACTS):
                name = type(step).__name__
                member = getattr(step, "member", None)
                if await self._try(
                    f"{name} {member}" if member else name, self._do(snapshot, step)
                ):
                    self._metrics.steps.labels(name).inc()
        for action in self._gateways.actions(snapshot, published=self._keeper.published):
            await self._try("gateway", action)
        refresh = refresh_clients(snapshot, self._keeper, self._writer)
        await self._try("clients' Secrets", refresh)
        votes = len(seen.good) >= quorum(seen.n) and not seen.desired.hibernate
        await self._try("access", self.access.round(snapshot, votes=votes))
        await self._reclaim(snapshot)
        await self._drop_tokens(snapshot)

    async def _try(self, what: str, action: Awaitable[None]) -> bool:
        try:
            await action
        except FAILURES as error:
            self.failures[what] = f"{what}: {error}"
            return False
        return True

    async def _do(self, snapshot: Snapshot, step: Step) -> None:
        subject, post = snapshot.subject, self._events.post
        match step:
            case EnsureKeys():
                await self._keeper.ensure_keys(snapshot, self._writer)
                await post(subject, EventReason.KEYS_CREATED, "keys and one-time tokens are made")
            case CreateVolume(member):
                body = storage.claim(subject, member, self._settings.access_mode)
                await self._writer.create(body)
                note = f"volume {body['metadata']['name']} of {member} is made"
                await post(subject, EventReason.VOLUME_CREATED, note)
            case StartMember(member):
                await self._start(snapshot, member)
            case CreateGenesis() | AdoptGenesis() | DeliverGenesis():
                await self._agree(snapshot, step)
            case ServeBackup():
                await self._serve(snapshot)
            case DropBackup():
                await self._drop(snapshot)
            case InviteMember() | AnnounceMembers() | OrderMembers() | RemoveMember():
                await self._change(snapshot, step)
            case CompleteGenesis():
                extras = client_extras(snapshot, self._keeper)
                await self._keeper.publish(snapshot, self._writer, extras)
                first = subject.client_secret(subject.cluster.spec.clients[0])
                note = f"all {len(subject.members)} members signed; clients mount Secret {first}"
                await post(subject, EventReason.GENESIS_PUBLISHED, note)
            case RollMember(member):
                await self._roll(snapshot, member)
            case StopMember(member):
                await self._stop(snapshot, member)
            case GrowVolume(member):
                await self._grow(snapshot, member)
            case _:
                raise AssertionError(f"{step} acts on nothing")

    async def _agree(
        self, snapshot: Snapshot, step: CreateGenesis | AdoptGenesis | DeliverGenesis
    ) -> None:
        """Steps towards a genesis that all have signed."""
        match step:
            case CreateGenesis():
                await self._keeper.create(snapshot, self._observer.identities, self._writer)
                note = f"genesis record made, cluster id {snapshot.subject.cluster_id}"
                await self._events.post(snapshot.subject, EventReason.GENESIS_CREATED, note)
            case AdoptGenesis(member):
                await self._adopt(snapshot, member)
            case DeliverGenesis(member):
                await self._deliver(snapshot, member)

    @property
    def _rollout(self) -> Rollout:
        assert self._out is not None, "steps are done in a round"
        return self._out

    async def _start(self, snapshot: Snapshot, member: str) -> None:
        """Make the member's Pod; one that has ended is removed first, and made anew later."""
        subject, found = snapshot.subject, snapshot.find(POD, member)
        if found is not None:
            if has_ended(found) and not is_going(found):
                await self._writer.delete(found)
            return
        with_token = not self._keeper.published or member in subject.joining
        if with_token and snapshot.find(SECRET, subject.token_secret(member)) is None:
            await self._keeper.make_token(subject, member, self._writer)
        template = self._rollout.template
        body = pod(subject, member, self._settings.pod, template, with_token=with_token)
        await self._writer.create(body)
        note = f"Pod {member} is made"
        await self._events.post(subject, EventReason.MEMBER_STARTED, note)

    async def _roll(self, snapshot: Snapshot, member: str) -> None:
        """Evict the member's Pod, once the API server would take the one that is to follow it."""
        subject, found = snapshot.subject, snapshot.find(POD, member)
        if found is None or is_going(found):
            return
        template = self._rollout.template
        body = pod(subject, member, self._settings.pod, template, with_token=False)
        body["metadata"]["name"] = f"{member}-trial"
        try:
            await self._writer.try_out(body)
        except ApiError as error:
            if "exceeded quota" not in str(error):
                raise  # the one that is evicted makes room for the one that follows
        assert self._seen is not None, "steps are done in a round"
        reason = roll_reason(self._rollout, self._seen.observed.member(member))
        await self._writer.evict(found)
        self._metrics.rolls.labels(str(reason)).inc()
        note = (
            f"{member} is restarted: {reason}, revision {template.revision}; "
            f"{self._seen.agreed.primary or 'nobody'} leads"
        )
        await self._events.post(subject, EventReason.MEMBER_ROLLED, note)

    async def _stop(self, snapshot: Snapshot, member: str) -> None:
        found = snapshot.find(POD, member)
        if found is not None and not is_going(found):
            await self._writer.delete(found)
            note = f"{member} is stopped: spec.hibernate"
            await self._events.post(snapshot.subject, EventReason.MEMBER_STOPPED, note)

    async def _grow(self, snapshot: Snapshot, member: str) -> None:
        found = snapshot.find(CLAIM, snapshot.subject.claim(member))
        if found is not None:
            await self._writer.merge(found, storage.growth_patch(snapshot.subject, found))
            size = snapshot.subject.cluster.spec.storage.size
            note = f"volume {found['metadata']['name']} of {member} is to grow to {size}"
            await self._events.post(snapshot.subject, EventReason.VOLUME_GROWN, note)

    async def _change(
        self,
        snapshot: Snapshot,
        step: InviteMember | AnnounceMembers | OrderMembers | RemoveMember,
    ) -> None:
        """Steps towards other members (docs/members.md)."""
        subject, post = snapshot.subject, self._events.post
        match step:
            case InviteMember(member):
                await self._changer.invite(snapshot, member)
                note = f"{member} is invited, and learns what the members hold"
                await post(subject, EventReason.MEMBER_INVITED, note)
            case AnnounceMembers(members):
                await self._changer.tell(snapshot, "/dwcp/v1/learners", members)
            case OrderMembers(members):
                await self._changer.tell(snapshot, "/dwcp/v1/orders", members)
                note = f"the members are to be {', '.join(members)}{self._why_change()}"
                await post(subject, EventReason.MEMBERS_ORDERED, note)
            case RemoveMember(member):
                found = snapshot.find(POD, member)
                if found is not None and not is_going(found):
                    await self._writer.delete(found)
                    note = f"{member} is no member: its Pod is removed, its volume stays"
                    await post(subject, EventReason.MEMBER_REMOVED, note)

    def _why_change(self) -> str:
        """Who leaves and why, as clauses."""
        assert self._seen is not None, "steps are done in a round"
        wanted = wanted_change(self._seen.desired, self._seen.observed)
        going = wanted.leaving if wanted is not None else {}
        return "".join(f"; {name} leaves: {why}" for name, why in going.items())

    async def _serve(self, snapshot: Snapshot) -> None:
        """Make what serves the backup; members that come later get their state from the others."""
        subject = snapshot.subject
        if snapshot.find(SERVICE, subject.restore_name) is None:
            await self._writer.create(backup.restore_service(subject))
        if snapshot.find(POD, subject.restore_name) is None:
            await self._writer.create(backup.restore_pod(subject, self._settings.pod))

    async def _drop(self, snapshot: Snapshot) -> None:
        """Remove the Pod; the Service leads nowhere then, and goes with the resource."""
        found = snapshot.find(POD, snapshot.subject.restore_name)
        if found is not None and not is_going(found):
            await self._writer.delete(found)
            note = "every member has taken its state from the backup"
            await self._events.post(snapshot.subject, EventReason.RESTORED, note)

    async def _adopt(self, snapshot: Snapshot, member: str) -> None:
        probe = self._observer.probe(snapshot, member)
        found = await probe.genesis() if probe is not None else None
        if found is not None:
            await self._keeper.adopt(snapshot, found, self._writer)
            note = f"genesis taken over from {member}"
            await self._events.post(snapshot.subject, EventReason.GENESIS_ADOPTED, note)

    async def _deliver(self, snapshot: Snapshot, member: str) -> None:
        signed = self._keeper.signed
        assert signed is not None, "the record is kept before it is delivered"
        probe = self._observer.probe(snapshot, member)
        if probe is not None:
            token = self._keeper.token(snapshot, member)
            self._keeper.collect(await probe.deliver(signed, token))

    async def _reclaim(self, snapshot: Snapshot) -> None:
        """Volumes, and the keys without which they are useless, follow spec.storage.reclaim."""
        for found in _reclaimed(snapshot):
            patch = storage.reclaim_patch(snapshot.subject, found)
            if patch is not None:
                what = f"reclaim of {found['metadata']['name']}"
                await self._try(what, self._writer.merge(found, patch))

    async def _drop_tokens(self, snapshot: Snapshot) -> None:
        """A token has served when the genesis is published and no Pod mounts it any more."""
        if not self._keeper.published:
            return
        for member in snapshot.subject.members:  # who is to join still needs its own
            token = snapshot.find(SECRET, snapshot.subject.token_secret(member))
            running = snapshot.find(POD, member)
            if token is not None and running is not None and not mounts_token(running):
                await self._try(f"token of {member}", self._writer.delete(token))


def _surroundings(subject: Subject, ready_but_faulty: int) -> Iterator[Object]:
    yield network.account(subject)
    yield network.members_service(subject)
    yield network.client_service(subject)
    yield network.network_policy(subject)
    yield budget.disruption_budget(subject, ready_but_faulty)


def _reclaimed(snapshot: Snapshot) -> Iterator[Object]:
    subject = snapshot.subject
    keys = [(SECRET, subject.admin_secret), (SECRET, subject.client_keys_secret)]
    for kind, name in [*keys, *((CLAIM, subject.claim(m)) for m in subject.everyone)]:
        found = snapshot.find(kind, name)
        if found is not None and not is_going(found):
            yield found
