"""HTTP for the gateway: etcd's paths, its errors and codes, health and metrics.

    POST /v3/kv/range|put|deleterange|txn|compaction      etcd's JSON
    POST /v3/maintenance/status                            revision, sizes, version
    GET  /health, /version, /metrics

Each request is one operation of the client, which folds those that wait into signed envelopes.
Browsers are kept out: a page from anywhere could otherwise write here in the name of whoever
opens it, so what comes with an Origin is refused, and no CORS header is ever sent.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from dwcp import errors
from dwcp.client import Client
from dwcp.gateway.shapes import Json, ShapeError, decode_json, request_of, response_of
from dwcp.results import Header
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES
from dwcp.wire.operations import (
    CompactionRequest,
    DeleteRangeRequest,
    Failure,
    Operation,
    PutRequest,
    RangeRequest,
    StatusRequest,
    StatusResponse,
    TxnRequest,
)

ETCD_VERSION: Final = "3.6.0"
"""What the API is like; clients look whether it is 3.5.13 or newer."""
BODY_BYTES_MAX: Final = 2 * MAX_ENVELOPE_BYTES
"""Base64 and names around what fits an envelope."""
HEALTH_TIMEOUT_MS: Final = 3000
OUT_OF_TIME: Final = 4
UNIMPLEMENTED: Final = 12
UNAVAILABLE: Final = 14
NOT_FOUND: Final = 5
HTTP_STATUS: Final = {
    1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400,
    12: 501, 13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip
"""HTTP's status for each gRPC code, as etcd's gateway maps them."""
OPERATIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "/v3/kv/range": RangeRequest,
    "/v3/kv/put": PutRequest,
    "/v3/kv/deleterange": DeleteRangeRequest,
    "/v3/kv/txn": TxnRequest,
    "/v3/kv/compaction": CompactionRequest,
}
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GatewayMetrics:
    """On a registry of their own; labels are paths that exist and codes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "dwcp_gateway_requests", "Requests answered.", ("path", "code"), registry=self.registry
        )
        self.seconds = Histogram(
            "dwcp_gateway_seconds", "From a request's arrival to its answer.", ("path",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.liars = Gauge(
            "dwcp_gateway_liars", "Replicas proven to have lied to it.", registry=self.registry
        )
        self.connected = Gauge(
            "dwcp_gateway_replicas_connected", "Replicas it is connected to.",
            registry=self.registry,
        )  # fmt: skip
        self.refused = Gauge(
            "dwcp_gateway_replies_refused", "What replicas sent that did not count, by reason.",
            ("reason",), registry=self.registry,
        )  # fmt: skip
        self.reads = Gauge(
            "dwcp_gateway_reads", "Reads that were to skip the log, by how they ended.",
            ("ended",), registry=self.registry,
        )  # fmt: skip


class Gateway:
    """The application; `client` is running. `timeout_ms` is how long a request may take."""

    def __init__(self, client: Client, public_key: bytes, timeout_ms: int) -> None:
        self.metrics = GatewayMetrics()
        self._client = client
        self._timeout_ms = timeout_ms
        # etcd's ids are numbers of 64 bits
        self._member_id = int.from_bytes(hashlib.sha256(public_key).digest()[:8], "big")

    def application(self) -> web.Application:
        """What aiohttp serves."""
        app = web.Application(middlewares=[self._middleware], client_max_size=BODY_BYTES_MAX)
        for path in OPERATIONS:
            app.router.add_post(path, self._operate)
        app.router.add_post("/v3/maintenance/status", self._status)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    # --- handlers ------------------------------------------------------------------------------

    async def _operate(self, request: web.Request) -> web.Response:
        found = decode_json(await request.read())
        operation: Any = request_of(OPERATIONS[request.path], found)
        header, result = await self._ask(operation)
        return _json({"header": self._header(header), **response_of(result, header.revision)})

    async def _status(self, request: web.Request) -> web.Response:
        decode_json(await request.read())
        try:
            header, result = await self._ask(StatusRequest())
        except errors.Refused as refused:
            if refused.code != UNIMPLEMENTED:
                raise
            header, result = await self._ask(RangeRequest(b"\0", count_only=True))
        shown: Json = {"header": self._header(header), "version": ETCD_VERSION}
        if isinstance(result, StatusResponse):
            shown |= {"dbSize": str(result.db_size), "dbSizeInUse": str(result.db_size)}
            shown |= {"dbSizeQuota": str(result.quota_bytes)}
        shown |= {"leader": str(self._member_id), "raftIndex": str(header.index)}
        shown |= {"raftTerm": "1", "raftAppliedIndex": str(header.index)}
        return _json(shown)

    async def _health(self, request: web.Request) -> web.Response:
        old = request.query.get("serializable") == "true"
        try:
            await self._client.range(
                b"health", count_only=True, serializable=old, timeout_ms=HEALTH_TIMEOUT_MS
            )
        except errors.DWCPError as error:
            return _json({"health": "false", "reason": str(error)}, 503)
        return _json({"health": "true", "reason": ""})

    async def _version(self, _request: web.Request) -> web.Response:
        return _json({"etcdserver": ETCD_VERSION, "etcdcluster": ETCD_VERSION})

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        metrics, client = self.metrics, self._client
        metrics.liars.set(len(client.liars))
        metrics.connected.set(sum(client.connected.values()))
        for reason, count in client.refused.items():
            metrics.refused.labels(reason).set(count)
        for ended, count in client.reads.items():
            metrics.reads.labels(ended).set(count)
        text = generate_latest(metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    # --- inside --------------------------------------------------------------------------------

    async def _ask(self, operation: Operation) -> tuple[Header, Any]:
        """One operation's result. Raises errors.DWCPError."""
        done = await self._client.execute(operation, timeout_ms=self._timeout_ms)
        (result,) = done.results
        if isinstance(result, Failure):
            raise errors.Refused(result.code, result.message)
        return done.header, result

    def _header(self, header: Header) -> Json:
        return {
            "cluster_id": str(int.from_bytes(header.cluster_id[:8], "big")),
            "member_id": str(self._member_id),
            "revision": str(header.revision),
            "raft_term": "1",
        }

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count, time, and give every error etcd's form."""
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "other"
        began_s = time.monotonic()
        if "Origin" in request.headers:
            response: web.StreamResponse = _error(
                errors.PERMISSION_DENIED, "requests of web pages are refused: no Origin is allowed"
            )
        else:
            response = await _guarded(request, handler)
        self.metrics.requests.labels(path, str(response.status)).inc()
        self.metrics.seconds.labels(path).observe(time.monotonic() - began_s)
        return response


async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or the error that it ended with, in etcd's form."""
    try:
        return await handler(request)
    except ShapeError as error:
        return _error(error.code, str(error))
    except errors.Refused as error:
        return _error(error.code, str(error))
    except errors.Busy as error:
        return _error(errors.RESOURCE_EXHAUSTED, f"etcdserver: too many requests: {error}")
    except (errors.TimedOut, errors.NotEnoughReplies) as error:
        return _error(UNAVAILABLE, f"etcdserver: request timed out: {error}")
    except errors.DWCPError as error:
        return _error(UNAVAILABLE, str(error))
    except web.HTTPRequestEntityTooLarge:
        return _error(errors.INVALID_ARGUMENT, "etcdserver: request is too large")
    except web.HTTPException as error:
        code = NOT_FOUND if error.status == 404 else UNIMPLEMENTED
        message = f"{request.method} {request.path}: {error.reason}"
        return _error(code, message, error.status, error.headers.get("Allow"))


def _json(body: Json, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body), status=status, content_type="application/json"
    )


def _error(
    code: int, message: str, status: int | None = None, allow: str | None = None
) -> web.Response:
    """etcd's error: `error` as its older gateways name the message, `message` as the newer do."""
    body = {"error": message, "code": code, "message": message}
    response = _json(body, HTTP_STATUS.get(code, 503) if status is None else status)
    if allow is not None:
        response.headers["Allow"] = allow
    return response
