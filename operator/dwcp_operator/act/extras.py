"""Objects for monitoring: made when they are asked for and their API is there, else removed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Iterator
from typing import Final

from dwcp_operator.act.api import CONFIG_MAP, POD_MONITOR, PROMETHEUS_RULE, Kind
from dwcp_operator.act.events import EventReason, Events
from dwcp_operator.act.snapshot import Snapshot, extra_objects, gateway_objects
from dwcp_operator.act.writer import Writer
from dwcp_operator.build import monitoring
from dwcp_operator.build.names import Object, Subject

ASK_AGAIN_S: Final = 300.0
"""An API that was not there is asked for again after so long."""


def has_extras(snapshot: Snapshot) -> bool:
    """True when there are objects for monitoring, or of gateways, asked for or not."""
    places = extra_objects(snapshot.subject, only_asked=False)
    places += gateway_objects(snapshot.subject, only_asked=False)
    return any(snapshot.find(kind, name) is not None for kind, name in places)


class Extras:
    """Keeps one cluster's objects for monitoring; remembers which API was not there."""

    def __init__(self, writer: Writer, events: Events) -> None:
        self._writer = writer
        self._events = events
        self._absent: dict[Kind, float] = {}

    def actions(self, snapshot: Snapshot) -> Iterator[Awaitable[None]]:
        """What is to be done now; each may raise ApiError or TakenError."""
        subject = snapshot.subject
        asked = extra_objects(subject, only_asked=True)
        for kind, name in extra_objects(subject, only_asked=False):
            found = snapshot.find(kind, name)
            if (kind, name) in asked:
                yield self._ensure(snapshot, kind, _body(subject, kind))
            elif found is not None:
                yield self._writer.delete(found)

    async def _ensure(self, snapshot: Snapshot, kind: Kind, body: Object) -> None:
        since = self._absent.get(kind)
        if since is not None and time.monotonic() - since < ASK_AGAIN_S:
            return
        if kind != CONFIG_MAP and snapshot.find(kind, body["metadata"]["name"]) is None:
            if not await self._writer.serves(kind):
                if since is None:
                    note = (
                        f"no {kind.kind} is made: the API server does not know "
                        f"{kind.api_version}; install the Prometheus operator"
                    )
                    await self._events.post(
                        snapshot.subject, EventReason.MONITORING_ABSENT, note, kind="Warning"
                    )
                self._absent[kind] = time.monotonic()
                return
            self._absent.pop(kind, None)
        await self._writer.ensure(snapshot, body)


def _body(subject: Subject, kind: Kind) -> Object:
    build = {
        POD_MONITOR: monitoring.pod_monitor,
        PROMETHEUS_RULE: monitoring.prometheus_rule,
        CONFIG_MAP: monitoring.dashboard,
    }
    return build[kind](subject)
