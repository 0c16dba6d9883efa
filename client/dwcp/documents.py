"""Documents of a client: an offline replica that syncs with the members it reaches.

    doc = client.doc("notes")
    await doc.synced()
    with doc.edit() as edit:
        edit.insert("body", 0, "Hello")
    await doc.safe()                     # f+1 members signed that they hold it
    async for change in doc.changes():
        print(change.view)

An edit is made here, durably when the client has a file for documents, and needs nobody; it is
`local` until f+1 members have signed receipts, and sent again until then. Reading needs no trust:
every operation carries its author's signature. What one member hides, the others show: `synced`
waits until f+1 members show the same as is here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dwcp import errors
from dwcp.connection import Connection
from dwcp.crdt import (
    Conflict,
    Document,
    Operation,
    Outbox,
    Resolutions,
    Rules,
    Store,
    Transaction,
    Voters,
    conflict_at,
    conflicts,
    settle,
    show,
    sync,
)
from dwcp.crdt.authors import EpochAuthors
from dwcp.crdt.talks import Talks
from dwcp.crdt.values import Value
from dwcp.docfile import DocumentFile
from dwcp.dochistory import told
from dwcp.dochooks import Hooks
from dwcp.strategies import Followed
from dwcp.wire.documents import Kind, Receipt, SyncMessage, encode_document
from dwcp.wire.gossip import (
    CLAIMS_MAX,
    Claim,
    Denied,
    Open,
    ReplicaGossip,
    Taken,
    decode_replica_gossip,
    encode_gossip,
)
from dwcp.wire.operations import DocumentRequest, DocumentResponse
from dwcp.wire.records import Member, scope_of

PATH: Final = "/dwcp/v1/docs/connect"
TICK_S: Final = 0.1
CLAIM_AGAIN_TICKS: Final = 10
FOLLOW_S: Final = 60.0
"""Between two looks at which strategies are agreed."""
FOLLOW_MS: Final = 2_000
LOG_DEADLINE_MS: Final = 1_000
"""An edit that the log did not take by then is gossiped; it may come by both ways."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version of a document: the hashes that name it, and its view."""

    heads: tuple[bytes, ...]
    view: Value


