"""Documents over HTTP: /dwcp/v1/docs/...

    GET  connect         a client's WebSocket: greeted as /dwcp/v1/connect, then anti-entropy of the
                         documents that it opens, and receipts that it claims
    POST operations      signed operations in (MessagePack of a SyncMessage); receipts out
    GET  view/NAME       the document as JSON, as this replica shows it
    GET  events/NAME     server-sent events: the same, whenever it changes
    GET  conflicts       what waits for people, what became of conflicts, how strategies do
    GET  conflicts/NAME  the same of one document

Whoever reads as JSON signs for it (wire.gossip.ReadToken, in the Authorization header), and
believes one replica; whoever connects verifies every author's signature.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from dwcp.crdt import Operation, Store, document_of
from dwcp.crdt.talks import Heard
from dwcp.wire.decoding import decoder_of
from dwcp.wire.documents import MAX_OPERATION_BYTES, Receipt, SyncMessage
from dwcp.wire.gossip import (
    Claim,
    ClientGossip,
    Denied,
    ImageAsk,
    Open,
    ReplicaGossip,
    Taken,
    decode_client_gossip,
    encode_gossip,
    read_token,
)
from dwcp_replica.api.connect import HEARTBEAT_S, HelloError, greet
from dwcp_replica.api.desk import Outlet
from dwcp_replica.api.envelopes import MESSAGE_PACK
from dwcp_replica.api.host import Host
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.api.problems import BodyTooLargeError, Problems, read_body

FRAME_BYTES_MAX: Final = MAX_OPERATION_BYTES + 524_288
CONNECTIONS_MAX: Final = 1024
OPENED_MAX: Final = 4096
OPERATIONS_MAX: Final = 256
TOKEN_MS_MAX: Final = 3_600_000
NAME_MAX: Final = 256
KEEP_ALIVE_S: Final = 15.0
_CLOSE_TIMEOUT_S: Final = 0.5

_decode_sync: Callable[[bytes], SyncMessage] = decoder_of(SyncMessage)


class Sink(Protocol):
    """A client's connection, as the documents see it."""

    def wake(self) -> None:
        """There is something to be said."""
        ...

    def receipt(self, receipt: Receipt) -> None:
        """Send a receipt."""
        ...


class DocumentService(Protocol):
    """A running replica's documents."""

    @property
    def store(self) -> Store:
        """The documents."""
        ...

    def allows(self, client: bytes, document: str, *, write: bool) -> bool:
        """Whether a client of the cluster may read or write a document, by its role now."""
        ...

    def join(self, sink: Sink) -> int:
        """A client has connected; its link until `leave`."""
        ...

    def leave(self, link: int) -> None:
        """A client's connection has ended."""
        ...

    def say(self, member: int) -> bytes | None:
        """The next frame for a link; None until it is woken."""
        ...

    def client_says(self, link: int, message: ClientGossip, size_bytes: int) -> None:
        """Take what a client said, if it may."""
        ...

    async def submit(self, operations: Sequence[Operation]) -> list[Heard]:
        """Take operations in; returns when what was applied is durable."""
        ...

    def receipt(self, document: str, operation: bytes) -> Receipt | None:
        """This member's word that it holds an operation durably; None while it is no member."""
        ...

    async def view(self, document: str) -> dict[str, Any] | None:
        """Heads and view of a document, conflicts shown by the strategies; None without it."""
        ...

    async def conflicts(self, readable: Callable[[str], bool]) -> dict[str, Any]:
        """What waits for people, the history, and how strategies do, of documents readable."""
        ...

    async def changed(self, document: str, version: bytes | None) -> bytes | None:
        """Wait until a document has another version than this one; its version."""
        ...


class _Outlet:
    """What waits for one client's connection; one that does not read loses it."""

    def __init__(self, on_overflow: Callable[[], None]) -> None:
        self.queue = Outlet(on_overflow)

    def wake(self) -> None:
        self.queue.wake()

    def receipt(self, receipt: Receipt) -> None:
        self.put(receipt)

    def put(self, message: ReplicaGossip) -> None:
        self.queue.put(encode_gossip(message))


