"""Leader election: a Lease in Kubernetes says which of several operators acts.

Two rules keep two operators from acting at once:

- A holder believes in its lease for HOLD_S after it *sent* the last renewal that succeeded, by
  its own monotonic clock, and asks `require` before every action. Another takes the lease only
  after it has seen it unchanged for DURATION_S, by its own clock. Nobody compares clocks of two
  machines. An action that begins in time has DURATION_S - HOLD_S to arrive.
- Every write of the Lease names the resourceVersion that was read: of two that take it at once,
  one is refused.

A holder that can not renew ends its process: it may have lost the lease without knowing, and
what it has planned may be old. Started again, it waits for the API server and the lease anew.
(kubernetes.aio.leaderelection goes on after a loss, which is why this one exists.)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from dwcp_operator.act.api import LEASE, ApiError, KubeApi
from dwcp_operator.build.names import Object

DURATION_S: Final = 15
HOLD_S: Final = 10.0
RENEW_EVERY_S: Final = 2.0

_log = logging.getLogger(__name__)


class LeaseLostError(Exception):
    """This process may no longer act: it must end."""


class Elector:
    """Takes and keeps one Lease. `identity` names this process among all that may ask for it.

    A process that is started again in the same container may use the same identity: the one
    before it has ended.
    """

    def __init__(self, api: KubeApi, namespace: str, name: str, identity: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._lease: Object | None = None
        self._seen: tuple[str, float] | None = None
        self._valid_until = 0.0
        self.contact_at = time.monotonic()
        """When the API server last answered, by the monotonic clock."""

    @property
    def held(self) -> bool:
        """True while this process may act."""
        return self._lease is not None and time.monotonic() < self._valid_until

    def require(self) -> None:
        """Return while this process may act; raises LeaseLostError when it may not."""
        if not self.held:
            raise LeaseLostError("the lease was not renewed in time: another operator may act")

    async def acquire(self) -> None:
        """Wait until the lease is ours. An API server that is away is waited for."""
        told = ""
        while True:
            try:
                if await self._try():
                    _log.info("lease-acquired", extra={"holder": self._identity})
                    return
                told = ""
            except ApiError as error:
                if str(error) != told:
                    told = str(error)
                    _log.warning("lease-wait", extra={"detail": told})
            await asyncio.sleep(RENEW_EVERY_S)

    async def hold(self) -> None:
        """Renew for ever. Raises LeaseLostError."""
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await self._renew()
            except ApiError as error:
                _log.warning("lease-renewal-failed", extra={"detail": str(error)})
            self.require()

    async def release(self) -> None:
        """Give the lease back, so that another need not wait for it to run out."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._api.replace(lease)
        except ApiError as error:
            _log.warning("lease-not-released", extra={"detail": str(error)})

    async def _try(self) -> bool:
        found = await self._api.get(LEASE, self._namespace, self._name)
        sent = self.contact_at = time.monotonic()
        if found is None:
            body = self._body(transitions=0)
            return await self._write(self._api.create(body), sent)
        if not self._is_free(found):
            return False
        spec = found.get("spec", {})
        body = self._body(transitions=spec.get("leaseTransitions", 0) + 1)
        body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        return await self._write(self._api.replace(body), sent)

    async def _write(self, request: Coroutine[Any, Any, Object], sent: float) -> bool:
        try:
            self._lease = await request
        except ApiError as error:
            if error.is_conflict:  # somebody else was quicker
                return False
            raise
        self._valid_until = sent + HOLD_S
        return True

    def _is_free(self, found: Mapping[str, Any]) -> bool:
        """True when nobody holds it, we did before, or its holder was silent for its duration."""
        spec = found.get("spec", {})
        if spec.get("holderIdentity", "") in ("", self._identity):
            return True
        version, now = found["metadata"]["resourceVersion"], time.monotonic()
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] >= float(spec.get("leaseDurationSeconds", DURATION_S))

    async def _renew(self) -> None:
        assert self._lease is not None, "renewed after it was acquired"
        sent = time.monotonic()
        body = {**self._lease, "spec": {**self._lease["spec"], "renewTime": _now()}}
        try:
            self._lease = await self._api.replace(body)
        except ApiError as error:
            if not error.is_conflict:
                raise
            # Our own write whose answer was lost, or another holder: the server knows.
            found = await self._api.get(LEASE, self._namespace, self._name)
            holder = (found or {}).get("spec", {}).get("holderIdentity")
            if holder != self._identity:
                self._valid_until = 0.0
                raise LeaseLostError(f"the lease is held by {holder or 'nobody'}") from None
            self._lease = found
            return
        self._valid_until, self.contact_at = sent + HOLD_S, time.monotonic()

    def _body(self, *, transitions: int) -> Object:
        now = _now()
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": DURATION_S,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
