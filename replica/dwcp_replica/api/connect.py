"""GET /dwcp/v1/connect: a client's WebSocket. Envelopes in; replies, Busy and Rejected out.

The server's first frame is a nonce with its public key, the client's first frame its own key and
its signature over both: numbers change with the epochs, keys name who is meant. After that every
reply of that client key comes over this connection, wherever the request was sent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from functools import partial
from typing import Annotated, Final

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_websocket import WebSocketError
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES, Envelope, envelope_scope
from dwcp.wire.query import Query
from dwcp.wire.signing import PublicKey, Signature
from dwcp.wire.watch import Pull
from dwcp_replica.api.desk import Outlet
from dwcp_replica.api.envelopes import TOO_LARGE, decode_frame
from dwcp_replica.api.host import ClientService, Host
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.api.problems import Problems

NONCE_BYTES: Final = 32
HELLO_BYTES_MAX: Final = 512
HELLO_TIMEOUT_S: Final = 5.0
HEARTBEAT_S: Final = 20.0
CONNECTIONS_MAX: Final = 4096
_CLOSE_TIMEOUT_S: Final = 0.5

_log = logging.getLogger(__name__)


class ServerHello(Struct, frozen=True):
    """The server's first frame."""

    nonce: Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
    identity: PublicKey


class ClientHello(Struct, frozen=True):
    """The client's first frame: its key, and its signature over the server's frame."""

    client: PublicKey
    sig: Signature


class HelloError(Exception):
    """A client did not prove its key; `reason` is an enumerated word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"client hello refused: {reason}")
        self.reason = reason


_decode_hello: Callable[[bytes], ClientHello] = decoder_of(ClientHello)


def client_hello_signing_bytes(genesis: bytes, hello: ServerHello) -> bytes:
    """What a client signs to connect; `genesis` is the hash of the genesis record."""
    payload = hello.nonce + hello.identity
    return envelope_scope(genesis).signing_bytes("client-hello", payload)


def check_hello(service: ClientService, hello: ServerHello, frame: bytes) -> bytes:
    """The client's key. Raises HelloError."""
    if len(frame) > HELLO_BYTES_MAX:
        raise HelloError("hello-oversize")
    try:
        answer = _decode_hello(frame)
    except (msgspec.DecodeError, RecursionError):
        raise HelloError("hello-malformed") from None
    if all(client.key != answer.client for client in service.genesis.clients):
        raise HelloError("hello-unknown-client")
    message = client_hello_signing_bytes(service.genesis.hash(), hello)
    if not service.verifier.verify(answer.client, message, answer.sig):
        raise HelloError("hello-signature")
    return answer.client


async def greet(service: ClientService, ws: web.WebSocketResponse) -> bytes:
    """Who has connected: a client's key, proven. Raises HelloError."""
    hello = ServerHello(secrets.token_bytes(NONCE_BYTES), service.identity)
    try:
        await ws.send_bytes(msgspec.msgpack.encode(hello))
        message = await ws.receive(timeout=HELLO_TIMEOUT_S)
    except TimeoutError:
        raise HelloError("hello-timeout") from None
    except ConnectionError:
        raise HelloError("hello-missing") from None
    if message.type is not WSMsgType.BINARY:
        raise HelloError("hello-missing")
    return check_hello(service, hello, message.data)


class ConnectHandler:
    """Serves client WebSockets."""

    def __init__(self, host: Host, problems: Problems, metrics: ReplicaMetrics) -> None:
        self._host = host
        self._problems = problems
        self._metrics = metrics
        self._sockets: set[web.WebSocketResponse] = set()

    async def close(self) -> None:
        """Close every connection."""
        sockets = list(self._sockets)
        await asyncio.gather(*(ws.close(code=WSCloseCode.GOING_AWAY) for ws in sockets))

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection until it ends."""
        service = self._host.service()
        if service is None:
            reason = self._host.readiness() or "not running"
            return self._problems.json(503, "not-running", f"this replica does not run: {reason}")
        if len(self._sockets) >= CONNECTIONS_MAX:
            message = f"this replica serves at most {CONNECTIONS_MAX} connections: try another"
            return self._problems.json(503, "too-many-connections", message)
        ws = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            timeout=_CLOSE_TIMEOUT_S,
            compress=False,
            max_msg_size=MAX_ENVELOPE_BYTES + 1,  # aiohttp refuses at the limit, not above it
        )
        await ws.prepare(request)
        self._sockets.add(ws)
        try:
            client = await greet(service, ws)
            await self._serve(service, client, request, ws)
        except HelloError as refused:
            self._metrics.rejected.labels(refused.reason).inc()
            await ws.close(code=WSCloseCode.POLICY_VIOLATION, message=refused.reason.encode())
        finally:
            self._sockets.discard(ws)
        return ws

    async def _serve(
        self, service: ClientService, client: bytes, request: web.Request, ws: web.WebSocketResponse
    ) -> None:
        outlet = Outlet(partial(self._drop, request))
        with service.desk.connected(client, outlet):
            writer = asyncio.create_task(_write(outlet, ws))
            try:
                await self._read(service, client, outlet, ws)
            finally:
                service.unwatch(outlet.answer)
                writer.cancel()
                await asyncio.wait((writer,))
        if not writer.cancelled():
            writer.result()

    def _drop(self, request: web.Request) -> None:
        """Cut a connection whose client does not read: no close frame would reach it."""
        self._metrics.rejected.labels("slow-reader").inc()
        _log.warning("client-too-slow", extra={"from": request.remote})
        if request.transport is not None:
            request.transport.abort()

    async def _read(
        self, service: ClientService, client: bytes, outlet: Outlet, ws: web.WebSocketResponse
    ) -> None:
        while True:
            frame = await ws.receive()
            if frame.type is not WSMsgType.BINARY:
                await self._end(ws, frame.type, frame.data)
                return
            match decode_frame(frame.data):
                case Envelope() as envelope:
                    service.admit(envelope, outlet.answer)
                case Query() as query:
                    service.ask(query, outlet.answer)
                case Pull() as pull:
                    service.watch(client, pull, outlet.answer)
                case (reason, message):
                    outlet.answer(service.unreadable(reason, message))

    async def _end(self, ws: web.WebSocketResponse, kind: WSMsgType, data: object) -> None:
        if kind is WSMsgType.TEXT:
            self._metrics.rejected.labels("text-frame").inc()
            await ws.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"binary frames only")
        elif isinstance(data, WebSocketError) and data.code == WSCloseCode.MESSAGE_TOO_BIG:
            self._metrics.rejected.labels(TOO_LARGE[0]).inc()


async def _write(outlet: Outlet, ws: web.WebSocketResponse) -> None:
    try:
        while True:
            await ws.send_bytes(await outlet.get())
    except ConnectionError:
        return  # the reader notices too, and ends the connection
