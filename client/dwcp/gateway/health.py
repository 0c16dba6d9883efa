"""Whether a gateway can serve, for its users and for whoever keeps it running.

    GET /livez    it runs: 200
    GET /readyz   a read is answered by enough replicas: 200, else 503 with the reason
    GET /metrics  what it counts

The probes have a port of their own, in plain HTTP: a kubelet shows no certificate.
"""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from dwcp import errors
from dwcp.gateway.desk import Desk
from dwcp.gateway.metrics import GatewayMetrics

HEALTH_TIMEOUT_MS: Final = 3000


async def why_unhealthy(desk: Desk, *, serializable: bool) -> str | None:
    """Why a read is not answered; None when it is. A serializable one skips the log.

    A refused one is answered too: the gateway's client may not read that key.
    """
    try:
        await desk.client.range(
            b"health", count_only=True, serializable=serializable, timeout_ms=HEALTH_TIMEOUT_MS
        )
    except errors.Refused:
        return None
    except errors.DWCPError as error:
        return str(error)
    return None


def show_metrics(desk: Desk, metrics: GatewayMetrics) -> web.Response:
    """What Prometheus scrapes."""
    metrics.look(desk.client)
    text = generate_latest(metrics.registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def probes_runner(desk: Desk, metrics: GatewayMetrics) -> web.AppRunner:
    """What aiohttp runs for the probes."""

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        reason = await why_unhealthy(desk, serializable=True)
        body = msgspec.json.encode({"ready": reason is None, "reason": reason or ""})
        status = 200 if reason is None else 503
        return web.Response(body=body, status=status, content_type="application/json")

    async def scrape(_request: web.Request) -> web.Response:
        return show_metrics(desk, metrics)

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return web.AppRunner(app, access_log=None)
