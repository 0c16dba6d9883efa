"""Health, metrics, status and evidence."""

from __future__ import annotations

import base64
from typing import Final

import msgspec
from aiohttp import web

from dwcp_replica.api.host import Host
from dwcp_replica.api.metrics import CONTENT_TYPE, ReplicaMetrics
from dwcp_replica.api.problems import Problems

SIGNATURE_HEADER: Final = "DWCP-Signature"
NONCE_BYTES_MAX: Final = 64


class ObserveHandler:
    """Says where the replica stands."""

    def __init__(self, host: Host, problems: Problems, metrics: ReplicaMetrics) -> None:
        self._host = host
        self._problems = problems
        self._metrics = metrics

    async def healthz(self, _request: web.Request) -> web.Response:
        """200: that this is answered shows that the event loop progresses."""
        return web.json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 while this replica votes, else 503 with the reason."""
        if (reason := self._host.readiness()) is None:
            return web.json_response({"status": "ready"})
        return web.json_response({"status": "not-ready", "reason": reason}, status=503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus text."""
        self._host.refresh_metrics()
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def status(self, request: web.Request) -> web.Response:
        """The status, signed together with the caller's nonce, so that it can not be an old one."""
        try:
            nonce = bytes.fromhex(request.query.get("nonce", ""))
        except ValueError:
            return self._problems.json(400, "nonce", "nonce is hexadecimal")
        if len(nonce) > NONCE_BYTES_MAX:
            message = f"nonce has at most {NONCE_BYTES_MAX} bytes"
            return self._problems.json(400, "nonce", message)
        body = msgspec.json.encode(self._host.status())
        signature = self._host.sign_status(nonce + body)
        headers = {}
        if signature is not None:
            headers[SIGNATURE_HEADER] = base64.b64encode(signature).decode("ascii")
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def evidence(self, _request: web.Request) -> web.Response:
        """Proofs against members, as a JSON list."""
        body = msgspec.json.encode(self._host.evidence())
        return web.Response(body=body, content_type="application/json")
