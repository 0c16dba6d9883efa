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
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dwcp import errors
from dwcp.connection import Connection
from dwcp.crdt import (
    Document,
    Operation,
    Outbox,
    Resolutions,
    Rules,
    Store,
    Voters,
    sync,
)
from dwcp.crdt.authors import EpochAuthors
from dwcp.crdt.talks import Talks
from dwcp.doc import FOLLOW_MS, Doc
from dwcp.docfile import DocumentFile
from dwcp.docfrontier import FrontierFollower
from dwcp.dochistory import told
from dwcp.dochooks import Hooks
from dwcp.imagefetch import ImageFetcher
from dwcp.logway import LogWay
from dwcp.strategies import Followed
from dwcp.wire.documents import Receipt, SyncMessage, encode_document
from dwcp.wire.gossip import (
    CLAIMS_MAX,
    Claim,
    Denied,
    ImagePart,
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
FOLLOW_AGAIN_S: Final = 2.0
STRANDED_TICKS: Final = 30
"""An edit that is local for so long may have been made below a frontier: look."""


class Documents:
    """The documents of one client, over connections of their own to the members in `via`."""

    def __init__(self, hooks: Hooks, path: Path | None, via: frozenset[str] | None) -> None:
        self._hooks = hooks
        self.signer = hooks.signer
        self.resolutions = Resolutions()
        self.followed = Followed(self.resolutions, hooks)
        self._fetcher = ImageFetcher(lambda member, ask: self._send(member, encode_gossip(ask)))
        self.frontiers = FrontierFollower(self, hooks, self._fetcher, lambda: self.epoch)
        self._look = asyncio.Event()
        self.denied: Counter[str] = Counter()
        self.log_way = LogWay()
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
            self._look.set()
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
        protocol = self._hooks.checker.records.current.protocol
        if protocol == "raft" and self.log_way.is_open(self.now_ms()):
            task = asyncio.create_task(self._by_log(name, operations))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        else:
            self._gossip(name)

    def reached(self) -> list[int]:
        """The members that are connected."""
        return [member for member, connection in self._connections.items() if connection.up]

    def rewritten(
        self, document: Document, gone: Sequence[Operation], made: list[Operation]
    ) -> None:
        """A document was collected: keep it so, and send what was made again."""
        name, outbox = document.name, self.outbox(document.name)
        lost = [operation.hash() for operation in gone]
        self._unsaved = [item for item in self._unsaved if item[0] != name]
        if self._file is not None:
            self._file.replace(document.parts(), [one.hash() for one in made], lost)
        for one in lost:
            outbox.drop(one)
        for operation in made:
            outbox.add(operation)
        self._changed(name)
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
            self._look.clear()
            level = True
            for name in list(self._open):
                level &= await self.frontiers.follow(name, FOLLOW_MS)
            with suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S if level else FOLLOW_AGAIN_S):
                    await self._look.wait()

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
            began_ms = self.now_ms()
            self.log_way.begun(began_ms)
            deadline_ms = self.log_way.deadline_ms
            try:
                await self._hooks.through_log(request, DocumentResponse, deadline_ms)
            except errors.DWCPError:
                self.log_way.missed(self.now_ms())
                self.by_gossip += 1
                return self._gossip(name)
            self.log_way.confirmed(self.now_ms() - began_ms)
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

    def _send(self, member: int, frame: bytes) -> None:
        connection = self._connections.get(member)
        if connection is not None and connection.up:
            connection.send(frame)

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
            case ImagePart():
                self._fetcher.take(member, message)
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
                        if self._ticks % STRANDED_TICKS == 0:
                            self._look.set()
                        self._claim(name) if self._logging[name] else self._gossip(name)
            if self._unsaved and self._file is not None:
                batch, self._unsaved = self._unsaved, []
                await asyncio.to_thread(self._file.append, batch)
