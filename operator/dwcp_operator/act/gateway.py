"""Carries out what plan/gateway.py asks for: the gateways' certificates, Deployment and Service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from typing import Final

from dwcp_operator.access import Gateway, GatewayStatus
from dwcp_operator.act.api import BUDGET, DEPLOYMENT, SECRET, SERVICE, Kind
from dwcp_operator.act.authority import Authority, authority, renewed, utc
from dwcp_operator.act.events import EventReason, Events
from dwcp_operator.act.keeper import KeeperError
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.act.writer import Writer
from dwcp_operator.build import gateway as build
from dwcp_operator.build import secrets
from dwcp_operator.build.names import Subject
from dwcp_operator.build.pod import PodSettings
from dwcp_operator.plan.gateway import EnsurePart, GatewayWanted, Part, RemovePart, plan_gateway

NEEDED: Final = (secrets.CERTIFICATE, secrets.PRIVATE_KEY, secrets.AUTHORITY)


def places(subject: Subject, part: Part) -> tuple[tuple[Kind, str], ...]:
    """The objects that a part is."""
    name = subject.gateway_name
    match part:
        case Part.AUTHORITY:
            return ((SECRET, subject.gateway_secret("ca")),)
        case Part.CERTIFICATES:
            both = ("tls", "client")
            return tuple((SECRET, subject.gateway_secret(what)) for what in both)
        case Part.SERVICE:
            return ((SERVICE, name),)
        case Part.DEPLOYMENT:
            return ((DEPLOYMENT, name),)
        case Part.BUDGET:
            return ((BUDGET, name),)


def parts_there(snapshot: Snapshot) -> frozenset[Part]:
    """The parts of which anything is there."""
    subject = snapshot.subject
    return frozenset(p for p in Part if any(snapshot.find(*o) for o in places(subject, p)))


def wanted(snapshot: Snapshot, *, published: bool) -> GatewayWanted | None:
    """What the resource asks for."""
    asked = snapshot.subject.cluster.spec.gateway
    if asked is None:
        return None
    return GatewayWanted(asked.replicas, asked.tls.secret_name is None, published)


def gateway_status(snapshot: Snapshot) -> GatewayStatus | None:
    """How many run, as their Deployment says."""
    if snapshot.subject.cluster.spec.gateway is None:
        return None
    found = snapshot.find(DEPLOYMENT, snapshot.subject.gateway_name) or {}
    said = found.get("status", {})
    return GatewayStatus(
        endpoint=build.endpoint(snapshot.subject),
        replicas=said.get("replicas", 0),
        ready=said.get("readyReplicas", 0),
    )


class Gateways:
    """Keeps one cluster's gateways; `now` is the time by which certificates are renewed."""

    def __init__(
        self, writer: Writer, events: Events, settings: PodSettings,
        now: Callable[[], datetime] = utc,
    ) -> None:  # fmt: skip
        self._writer = writer
        self._events = events
        self._settings = settings
        self._now = now
        self._by: Authority | None = None

    def actions(self, snapshot: Snapshot, *, published: bool) -> Iterator[Awaitable[None]]:
        """What is due; each may raise ApiError, TakenError or KeeperError."""
        steps = plan_gateway(wanted(snapshot, published=published), parts_there(snapshot))
        for step in steps:
            match step:
                case EnsurePart(part):
                    yield self._ensure(snapshot, part)
                case RemovePart(part):
                    yield self._remove(snapshot, part)

    async def _ensure(self, snapshot: Snapshot, part: Part) -> None:
        subject = snapshot.subject
        asked = subject.cluster.spec.gateway
        assert asked is not None, "gateways are asked for"
        match part:
            case Part.AUTHORITY:
                await self._authority(snapshot)
            case Part.CERTIFICATES:
                await self._certificates(snapshot, asked)
            case Part.SERVICE:
                await self._writer.ensure(snapshot, build.service(subject))
            case Part.DEPLOYMENT:
                await self._deployment(snapshot, asked)
            case Part.BUDGET:
                await self._writer.ensure(snapshot, build.disruption_budget(subject))

    async def _remove(self, snapshot: Snapshot, part: Part) -> None:
        for kind, name in places(snapshot.subject, part):
            if (found := snapshot.find(kind, name)) is not None:
                await self._writer.delete(found)
        if part is Part.DEPLOYMENT:
            note = "the gateways are removed: spec.gateway does not ask for them"
            await self._events.post(snapshot.subject, EventReason.GATEWAY_REMOVED, note)

    async def _deployment(self, snapshot: Snapshot, asked: Gateway) -> None:
        subject, name = snapshot.subject, asked.tls.secret_name
        if name is not None:
            check_given(snapshot, name, "spec.gateway.tls", NEEDED)
        is_new = snapshot.find(DEPLOYMENT, subject.gateway_name) is None
        await self._writer.ensure(snapshot, build.deployment(subject, asked, self._settings))
        if is_new:
            note = f"{asked.replicas} gateways are made: {build.endpoint(subject)}"
            await self._events.post(subject, EventReason.GATEWAY_MADE, note)

    # --- certificates ----------------------------------------------------------------------------

    async def _authority(self, snapshot: Snapshot) -> None:
        subject = snapshot.subject
        old = _authority_of(snapshot)
        self._by = None
        new = authority(old, f"{subject.namespace}/{subject.gateway_name}", self._now())
        if new is not old:
            name = subject.gateway_secret("ca")
            await self._writer.ensure(snapshot, secrets.authority(subject, name, new.data()))
        self._by = new  # only what is kept vouches for anything

    async def _certificates(self, snapshot: Snapshot, asked: Gateway) -> None:
        """What gateways show, and what their users do."""
        by = self._by
        if by is None:
            return
        subject = snapshot.subject
        user = asked.client or subject.cluster.spec.clients[0]
        for what, name, hosts in (
            ("tls", subject.gateway_name, build.names(subject)),
            ("client", user, ()),
        ):
            secret = subject.gateway_secret(what)
            found = snapshot.find(SECRET, secret)
            data = None if found is None else secrets.data_of(found)
            made = renewed(data, by, name, hosts, self._now())
            if made is not None:
                await self._writer.ensure(snapshot, secrets.certificate(subject, secret, made))
                note = f"a certificate is made: Secret {secret}"
                await self._events.post(subject, EventReason.CERTIFICATE_MADE, note)


def _authority_of(snapshot: Snapshot) -> Authority | None:
    """The authority that is kept. Raises KeeperError when its Secret is damaged."""
    name = snapshot.subject.gateway_secret("ca")
    found = snapshot.find(SECRET, name)
    if found is None:
        return None
    try:
        return Authority.load(secrets.data_of(found))
    except (ValueError, TypeError) as error:
        raise KeeperError(
            f"the Secret {name} with the gateways' authority is damaged ({error}): "
            "restore it, or delete it so that another is made"
        ) from None


def check_given(
    snapshot: Snapshot, name: str, field: str, keys: tuple[str, ...]
) -> dict[str, bytes]:
    """What a Secret of the user's holds. Raises KeeperError when it lacks something."""
    found = snapshot.given.get(name)
    if found is None:
        raise KeeperError(f"the Secret {name}, which {field} names, is missing: make it")
    data = secrets.data_of(found)
    lacking = [key for key in keys if not data.get(key)]
    if lacking:
        raise KeeperError(
            f"the Secret {name}, which {field} names, has no {' and no '.join(lacking)}: "
            "it must be in the shape of cert-manager"
        )
    return data