class Doc:
    """One document of a client. Belongs to the client's event loop."""

    def __init__(self, owner: Documents, name: str) -> None:
        self.name = name
        self._owner = owner

    @property
    def document(self) -> Document:
        """The replica itself; change it by `edit` only."""
        return self._owner.store.document(self.name)

    @property
    def heads(self) -> list[bytes]:
        """Hashes of the operations that none follows: they name the version."""
        return self.document.heads

    @property
    def status(self) -> Literal["local", "safe"]:
        """local while an edit of this client waits for f+1 receipts."""
        return "local" if self._owner.outbox(self.name).unsafe() else "safe"

    def view(self) -> Value:
        """The document as JSON, conflicts shown by this client's strategies."""
        return show(self.document, self._owner.resolutions, self._owner.now_ms())

    def get(self, path: str | tuple[str, ...], kind: Kind) -> Value:
        """The JSON view of one object, or None when it is not there."""
        return self.document.get(path, kind)

    def conflicts(self) -> list[Conflict]:
        """Registers that hold concurrent values."""
        return list(conflicts(self.document))

    def strategy(self, path: tuple[str, ...]) -> str:
        """The name of the strategy that shows a conflict at a path."""
        return self._owner.resolutions.strategies.of(self.name, path).name

    @contextmanager
    def edit(self) -> Iterator[Transaction]:
        """Edit at once and offline; at the end all edits are one signed operation, kept and sent.

        Raises dwcp.crdt.Refused when this client may not write, OutboxFull, DocumentFileError.
        """
        self._owner.may_edit(self.name)
        document = self.document
        before = len(document.graph)
        with document.edit(self._owner.signer, self._owner.epoch) as transaction:
            yield transaction
        made = range(before, len(document.graph))
        self._owner.made(self.name, list(document.operations(made)))

    def settle(self, path: tuple[str, ...], value: Value) -> None:
        """Decide a conflict: write a value over all its values. Raises LookupError without one."""
        conflict = conflict_at(self.document, path)
        if conflict is None:
            raise LookupError(f"there is no conflict at {'/'.join(path)}")
        with self.edit() as edit:
            settle(edit, conflict, value)

    async def follow_strategies(self, timeout_ms: int = FOLLOW_MS) -> bool:
        """Show conflicts as is agreed now; False when that was not to be learned in time.

        It also happens by itself, now and then.
        """
        return await self._owner.followed.follow(timeout_ms)

    async def told(self) -> dict[str, Any]:
        """What one member tells of this document's conflicts: waiting, history, strategies."""
        return await self._owner.told(self.name)

    async def synced(self, timeout_ms: int = 15_000) -> None:
        """Wait until f+1 members show the same version. Raises errors.TimedOut."""
        await self._until(self._is_synced, timeout_ms, "members show the same version")

    async def safe(self, timeout_ms: int = 15_000) -> None:
        """Wait until f+1 members hold every edit of this client. Raises errors.TimedOut."""
        await self._until(lambda: self.status == "safe", timeout_ms, "members hold every edit")

    async def changes(self) -> AsyncIterator[Change]:
        """The version that is here, and every later one; several may come as one."""
        event = self._owner.listen(self.name)
        seen: tuple[bytes, ...] | None = None
        try:
            while True:
                event.clear()
                heads = tuple(self.heads)
                if heads != seen:
                    seen = heads
                    yield Change(heads, self.view())
                else:
                    await event.wait()
        finally:
            self._owner.unlisten(self.name, event)

    def _is_synced(self) -> bool:
        return self._owner.level(self.name) > self._owner.f

    async def _until(self, holds: Callable[[], bool], timeout_ms: int, what: str) -> None:
        event = self._owner.listen(self.name)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while not holds():
                    event.clear()
                    await event.wait()
        except TimeoutError:
            raise errors.TimedOut(
                f"not within {timeout_ms / 1000:g} s: {self._owner.f + 1} {what} "
                f"({self._owner.standing()}). What was edited is kept and sent again"
            ) from None
        finally:
            self._owner.unlisten(self.name, event)


