"""A member's documents: gossip joined with disk, peers, clients and receipts.

    peers, clients ──> signatures checked on threads ──> worked off in turns ──> file, synced
                                                                                   └──> receipts
The engine never waits for any of this: messages about documents are taken without waiting, bounded
for each connection, and sent only when the engine has nothing to say. An operation is shown to
others at once, since its author's signature speaks for it; a receipt is this member's own word, and
leaves only when the operation is durable.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, Final, Protocol

import msgspec

from dwcp.crdt import (
    Document,
    Operation,
    Resolutions,
    Rules,
    Store,
    Voters,
    document_of,
    make_receipt,
    show,
)
from dwcp.crdt.authors import EpochAuthors
from dwcp.crdt.history import answer_of, described
from dwcp.crdt.talks import WINDOW_BYTES, Heard, Link
from dwcp.docfile import DocumentFile, DocumentFileError, DocumentFileFull
from dwcp.identity import Ed25519Verifier
from dwcp.strategies import choose
from dwcp.wire.documents import (
    Receipt,
    SyncMessage,
    decode_operation,
    operation_signing_bytes,
)
from dwcp.wire.gossip import Claim, ClientGossip, GossipMessage, ImageAsk, Open, Taken
from dwcp.wire.operations import DocumentRequest, PutRequest
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer
from dwcp_replica.api.documents import Sink
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.durable import DiskFailure, ForeignDirectory
from dwcp_replica.gossip import Gossip
from dwcp_replica.gossip.core import CLIENTS
from dwcp_replica.node.signatures import SignatureGate
from dwcp_replica.store import KeyStore
from dwcp_replica.store.access import DOCUMENT_PREFIX

TICK_S: Final = 0.1
SLICE_OPERATIONS: Final = 32
"""Operations applied before sockets and the engine get their turn."""
HELD_BYTES_MAX: Final = 2 * WINDOW_BYTES
"""What one connection may have waiting here; an honest one keeps to its window."""
CONTROLS_MAX: Final = 256
CLAIMS_MAX: Final = 65_536
SAVED_AT_ONCE_MAX: Final = 4096
DISK_FULL_RETRY_S: Final = 1.0
GATE_TURN: Final = 1 << 40
"""Added to a link's number, it is that link's turn at the signature gate."""

_DICE: Final = SystemRandom()
_log = logging.getLogger(__name__)


class Wakes(Protocol):
    """Lets a connection ask for what there is to be said."""

    def wake(self, member: int) -> None:
        """This member."""
        ...


class DocumentRoom:
    """The documents of one running replica (net.dialer.SecondLane)."""

    def __init__(
        self, *, path: Path, genesis: EpochRecord, records: Sequence[EpochRecord],
        me: int | None,
        signer: Signer, verifier: Ed25519Verifier, gate: SignatureGate, metrics: ReplicaMetrics,
    ) -> None:  # fmt: skip
        self._genesis = genesis
        self._genesis_hash = genesis.hash()
        self._authors = EpochAuthors(records)
        self._gate = gate
        self._metrics = metrics
        try:
            self._file = DocumentFile(path)
            loaded = self._file.load(Rules(self._genesis_hash, verifier, self._authors))
        except DocumentFileError as error:
            raise ForeignDirectory(str(error)) from error
        if loaded.damaged:
            metrics.document_damage.inc(loaded.damaged)
            _log.error("documents-damaged", extra={"rows": loaded.damaged})
        self._wakes: Wakes | None = None
        self._sinks: dict[Link, Sink] = {}
        self._next_link = CLIENTS
        self.gossip = Gossip(loaded.store, _DICE.randrange, self._wake)
        self._work: deque[tuple[Link, GossipMessage, int]] = deque()
        self._worked = asyncio.Event()
        self._held: Counter[Link] = Counter()
        self._controls: Counter[Link] = Counter()
        self._unsaved: deque[tuple[str, Operation]] = deque()
        self._pending: set[bytes] = set()
        self._saving = asyncio.Event()
        self._claims: dict[bytes, dict[Link, str]] = {}
        self._waiting: dict[bytes, list[Callable[[], None]]] = {}
        self._moved: dict[str, asyncio.Event] = {}
        self.resolutions = Resolutions()
        self._strategies_version: bytes | None = None
        self._keys: Callable[[], KeyStore | None] = lambda: None
        self._disk = ThreadPoolExecutor(1, "dwcp-documents")
        self.enter(records[-1], me, signer)

    @property
    def store(self) -> Store:
        """The documents."""
        return self.gossip.store

    def wakes(self, wakes: Wakes) -> None:
        """Who is to be told when there is something to say to members."""
        self._wakes = wakes

    def ask(self, keys: Callable[[], KeyStore | None]) -> None:
        """Where roles and strategies are to be found; None while there is no state."""
        self._keys = keys

    def enter(self, record: EpochRecord, me: int | None, signer: Signer) -> None:
        """Sign receipts, and judge authors, under this record too from now on."""
        self._authors.add(record)
        keys = [member.identity for member in record.members]
        self._voters = Voters(record.epoch, scope_of(self._genesis, record), keys)
        self._me, self._signer = me, signer
        for heard in self.gossip.epoch_known(record.epoch):
            self._keep(heard)

    async def run(self) -> None:
        """Work off, save and begin rounds, until cancelled. Raises DiskFailure."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._work_forever())
                tasks.create_task(self._save_forever())
                tasks.create_task(self._tick_forever())
        finally:
            self._disk.shutdown()  # waits for a write that is under way

    def close(self) -> None:
        """Let go of the file, once `run` has ended."""
        self._disk.shutdown()
        self._file.close()

    # --- members (net.dialer.SecondLane) --------------------------------------------------------

    def connected(self, member: int) -> None:
        """See SecondLane."""
        self.gossip.connect(member)

    def lost(self, member: int) -> None:
        """See SecondLane."""
        self.gossip.disconnect(member)

    def say(self, member: int) -> bytes | None:
        """See SecondLane; for a client's connection too."""
        return self.gossip.say(member, _now_ms())

    def met(self, member: int) -> None:
        """This member's connection to us is a new one."""
        self.gossip.talks.met(member)

    def receive(self, link: Link, message: GossipMessage, size_bytes: int) -> None:
        """Take a message about documents. Never waits: what is too much is dropped and counted."""
        if not isinstance(message, SyncMessage):
            if self._controls[link] < CONTROLS_MAX:
                self._controls[link] += 1
                self._put(link, message, size_bytes)
            return
        if self._held[link] + size_bytes > HELD_BYTES_MAX and self._held[link]:
            self._metrics.gossip_dropped.inc()
            self.gossip.talks.dropped(link, size_bytes)
            return
        self._held[link] += size_bytes
        checks = [self._check(operation) for operation in message.operations]
        put = partial(self._put, link, message, size_bytes)
        self._gate.push_message(checks, put, GATE_TURN + link)

    def _check(self, operation: Operation) -> tuple[bytes, bytes, bytes]:
        signed = operation_signing_bytes(self._genesis_hash, operation.body)
        return operation.author, signed, operation.sig

    def _put(self, link: Link, message: GossipMessage, size_bytes: int) -> None:
        self._work.append((link, message, size_bytes))
        self._worked.set()

    # --- clients --------------------------------------------------------------------------------

    def join(self, sink: Sink) -> Link:
        """A client has connected; its link until `leave`."""
        self._next_link += 1
        self._sinks[self._next_link] = sink
        self.gossip.connect(self._next_link)
        return self._next_link

    def leave(self, link: Link) -> None:
        """A client's connection has ended."""
        del self._sinks[link]
        for name in [name for name, links in self._claims.items() if link in links]:
            del self._claims[name][link]
            if not self._claims[name]:
                del self._claims[name]
        self.gossip.disconnect(link)

    def client_says(self, link: Link, message: ClientGossip, size_bytes: int) -> None:
        """Take what a client said about a document that it may read and write."""
        match message:
            case Open(document):
                self.gossip.open(link, document, _now_ms())
            case Claim(document, operations):
                for operation in operations:
                    self._claim(link, document, operation)
            case SyncMessage() | Taken() | ImageAsk():
                self.receive(link, message, size_bytes)

    def _claim(self, link: Link, document: str, operation: bytes) -> None:
        is_here = operation in self.store.find(document).graph
        if is_here and operation not in self._pending:
            self._tell(link, document, operation)
            return
        if operation in self._claims or len(self._claims) < CLAIMS_MAX:
            self._claims.setdefault(operation, {})[link] = document

    def receipt(self, document: str, operation: bytes) -> Receipt | None:
        """This member's word that it holds an operation durably; None while it is no member."""
        if self._me is None:
            return None
        return make_receipt(document, operation, self._me, self._voters, self._signer)

    def _tell(self, link: Link, document: str, operation: bytes) -> None:
        receipt = self.receipt(document, operation)
        if receipt is not None:
            self._sinks[link].receipt(receipt)

    async def submit(self, operations: Sequence[Operation]) -> list[Heard]:
        """Take operations from a client's request; returns when what was applied is durable."""
        heard = []
        for operation in operations:
            heard.append(self.gossip.deliver(operation))
            self._keep(heard[-1])
            await asyncio.sleep(0)
        await self._durable([name for one in heard for name in one.applied])
        return heard

    async def _durable(self, names: Iterable[bytes]) -> None:
        for name in names:
            if name in self._pending:
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.setdefault(name, []).append(partial(_done, future))
                await future

    def deliver(self, request: DocumentRequest) -> None:
        """Take operations that came through the log."""
        for data in request.operations:
            try:
                operation = decode_operation(data)
            except msgspec.DecodeError:
                self._metrics.document_refused.labels("malformed").inc()
                continue
            if document_of(operation) == request.document:
                self._keep(self.gossip.deliver(operation))
            else:
                self._metrics.document_refused.labels("document").inc()

    # --- readers (api.documents.DocumentService) -------------------------------------------------

    def allows(self, client: bytes, document: str, *, write: bool) -> bool:
        """See DocumentService: roles on the key documents/NAME."""
        keys = self._keys()
        if keys is None:
            return False
        access = keys.access
        key = DOCUMENT_PREFIX + document.encode()
        if write:
            return access.refusal(client, PutRequest(key)) is None
        return access.may_read(client, key, b"")

    async def view(self, document: str) -> dict[str, Any] | None:
        """See DocumentService."""
        if document not in self.store:
            return None
        found = self.store.document(document)
        await self._resolve(found)
        shown = show(found, self.resolutions, _now_ms())
        self._metrics.conflict_count.set(self.resolutions.conflict_count)
        return {"document": document, "heads": [h.hex() for h in found.heads], "view": shown}

    async def conflicts(self, readable: Callable[[str], bool]) -> dict[str, Any]:
        """See DocumentService."""
        for document in self.store:
            if readable(document.name):
                await self._resolve(document)
                show(document, self.resolutions, _now_ms())
        return described(self.resolutions, readable)

    async def _resolve(self, document: Document) -> None:
        """Ask users' functions, which may take long, on a thread: nothing here waits for them."""
        self._choose()
        for strategy, conflict in self.resolutions.due(document):
            answer = await asyncio.to_thread(answer_of, strategy, conflict)
            self.resolutions.know(strategy, conflict, answer)

    def _choose(self) -> None:
        """Follow the rules that are agreed now."""
        keys = self._keys()
        if keys is None or keys.strategies.version == self._strategies_version:
            return
        self._strategies_version = keys.strategies.version
        chosen = choose(keys.strategies.settings.rules, self._genesis)
        self.resolutions.follow(chosen.strategies)
        for problem in chosen.problems:
            _log.error("strategy-problem", extra={"detail": problem})

    async def changed(self, document: str, version: bytes | None) -> bytes | None:
        """See DocumentService."""
        while True:
            now = self.gossip.parts.state(document)
            if now != version:
                return now
            event = self._moved.setdefault(document, asyncio.Event())
            await event.wait()

    # --- work -----------------------------------------------------------------------------------

    async def _work_forever(self) -> None:
        while True:
            await self._worked.wait()
            self._worked.clear()
            while self._work:
                await self._take(*self._work.popleft())

    async def _take(self, link: Link, message: GossipMessage, size_bytes: int) -> None:
        if not isinstance(message, SyncMessage):
            self._controls[link] -= 1
            self.gossip.receive(link, message, size_bytes, _now_ms())
            await asyncio.sleep(0)
            return
        self._held[link] -= size_bytes
        if not self._held[link]:
            del self._held[link]
        operations = message.operations
        for at in range(0, len(operations), SLICE_OPERATIONS):
            part = operations[at : at + SLICE_OPERATIONS]
            is_last = at + SLICE_OPERATIONS >= len(operations)
            piece = SyncMessage(message.document, message.summary if is_last else None, part)
            self._hear(link, piece, size_bytes if is_last else 0)
            await asyncio.sleep(0)
        if not operations:
            self._hear(link, message, size_bytes)
            await asyncio.sleep(0)

    def _hear(self, link: Link, message: SyncMessage, size_bytes: int) -> None:
        self._keep(self.gossip.receive(link, message, size_bytes, _now_ms()))

    def _keep(self, heard: Heard) -> None:
        """Have what was applied saved."""
        for reason in heard.refused:
            self._metrics.document_refused.labels(reason).inc()
        if not heard.applied:
            return
        document = self.store.document(heard.document)
        for name in heard.applied:
            operation = document.operation(name)
            assert operation is not None, "applied a moment ago"
            self._unsaved.append((heard.document, operation))
            self._pending.add(name)
        moved = self._moved.pop(heard.document, None)
        if moved is not None:
            moved.set()
        self._metrics.document_operations.inc(len(heard.applied))
        self._saving.set()

    async def _save_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._saving.wait()
            self._saving.clear()
            while self._unsaved:
                count = min(len(self._unsaved), SAVED_AT_ONCE_MAX)
                batch = [self._unsaved.popleft() for _ in range(count)]
                await self._with_room(partial(loop.run_in_executor, self._disk, self._save, batch))
                for document, operation in batch:
                    self._saved(document, operation.hash())

    def _save(self, batch: list[tuple[str, Operation]]) -> None:
        self._file.append(batch)

    def waits_for_disk(self, document: Document) -> bool:
        """True while something of a document is not durable here."""
        return bool(self._pending) and any(name in document.graph for name in self._pending)

    async def rewrite(self, document: Document) -> None:
        """Put a document that was collected in place of its rows; durable on return."""
        covered = [operation for name, operation in self._unsaved if name == document.name]
        self._unsaved = deque(item for item in self._unsaved if item[0] != document.name)
        self.gossip.renewed(document.name)
        replace, loop = partial(self._file.replace, document.parts()), asyncio.get_running_loop()
        await self._with_room(partial(loop.run_in_executor, self._disk, replace))
        for operation in covered:
            name = operation.hash()
            if name not in document.graph:  # stranded: nobody is told that it is held
                self._claims.pop(name, None)
            self._saved(document.name, name)

    async def _with_room(self, write: Callable[[], asyncio.Future[None]]) -> None:
        full = False
        while True:
            try:
                return await write()
            except DocumentFileFull as error:
                if not full:
                    _log.error("documents-disk-full", extra={"detail": str(error)})
                full = True
                await asyncio.sleep(DISK_FULL_RETRY_S)
            except DocumentFileError as error:
                raise DiskFailure(str(error)) from error

    def _saved(self, document: str, operation: bytes) -> None:
        self._pending.discard(operation)
        for done in self._waiting.pop(operation, ()):
            done()
        for link, claimed in self._claims.pop(operation, {}).items():
            if link in self._sinks and claimed == document:
                self._tell(link, document, operation)

    async def _tick_forever(self) -> None:
        while True:
            self.gossip.tick(_now_ms())
            leveled = self.gossip.talks.leveled_ms
            while leveled:
                self._metrics.synced(leveled.popleft() / 1000)
            await asyncio.sleep(TICK_S)

    def _wake(self, link: Link) -> None:
        if link < CLIENTS:
            if self._wakes is not None:
                self._wakes.wake(link)
        elif link in self._sinks:
            self._sinks[link].wake()


def _done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
