"""The client port: routes, limits, start and stop."""

from __future__ import annotations

import ssl
from typing import Final

from aiohttp import web

from dwcp_replica.api.backup import BackupHandler
from dwcp_replica.api.bootstrap import BootstrapHandler
from dwcp_replica.api.connect import ConnectHandler
from dwcp_replica.api.documents import DocumentsHandler
from dwcp_replica.api.envelopes import EnvelopeHandler
from dwcp_replica.api.epochs import EpochsHandler
from dwcp_replica.api.host import Host
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.api.observe import ObserveHandler
from dwcp_replica.api.problems import Problems

_SHUTDOWN_TIMEOUT_S: Final = 0.5


class ApiServer:
    """The HTTP server of the client port."""

    def __init__(self, host: Host, metrics: ReplicaMetrics) -> None:
        problems = Problems(metrics)
        self._connect = ConnectHandler(host, problems, metrics)
        envelopes = EnvelopeHandler(host, problems)
        bootstrap = BootstrapHandler(host, problems)
        observe = ObserveHandler(host, problems, metrics)
        app = web.Application(middlewares=[problems.middleware])
        app.router.add_get("/healthz", observe.healthz)
        app.router.add_get("/readyz", observe.readyz)
        app.router.add_get("/metrics", observe.metrics)
        app.router.add_get("/dwcp/v1/status", observe.status)
        app.router.add_get("/dwcp/v1/evidence", observe.evidence)
        app.router.add_get("/dwcp/v1/identity", bootstrap.identity)
        app.router.add_get("/dwcp/v1/genesis", bootstrap.get)
        app.router.add_put("/dwcp/v1/genesis", bootstrap.put)
        app.router.add_put("/dwcp/v1/join", bootstrap.join)
        epochs = EpochsHandler(host, problems)
        app.router.add_get("/dwcp/v1/epochs", epochs.get)
        app.router.add_post("/dwcp/v1/orders", epochs.post)
        app.router.add_get("/dwcp/v1/backup", BackupHandler(host, problems).get)
        app.router.add_post("/dwcp/v1/learners", epochs.learners)
        app.router.add_post("/dwcp/v1/keys", epochs.keys)
        app.router.add_post("/dwcp/v1/envelopes", envelopes.post)
        app.router.add_get("/dwcp/v1/connect", self._connect.get)
        self._documents = DocumentsHandler(host, problems, metrics)
        self._documents.routes(app)
        app.router.add_route("*", "/v3/{path:.*}", problems.etcd_path)
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
        )

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Listen, with TLS when a context is given. Raises OSError when the address is taken."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=context).start()

    async def hang_up(self) -> None:
        """Close every client's connection."""
        await self._connect.close()

    async def close(self) -> None:
        """Close every connection and stop listening."""
        await self._connect.close()
        await self._documents.close()
        await self._runner.cleanup()
