"""The operator's own endpoints: /healthz, /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from dwcp_operator.act.metrics import CONTENT_TYPE, OperatorMetrics

AGE_S_MAX: Final = 120.0
"""Rounds are bounded by the time-outs of their requests: an older one will never end."""
CONTACT_S_MAX: Final = 30.0


@dataclass(frozen=True, slots=True)
class Health:
    """What is so now: ages in seconds; `age_s` is None while this process only stands by."""

    leads: bool
    age_s: float | None
    contact_age_s: float

    def problem(self) -> str | None:
        """Why the process should be started again; an API server that is away is no reason."""
        if self.age_s is not None and self.age_s > AGE_S_MAX:
            return f"a cluster's last round ended {self.age_s:.0f} s ago"
        return None

    def hindrance(self) -> str | None:
        """Why it can not do its work now."""
        if self.contact_age_s > CONTACT_S_MAX:
            return f"no word from the API server for {self.contact_age_s:.0f} s"
        return self.problem()


class HealthServer:
    """Serves the three endpoints on one port."""

    def __init__(self, look: Callable[[], Health], metrics: OperatorMetrics) -> None:
        self._look = look
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(
            app, handle_signals=False, access_log=None, shutdown_timeout=0.5
        )

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError when the address can not be bound."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        health = self._look()
        return _answer(health, health.problem())

    async def _readyz(self, _request: web.Request) -> web.Response:
        health = self._look()
        return _answer(health, health.hindrance())

    async def _render(self, _request: web.Request) -> web.Response:
        health = self._look()
        self._metrics.leads.set(health.leads)
        self._metrics.age.set(health.age_s or 0.0)
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})


def _answer(health: Health, problem: str | None) -> web.Response:
    age = None if health.age_s is None else round(health.age_s, 1)
    body = {
        "status": "ok" if problem is None else problem,
        "leader": health.leads,
        "lastReconcileAgeS": age,
    }
    return web.json_response(body, status=200 if problem is None else 503)
