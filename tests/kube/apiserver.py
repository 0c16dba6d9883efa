"""A small stand-in for the Kubernetes API server: resource versions, conflicts, label selectors.

What the real one does beyond that (garbage collection, admission, server-side apply of lists) is
tested in the sandbox. Here a test decides when it is away and sees every write.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from dwcp_operator.act.api import KubeApi

Object = dict[str, Any]

_PATH = re.compile(
    r"^(?P<root>/api/v1|/apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>status|eviction))?$"
)


class ApiServer:
    """Objects by plural, namespace and name. `away` makes every request fail.

    Evictions are allowed while `evictions` is not 0; `invalid` says why a Pod is not taken.
    """

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.writes: list[str] = []
        self.away = False
        self.evictions = -1
        self.invalid: Callable[[Object], str] = lambda _body: ""
        self.apis: set[str] = set()
        self.hold: asyncio.Event | None = None
        self.fail: Callable[[str, str], bool] = lambda _method, _path: False
        self._versions = itertools.count(1)
        self._uids = itertools.count(1)

    def put(self, plural: str, body: Object) -> Object:
        """Place an object as if somebody else had made it."""
        metadata = body["metadata"]
        metadata.setdefault("uid", f"uid-{next(self._uids)}")
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[plural, metadata["namespace"], metadata["name"]] = body
        return body

    def names(self, plural: str) -> set[str]:
        return {name for kind, _, name in self.objects if kind == plural}

    async def handle(self, request: web.Request) -> web.Response:
        if self.hold is not None:
            await self.hold.wait()
        if self.away or self.fail(request.method, request.path):
            assert request.transport is not None
            request.transport.close()
            return web.Response(status=503)
        matched = _PATH.match(request.path)
        if matched is None and request.path.removeprefix("/apis/") in self.apis:
            kinds = [{"kind": "PodMonitor"}, {"kind": "PrometheusRule"}]
            return web.json_response({"resources": kinds})
        if matched is None:
            return status(404, "NotFound", request.path)
        body = json.loads(await request.text()) if request.can_read_body else {}
        refused = self.invalid(body) if matched["plural"] == "pods" and body else ""
        if refused:
            return status(422, "Invalid", refused)
        if request.query.get("dryRun"):
            return web.json_response(body, status=201)
        if request.method != "GET":
            self.writes.append(f"{request.method} {request.path}")
        place = (matched["plural"], matched["namespace"] or "", matched["name"] or "")
        if not matched["name"]:
            return (
                self._create(place, body)
                if request.method == "POST"
                else self._list(place, request.query.get("labelSelector", ""))
            )
        return self._one(request, place, body, matched["sub"])

    def _list(self, place: tuple[str, str, str], selector: str) -> web.Response:
        wanted = dict(pair.split("=") for pair in selector.split(",")) if selector else {}
        items = [
            found
            for (plural, namespace, _), found in sorted(self.objects.items())
            if plural == place[0] and place[1] in ("", namespace)
            and wanted.items() <= found["metadata"].get("labels", {}).items()
        ]  # fmt: skip
        return web.json_response({"kind": "List", "items": items})

    def _create(self, place: tuple[str, str, str], body: Object) -> web.Response:
        if (place[0], place[1], body["metadata"]["name"]) in self.objects:
            return status(409, "AlreadyExists", body["metadata"]["name"])
        body["metadata"]["creationTimestamp"] = now()
        return web.json_response(self.put(place[0], body), status=201)

    def _evict(
        self, place: tuple[str, str, str], found: Object, preconditions: Object
    ) -> web.Response:
        if self.evictions == 0:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            return status(429, "TooManyRequests", message)
        if not preconditions.items() <= found["metadata"].items():
            return status(409, "Conflict", "the object has been modified")
        self.evictions -= 1
        del self.objects[place]
        return web.json_response({"kind": "Status", "status": "Success"}, status=201)

    def _one(
        self, request: web.Request, place: tuple[str, str, str], body: Object, sub: str | None
    ) -> web.Response:
        found = self.objects.get(place)
        if request.method == "PATCH" and "apply" in request.headers["Content-Type"]:
            return web.json_response(self.put(place[0], merged(found or {}, body)))
        if found is None:
            return status(404, "NotFound", place[2])
        if sub == "eviction":
            return self._evict(place, found, body["deleteOptions"]["preconditions"])
        if request.method == "GET":
            return web.json_response(found)
        if request.method == "DELETE":
            body = {"metadata": body.get("preconditions", {})}
        version = body.get("metadata", {}).get("resourceVersion")
        if version not in (None, found["metadata"]["resourceVersion"]):
            return status(409, "Conflict", "the object has been modified")
        if request.method == "DELETE":
            return web.json_response(self.objects.pop(place))
        after = body if request.method == "PUT" else merged(found, body)
        if sub == "status":
            after = {**found, "metadata": dict(found["metadata"]), "status": body["status"]}
        return web.json_response(self.put(place[0], after))


def now(ahead_s: int = 0) -> str:
    """The time as the API server writes it, so many seconds ahead."""
    return (datetime.now(UTC) + timedelta(seconds=ahead_s)).strftime("%Y-%m-%dT%H:%M:%SZ")


def merged(before: Object, patch: Object) -> Object:
    """JSON merge patch (RFC 7396)."""
    after = dict(before)
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        elif isinstance(value, dict) and isinstance(after.get(key), dict):
            after[key] = merged(after[key], value)
        else:
            after[key] = value
    return after


def status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "reason": reason, "message": message}, status=code)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[ApiServer, KubeApi]]:
    """The server on a loopback port, and a connection to it."""
    server = ApiServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{port}"
    try:
        async with KubeApi(configuration) as api:
            yield server, api
    finally:
        if server.hold is not None:
            server.hold.set()
        await runner.cleanup()