class Documents:
    """The documents of one client, over connections of their own to the members in `via`."""

    def __init__(self, hooks: Hooks, path: Path | None, via: frozenset[str] | None) -> None:
        self._hooks = hooks
        self.signer = hooks.signer
        self.resolutions = Resolutions()
        self.followed = Followed(self.resolutions, hooks)
        self.denied: Counter[str] = Counter()
        self.by_log = self.by_gossip = 0
        """Operations that the log confirmed; edits that it did not, and that were gossiped."""
        self._authors = EpochAuthors(hooks.checker.records.records)
        rules = Rules(hooks.genesis.hash(), hooks.verifier, self._authors)
        self._file = None if path is None else DocumentFile(path)
        loaded = None if self._file is None else self._file.load(rules)
        self.store = Store(rules) if loaded is None else loaded.store
        self.talks = Talks(self.store, self._pump)
        self._via = via
        self._connections: dict[int, Connection[ReplicaGossip]] = {}
        self._outboxes: dict[str, Outbox] = {}
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._open: dict[str, Doc] = {}
        self._unsaved: list[tuple[str, Operation]] = []
        self._logging: Counter[str] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        self._ticks = 0
        if loaded is not None:
            self._restore(loaded.waiting)

    # --- for the client ------------------------------------------------------------------------

    def doc(self, name: str) -> Doc:
        """A document, kept in sync from now on."""
        if name not in self._open:
            self._open[name] = Doc(self, name)
            if not self._connections:
                self._hooks.start(self._run(), "dwcp-documents")
                self._hooks.start(self._follow_forever(), "dwcp-document-strategies")
            self.grow()
            for member, connection in self._connections.items():
                if connection.up:
                    self._introduce(member, name)
        return self._open[name]

    def grow(self) -> None:
        """Connect to members that are new, and count by the newest record."""
        records = self._hooks.checker.records
        for record in records.records:
            self._authors.add(record)
        for document in list(self.store):
            self._keep(document.name, document.epoch_known(records.current.epoch))
        for outbox in self._outboxes.values():
            if outbox.voters.epoch != records.current.epoch:
                outbox.change_epoch(self._voters())
        for member, peer in enumerate(self._hooks.checker.peers):
            chosen = self._via is None or peer.name in self._via
            if chosen and member not in self._connections:
                self._connections[member] = self._connection(member, peer)

    async def told(self, name: str) -> dict[str, Any]:
        """See Doc."""
        return await told(self._hooks, name, self._via)

    def close(self) -> None:
        """Save what is not yet, and let go of the file."""
        for task in self._sending:
            task.cancel()
        if self._file is not None:
            if self._unsaved:
                self._file.append(self._unsaved)
                self._unsaved.clear()
            self._file.close()

    # --- for its documents ---------------------------------------------------------------------

    @property
    def f(self) -> int:
        """How many members may lie."""
        return self._hooks.checker.f

    @property
    def epoch(self) -> int:
        """The newest epoch known here."""
        return self._hooks.checker.epoch

    @staticmethod
    def now_ms() -> int:
        """The loop's clock in milliseconds."""
        return int(asyncio.get_running_loop().time() * 1000)

    def level(self, name: str) -> int:
        """How many members showed the version that is here."""
        document, count = self.store.find(name), 0
        for member, connection in self._connections.items():
            talk = self.talks.about(member, name) if connection.up else None
            count += talk is not None and sync.is_equal(document, talk.state)
        return count

    def standing(self) -> str:
        """Who is reached, in words."""
        up = sum(connection.up for connection in self._connections.values())
        said = f"{up} of {len(self._connections)} members connected"
        return f"{said}; refused: {dict(self.denied)}" if self.denied else said

    def outbox(self, name: str) -> Outbox:
        """What waits for receipts."""
        if name not in self._outboxes:
            self._outboxes[name] = Outbox(name, self._voters(), self._hooks.verifier)
        return self._outboxes[name]

    def may_edit(self, name: str) -> None:
        """Raises OutboxFull when too much waits for receipts already."""
        self.outbox(name).room()

    def made(self, name: str, operations: list[Operation]) -> None:
        """Operations of our own: keep them durably, then send them."""
        hashes = [operation.hash() for operation in operations]
        if self._file is not None:
            self._file.append([(name, operation) for operation in operations], hashes)
        for operation in operations:
            self.outbox(name).add(operation)
        self._changed(name)
        if self._hooks.checker.records.current.protocol == "raft":
            task = asyncio.create_task(self._by_log(name, operations))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        else:
            self._gossip(name)

    def listen(self, name: str) -> asyncio.Event:
        """An event that is set whenever something becomes of the document."""
        event = asyncio.Event()
        self._listeners.setdefault(name, set()).add(event)
        return event

    def unlisten(self, name: str, event: asyncio.Event) -> None:
        """Set it no more."""
        self._listeners[name].discard(event)

    # --- inside --------------------------------------------------------------------------------

    async def _follow_forever(self) -> None:
        while True:
            await self.followed.follow(FOLLOW_MS)
            await asyncio.sleep(FOLLOW_S)

    def _connection(self, number: int, peer: Member) -> Connection[ReplicaGossip]:
        hooks, http = self._hooks, self._hooks.http()
        assert http is not None, "the client runs"
        connection = Connection(
            member=number, identity=peer.identity, url=peer.client, trust=hooks.trust(peer),
            answer=hooks.answer, on_change=self._on_change, on_message=self._on_message,
            path=PATH, decode=decode_replica_gossip,
        )  # fmt: skip
        hooks.start(connection.run(http), f"dwcp-documents-{number}")
        return connection

    def _voters(self) -> Voters:
        record = self._hooks.checker.records.current
        keys = [member.identity for member in record.members]
        return Voters(record.epoch, scope_of(self._hooks.genesis, record), keys)

    def _restore(self, waiting: frozenset[bytes]) -> None:
        """Put what was not safe when the file was closed back into the outboxes."""
        for document in self.store:
            for name in document.graph.hashes:
                operation = document.operation(name) if name in waiting else None
                if operation is not None:
                    self.outbox(document.name).add(operation)

    async def _by_log(self, name: str, operations: list[Operation]) -> None:
        """Through the log while it takes edits; by gossip when it does not."""
        self._logging[name] += 1
        try:
            return await self._log_each(name, operations)
        finally:
            self._logging[name] -= 1

    async def _log_each(self, name: str, operations: list[Operation]) -> None:
        for operation in operations:  # each by itself: one may be as large as an envelope
            request = DocumentRequest(name, (encode_document(operation),))
            try:
                await self._hooks.through_log(request, DocumentResponse, LOG_DEADLINE_MS)
            except errors.DWCPError:
                self.by_gossip += 1
                return self._gossip(name)
            self.by_log += 1
        return self._claim(name)

    def _gossip(self, name: str) -> None:
        self.talks.news(name, self._connections)
        self._claim(name)

    def _claim(self, name: str) -> None:
        hashes = [operation.hash() for operation in self.outbox(name).unsafe()]
        for at in range(0, len(hashes), CLAIMS_MAX):
            frame = encode_gossip(Claim(name, tuple(hashes[at : at + CLAIMS_MAX])))
            for connection in self._connections.values():
                if connection.up:
                    connection.send(frame)

    def _on_change(self, member: int, up: bool) -> None:
        if not up:
            self.talks.remove(member)
            return
        self.talks.add(member)
        self.talks.met(member)
        for name in self._open:
            self._introduce(member, name)
            self._claim(name)

    def _introduce(self, member: int, name: str) -> None:
        self._connections[member].send(encode_gossip(Open(name)))
        self.talks.begin(member, name, self.now_ms())

    def _on_message(self, member: int, message: ReplicaGossip) -> None:
        match message:
            case SyncMessage():
                self._take(member, message)
            case Taken():
                self.talks.taken(member, message)
            case Receipt():
                self._on_receipt(message)
            case Denied(_, reason, _):
                self.denied[reason] += 1

    def _take(self, member: int, message: SyncMessage) -> None:
        name = message.document
        if name not in self._open:
            self.denied["unasked"] += 1
            return
        size_bytes = sum(len(o.body) for o in message.operations)
        heard = self.talks.receive(member, message, size_bytes, self.now_ms())
        self._keep(name, heard.applied)
        self._changed(name)
        for epoch in self.store.find(name).held.epochs():
            self._hooks.heard_of(epoch)

    def _keep(self, name: str, applied: Sequence[bytes]) -> None:
        """Have what came from others saved, and passed on to who lacks it."""
        if not applied:
            return
        document = self.store.document(name)
        found = (document.operation(one) for one in applied)
        self._unsaved += [(name, operation) for operation in found if operation is not None]
        self._changed(name)

    def _on_receipt(self, receipt: Receipt) -> None:
        outbox = self._outboxes.get(receipt.document)
        if outbox is None:
            return
        if receipt.epoch > outbox.voters.epoch:
            self._hooks.heard_of(receipt.epoch)
        elif outbox.receive(receipt):
            if self._file is not None:
                self._file.safe([receipt.operation])
            self._changed(receipt.document)

    def _changed(self, name: str) -> None:
        for event in self._listeners.get(name, ()):
            event.set()

    def _pump(self, member: int) -> None:
        connection = self._connections.get(member)
        while connection is not None and connection.up:
            frame = self.talks.say(member, self.now_ms())
            if frame is None:
                return
            connection.send(frame)

    async def _run(self) -> None:
        """Notice losses, claim again, and save what came from others."""
        while True:
            await asyncio.sleep(TICK_S)
            self.talks.tick(self.now_ms())
            self._ticks += 1
            if self._ticks % CLAIM_AGAIN_TICKS == 0:
                for name, outbox in self._outboxes.items():
                    if outbox.unsafe():
                        self._claim(name) if self._logging[name] else self._gossip(name)
            if self._unsaved and self._file is not None:
                batch, self._unsaved = self._unsaved, []
                await asyncio.to_thread(self._file.append, batch)