class DocumentsHandler:
    """Serves documents."""

    def __init__(self, host: Host, problems: Problems, metrics: ReplicaMetrics) -> None:
        self._host = host
        self._problems = problems
        self._metrics = metrics
        self._sockets: set[web.WebSocketResponse] = set()
        self._streams = 0

    def routes(self, app: web.Application) -> None:
        """Add what this serves."""
        app.router.add_get("/dwcp/v1/docs/connect", self.connect)
        app.router.add_post("/dwcp/v1/docs/operations", self.post)
        app.router.add_get("/dwcp/v1/docs/conflicts", self.conflicts)
        app.router.add_get("/dwcp/v1/docs/conflicts/{name:.+}", self.conflicts_of)
        app.router.add_get("/dwcp/v1/docs/view/{name:.+}", self.view)
        app.router.add_get("/dwcp/v1/docs/events/{name:.+}", self.events)

    async def close(self) -> None:
        """Close every connection."""
        sockets = list(self._sockets)
        await asyncio.gather(*(ws.close(code=WSCloseCode.GOING_AWAY) for ws in sockets))

    # --- anti-entropy ----------------------------------------------------------------------------

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one client until it goes."""
        service, room = self._host.service(), self._host.documents()
        if service is None or room is None:
            return self._not_running()
        if len(self._sockets) >= CONNECTIONS_MAX:
            message = f"at most {CONNECTIONS_MAX} clients read documents here: try another replica"
            return self._problems.json(503, "too-many-connections", message)
        ws = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S, timeout=_CLOSE_TIMEOUT_S, compress=False,
            max_msg_size=FRAME_BYTES_MAX,
        )  # fmt: skip
        await ws.prepare(request)
        self._sockets.add(ws)
        try:
            client = await greet(service, ws)
            await self._serve(room, client, request, ws)
        except HelloError as refused:
            self._metrics.rejected.labels(refused.reason).inc()
            await ws.close(code=WSCloseCode.POLICY_VIOLATION, message=refused.reason.encode())
        finally:
            self._sockets.discard(ws)
        return ws

    async def _serve(
        self, room: DocumentService, client: bytes, request: web.Request, ws: web.WebSocketResponse
    ) -> None:
        outlet = _Outlet(partial(self._drop, request))
        link = room.join(outlet)
        writer = asyncio.create_task(_write(ws, outlet, partial(room.say, link)))
        try:
            await self._read(room, client, link, outlet, ws)
        finally:
            room.leave(link)
            writer.cancel()
            await asyncio.wait((writer,))

    def _drop(self, request: web.Request) -> None:
        """Cut a connection whose client does not read: no close frame would reach it."""
        self._metrics.rejected.labels("slow-reader").inc()
        if request.transport is not None:
            request.transport.abort()

    async def _read(
        self, room: DocumentService, client: bytes, link: int, outlet: _Outlet,
        ws: web.WebSocketResponse,
    ) -> None:  # fmt: skip
        opened: set[str] = set()
        while True:
            frame = await ws.receive()
            if frame.type is not WSMsgType.BINARY:
                return
            try:
                message = decode_client_gossip(frame.data)
            except (msgspec.DecodeError, RecursionError) as error:
                self._deny(outlet, "", "malformed", f"not a message about documents: {error}")
                continue
            allowed = self._allowed(room, client, outlet, opened, message)
            if allowed is not None:
                room.client_says(link, allowed, len(frame.data))

    def _allowed(
        self, room: DocumentService, client: bytes, outlet: _Outlet, opened: set[str],
        message: ClientGossip,
    ) -> ClientGossip | None:  # fmt: skip
        """What of a message this client may say; the rest is answered and counted."""
        if isinstance(message, Taken):
            return message
        name = message.document
        if not room.allows(client, name, write=False):
            return self._deny(outlet, name, "permission", "this client may not read the document")
        match message:
            case Open():
                if len(opened) >= OPENED_MAX:
                    text = f"a connection opens at most {OPENED_MAX} documents"
                    return self._deny(outlet, name, "too-many-documents", text)
                opened.add(name)
                return message
            case Claim() | ImageAsk():
                return message
            case SyncMessage():
                if name not in opened:
                    return self._deny(outlet, name, "not-open", "open the document first")
                kept = tuple(
                    o for o in message.operations if room.allows(o.author, name, write=True)
                )
                if len(kept) < len(message.operations):
                    text = "an author's role does not let it write this document"
                    self._deny(outlet, name, "permission", text)
                return msgspec.structs.replace(message, operations=kept)

    def _deny(
        self, outlet: _Outlet, document: str, reason: str, message: str
    ) -> ClientGossip | None:
        """Nothing may be said; why, is counted and told."""
        self._metrics.rejected.labels(reason).inc()
        outlet.put(Denied(document, reason, message[:1000]))
        return None

    # --- requests --------------------------------------------------------------------------------

    async def post(self, request: web.Request) -> web.Response:
        """Take operations: 200 with receipts for those that are held durably now."""
        room = self._host.documents()
        if room is None:
            return self._not_running()
        try:
            message = _decode_sync(await read_body(request, FRAME_BYTES_MAX))
        except BodyTooLargeError:
            return self._problems.json(413, "too-large", f"at most {FRAME_BYTES_MAX} bytes")
        except msgspec.DecodeError as error:
            return self._problems.json(400, "malformed", f"not a MessagePack SyncMessage: {error}")
        if len(message.operations) > OPERATIONS_MAX:
            text = f"at most {OPERATIONS_MAX} operations at once: send several requests"
            return self._problems.json(413, "too-large", text)
        for operation in message.operations:
            name = document_of(operation)
            if name != message.document or not room.allows(operation.author, name, write=True):
                return self._problems.json(
                    403, "permission", "an author may not write, or names another document"
                )
        await room.submit(message.operations)
        graph = room.store.find(message.document).graph
        hashes = [operation.hash() for operation in message.operations]
        made = [room.receipt(message.document, one) for one in hashes if one in graph]
        receipts = [receipt for receipt in made if receipt is not None]
        return web.Response(body=msgspec.msgpack.encode(receipts), content_type=MESSAGE_PACK)

    async def view(self, request: web.Request) -> web.Response:
        """The document as JSON with its heads; 404 when there is none."""
        name = request.match_info["name"]
        room = self._reader(request, name)
        if isinstance(room, web.Response):
            return room
        shown = await room.view(name)
        if shown is None:
            return self._problems.json(404, "no-document", f"there is no document {name!r} here")
        return web.json_response(shown)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The document whenever it changes, as server-sent events, until the client goes."""
        name = request.match_info["name"]
        room = self._reader(request, name)
        if isinstance(room, web.Response):
            return room
        if self._streams >= CONNECTIONS_MAX:
            return self._problems.json(503, "too-many-connections", "too many streams: try another")
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        self._streams += 1
        try:
            await _stream(room, name, stream)
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._streams -= 1
        return stream

    async def conflicts(self, request: web.Request) -> web.Response:
        """Conflicts of the documents that the client may read."""
        client = self._client(request, "")
        room = self._host.documents()
        if isinstance(client, web.Response):
            return client
        if room is None:
            return self._not_running()
        return web.json_response(await room.conflicts(partial(room.allows, client, write=False)))

    async def conflicts_of(self, request: web.Request) -> web.Response:
        """Conflicts of one document; how strategies do is said of all."""
        name = request.match_info["name"]
        room = self._reader(request, name)
        if isinstance(room, web.Response):
            return room
        return web.json_response(await room.conflicts(partial(operator.eq, name)))

    def _reader(self, request: web.Request, name: str) -> DocumentService | web.Response:
        if len(name) > NAME_MAX:
            return self._problems.json(400, "name", f"a name has at most {NAME_MAX} characters")
        client = self._client(request, name)
        room = self._host.documents()
        if isinstance(client, web.Response):
            return client
        if room is None:
            return self._not_running()
        if not room.allows(client, name, write=False):
            return self._problems.json(403, "permission", "this client may not read the document")
        return room

    def _client(self, request: web.Request, name: str) -> bytes | web.Response:
        """Who asks, proven by the token; or what is wrong with it."""
        service = self._host.service()
        if service is None:
            return self._not_running()
        token = read_token(request.headers.get("Authorization", ""))
        now_ms = time.time_ns() // 1_000_000
        if token is None:
            text = "sign a read token with a client's key (docs/documents.md): `dwcp doc token`"
            return self._problems.json(401, "token", text)
        if not now_ms < token.expires_ms <= now_ms + TOKEN_MS_MAX:
            return self._problems.json(401, "token-expired", "make a new token; it lasts an hour")
        known = any(client.key == token.client for client in service.genesis.clients)
        message = token.signing_bytes(service.genesis.hash(), name)
        if not known or not service.verifier.verify(token.client, message, token.sig):
            return self._problems.json(401, "token", "the token does not verify for this document")
        return token.client

    def _not_running(self) -> web.Response:
        reason = self._host.readiness() or "not running"
        return self._problems.json(503, "not-running", f"this replica does not run: {reason}")


async def _write(
    ws: web.WebSocketResponse, outlet: _Outlet, otherwise: Callable[[], bytes | None]
) -> None:
    try:
        while True:
            await ws.send_bytes(await outlet.queue.get(otherwise))
    except ConnectionError:
        return  # the reader notices too, and ends the connection


async def _stream(room: DocumentService, name: str, stream: web.StreamResponse) -> None:
    version: bytes | None = None
    while True:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                version = await room.changed(name, version)
        except TimeoutError:
            await stream.write(b": still here\n\n")
            continue
        data = msgspec.json.encode(await room.view(name))
        await stream.write(b"event: document\ndata: " + data + b"\n\n")
