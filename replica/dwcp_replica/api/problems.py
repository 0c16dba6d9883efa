"""Clear errors: one word that can be counted, one sentence that helps."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from dwcp_replica.api.metrics import ReplicaMetrics

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

GRPC_UNAUTHENTICATED: Final = 16


class BodyTooLargeError(Exception):
    """The body of a request is longer than its limit."""


async def read_body(request: web.Request, bytes_max: int) -> bytes:
    """The request's body. Raises BodyTooLargeError without reading more than the limit."""
    if (request.content_length or 0) > bytes_max:
        raise BodyTooLargeError
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise BodyTooLargeError
    return bytes(body)


class Problems:
    """Makes JSON errors and counts them by reason."""

    def __init__(self, metrics: ReplicaMetrics) -> None:
        self._metrics = metrics

    def json(self, status: int, reason: str, message: str) -> web.Response:
        """An error response; `reason` is an enumerated word."""
        self._metrics.rejected.labels(reason).inc()
        return web.json_response({"error": reason, "message": message}, status=status)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give errors of the router (no such path, wrong method) the same form."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            reason = error.reason.lower().replace(" ", "-")
            message = f"{request.method} {request.path}: {error.reason}"
            response = self.json(error.status, reason, message)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response

    async def etcd_path(self, _request: web.Request) -> web.Response:
        """Answer etcd's paths: a replica takes operations in signed envelopes only."""
        self._metrics.rejected.labels("etcd-path").inc()
        message = (
            "a replica takes operations only in envelopes that a client signed: the etcd API is "
            "served by `dwcp gateway`, which verifies replies for its users; or use `dwcp put`, "
            "`dwcp get`, `dwcp del` or dwcp.Client"
        )
        body = {"error": message, "code": GRPC_UNAUTHENTICATED, "message": message}
        return web.Response(status=401, text=json.dumps(body), content_type="application/json")
