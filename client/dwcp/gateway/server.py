"""HTTP for the gateway: etcd's paths, its errors and codes, health and metrics.

    POST /v3/kv/range|put|deleterange|txn|compaction      etcd's JSON
    POST /v3/watch, /v3/lease/..., /v3/lock/..., and all the others of services.py
    GET  /health, /version, /metrics, /openapi.json

Each request is one operation of the client, which folds those that wait into signed envelopes.
Browsers are kept out: a page from anywhere could otherwise write here in the name of whoever
opens it, so what comes with an Origin is refused, and no CORS header is ever sent.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import msgspec
from aiohttp import web
from google.protobuf.message import Message

from dwcp import errors
from dwcp.gateway.desk import ETCD_VERSION, UNIMPLEMENTED, Desk, code_of
from dwcp.gateway.health import show_metrics, why_unhealthy
from dwcp.gateway.metrics import GatewayMetrics
from dwcp.gateway.openapi import document
from dwcp.gateway.services import METHODS, PATHS, STREAMS, UNARY
from dwcp.gateway.shapes import (
    Json,
    decode_json,
    decode_many,
    json_of,
    message_of,
    request_of,
    response_of,
)
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES
from dwcp.wire.operations import (
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)

BODY_BYTES_MAX: Final = 2 * MAX_ENVELOPE_BYTES
"""Base64 and names around what fits an envelope."""
SHUTDOWN_S: Final = 2.0
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

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """The application, over a running client's desk."""

    def __init__(self, desk: Desk, metrics: GatewayMetrics) -> None:
        self._desk = desk
        self._metrics = metrics

    def runner(self) -> web.AppRunner:
        """What aiohttp runs: a handler ends with its caller, or a watch would go on for nobody."""
        return web.AppRunner(
            self._application(), access_log=None, handler_cancellation=True,
            shutdown_timeout=SHUTDOWN_S,
        )  # fmt: skip

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware], client_max_size=BODY_BYTES_MAX)
        for path in OPERATIONS:
            app.router.add_post(path, self._operate)
        for path, name in PATHS.items():
            app.router.add_post(path, self._call if name in UNARY else self._stream)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/metrics", self._show_metrics)
        return app

    # --- handlers ------------------------------------------------------------------------------

    async def _operate(self, request: web.Request) -> web.Response:
        """One of the operations on keys."""
        found = decode_json(await request.read())
        operation: Any = request_of(OPERATIONS[request.path], found)
        result: Any
        header, result = await self._desk.ask(operation, object)
        shown = json_of(self._desk.header(header.revision))
        return _json({"header": shown, **response_of(result, header.revision)})

    async def _call(self, request: web.Request) -> web.Response:
        """Any other method of one answer."""
        name = PATHS[request.path]
        message = message_of(METHODS[name].request, decode_json(await request.read()))
        return _json(json_of(await UNARY[name][0](self._desk, message)))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """A method that streams: a line of JSON for each answer, until the caller leaves."""
        name = PATHS[request.path]
        kind = METHODS[name].request
        bodies = decode_many(await request.read())
        function = STREAMS[name][0]
        messages = [message_of(kind, body) for body in bodies]
        async with aclosing(function(self._desk, _each(messages))) as answers:
            first = await anext(answers, None)
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            if first is not None:
                await response.write(_line({"result": json_of(first)}))
                await _write_rest(response, answers)
            await response.write_eof()
        return response

    async def _health(self, request: web.Request) -> web.Response:
        old = request.query.get("serializable") == "true"
        reason = await why_unhealthy(self._desk, serializable=old)
        if reason is not None:
            return _json({"health": "false", "reason": reason}, 503)
        return _json({"health": "true", "reason": ""})

    async def _version(self, _request: web.Request) -> web.Response:
        return _json({"etcdserver": ETCD_VERSION, "etcdcluster": ETCD_VERSION})

    async def _openapi(self, _request: web.Request) -> web.Response:
        return _json(document())

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return show_metrics(self._desk, self._metrics)

    # --- inside --------------------------------------------------------------------------------

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
        self._metrics.answered(path, str(response.status), began_s)
        return response


async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The handler's answer, or the error that it ended with, in etcd's form."""
    try:
        return await handler(request)
    except web.HTTPRequestEntityTooLarge:
        return _error(errors.INVALID_ARGUMENT, "etcdserver: request is too large")
    except web.HTTPException as error:
        code = NOT_FOUND if error.status == 404 else UNIMPLEMENTED
        message = f"{request.method} {request.path}: {error.reason}"
        return _error(code, message, error.status, error.headers.get("Allow"))
    except Exception as error:
        failure = code_of(error)
        if failure is None:
            raise
        return _error(*failure)


async def _each(messages: list[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


async def _write_rest(response: web.StreamResponse, answers: AsyncGenerator[Message, None]) -> None:
    """The answers after the first; an error among them is the last line."""
    try:
        async for answer in answers:
            await response.write(_line({"result": json_of(answer)}))
    except Exception as error:
        failure = code_of(error)
        if failure is None:
            raise
        code, message = failure
        await response.write(_line({"error": {"code": code, "message": message}}))


def _line(body: Json) -> bytes:
    return msgspec.json.encode(body) + b"\n"


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
