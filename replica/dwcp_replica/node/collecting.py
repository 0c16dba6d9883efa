"""Forgetting edits of documents: when a member votes for a frontier, and what follows from one.

    kept for long enough ──> candidate ──> image drawn on a thread ──> vote ──log──> FrontierTable
                                                                                         │
    rows replaced <── collect, or take the image of somebody who has it <── agreed <─────┘

A member votes for what another has voted for already, when it would have voted for it itself: it
holds all below durably, for the time of retention by its own clock, and would strand nothing that
it holds. How long something has been here is remembered in memory: a restart begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from dwcp.crdt import Document, Operation, Refused
from dwcp.crdt.frontier import candidate, strands
from dwcp.imagefetch import ImageFetcher
from dwcp.wire.envelope import Envelope, EnvelopeBody, envelope_signing_bytes
from dwcp.wire.frontiers import FRONTIER_HEADS_MAX, Frontier, FrontierVote, image_digest
from dwcp.wire.signing import Signer
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.node.documents import DocumentRoom
from dwcp_replica.store import KeyStore

LOOK_S: Final = 5.0
WORTH_OPERATIONS: Final = 256
"""A frontier that forgets fewer is not worth a vote."""
MARKS_MAX: Final = 64
VOTE_AGAIN_S: Final = 30.0
DRAWN_MAX: Final = 8
"""Images that wait for a quorum; others are drawn anew."""

_log = logging.getLogger(__name__)


class Ages:
    """How many of a document's operations have been here for a given time."""

    def __init__(self) -> None:
        self._marks: dict[str, deque[tuple[float, int, int]]] = {}

    def old(self, document: Document, now_s: float, retention_s: float) -> int:
        """How many of its operations, from the first on, have been here that long."""
        marks = self._marks.setdefault(document.name, deque())
        generation, count = document.generation, len(document.graph)
        if marks and marks[-1][1] != generation:  # numbered anew
            marks.clear()
        pause_s = retention_s / MARKS_MAX
        if not marks or (marks[-1][2] < count and now_s - marks[-1][0] >= pause_s):
            marks.append((now_s, generation, count))
        old = 0
        while marks and now_s - marks[0][0] >= retention_s:
            old = marks[0][2]
            if len(marks) == 1 or now_s - marks[1][0] < retention_s:
                break
            marks.popleft()
        return old


class Collector:
    """One member's part in forgetting."""

    def __init__(
        self, room: DocumentRoom, keys: Callable[[], KeyStore | None], genesis: bytes,
        signer: Callable[[], Signer], submit: Callable[[Envelope], None], metrics: ReplicaMetrics,
    ) -> None:  # fmt: skip
        self._room = room
        self._keys = keys
        self._genesis = genesis
        self._signer = signer
        self._submit = submit
        self._metrics = metrics
        self.worth_operations = WORTH_OPERATIONS
        self.look_s = LOOK_S
        self._ages = Ages()
        self._drawn: dict[str, tuple[tuple[bytes, ...], bytes]] = {}
        self._voted: dict[str, tuple[Frontier, float]] = {}
        self._looked: dict[str, tuple[object, ...]] = {}
        self._stamp_ms = 0
        self._fetcher = ImageFetcher(room.gossip.tell)
        room.gossip.on_image = self._fetcher.take

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self.look_s)
            keys = self._keys()
            if keys is not None:
                await self.round(keys, time.monotonic())

    async def round(self, keys: KeyStore, now_s: float) -> None:
        """Follow what is agreed, then vote."""
        for name, frontier in keys.frontiers.all():
            await self._follow(name, frontier)
        retention_s = keys.strategies.settings.retention_s
        if not retention_s:
            return
        for document in self._room.store:
            old = self._ages.old(document, now_s, retention_s)
            if old - document.graph.floor >= self.worth_operations:
                await self._vote(keys, document, old, now_s)
            await asyncio.sleep(0)

    # --- voting ---------------------------------------------------------------------------------

    async def _vote(self, keys: KeyStore, document: Document, old: int, now_s: float) -> None:
        mine = self._signer().public_key
        votes = keys.frontiers.votes()
        claims = Counter(  # ours too: two that each took the other's would swap for ever
            frontier
            for one in votes.values()
            for name, frontier in one.votes
            if name == document.name
        )
        graph, name = document.graph, document.name
        said = votes[mine].votes if mine in votes else ()
        seen = document.generation, len(graph), old, frozenset(claims.items())
        if self._looked.get(name) == seen:  # to look costs as much as there is to forget
            if name in self._voted:
                self._say(said, name, self._voted[name][0], now_s)
            return
        wanted: Frontier | None = None
        for claim, _ in sorted(claims.items(), key=lambda item: (-item[1], item[0].image)):
            if self._acceptable(document, claim.heads, old):
                if image_digest(await self._draw(document, claim.heads)) != claim.image:
                    _log.error("document-image-differs", extra={"document": document.name})
                    continue
                wanted = claim
                break
        else:
            heads = tuple(sorted(graph.hashes[number] for number in candidate(graph, old)))
            if heads and self._acceptable(document, heads, old):
                wanted = Frontier(heads, image_digest(await self._draw(document, heads)))
        if wanted is not None:
            self._say(said, name, wanted, now_s)
        if not self._room.waits_for_disk(document):
            self._looked[name] = seen

    def _acceptable(self, document: Document, heads: Sequence[bytes], old: int) -> bool:
        """Whether we hold all below these heads for long enough, and would strand nothing."""
        graph = document.graph
        numbers = [graph.numbers.get(name, old) for name in heads]
        if len(heads) > FRONTIER_HEADS_MAX or max(numbers) >= old:
            return False
        if any(number < graph.floor for number in numbers) or self._room.waits_for_disk(document):
            return False
        try:
            return not strands(graph, numbers) and bool(document.material(heads).operations)
        except Refused:
            return False

    def _say(
        self, said: tuple[tuple[str, Frontier], ...], document: str, wanted: Frontier, now_s: float
    ) -> None:
        """Vote, unless it counts already or is on its way."""
        if (document, wanted) in said:
            return
        before = self._voted.get(document)
        if before is not None and before[0] == wanted and now_s - before[1] < VOTE_AGAIN_S:
            return
        self._voted[document] = wanted, now_s
        self._stamp_ms = max(int(time.time() * 1000), self._stamp_ms + 1)
        body = msgspec.msgpack.encode(
            EnvelopeBody(0, 0, 0, (FrontierVote(self._stamp_ms, document, wanted),))
        )
        signer = self._signer()
        sig = signer.sign(envelope_signing_bytes(self._genesis, body))
        self._submit(Envelope(signer.public_key, body, sig))

    async def _draw(self, document: Document, heads: Sequence[bytes]) -> bytes:
        """The image at these heads. Other work goes on meanwhile."""
        known = self._drawn.get(document.name)
        if known is None or known[0] != tuple(heads):
            image = await asyncio.to_thread(document.material(heads).image)
            known = self._drawn[document.name] = tuple(heads), image
            while len(self._drawn) > DRAWN_MAX:
                del self._drawn[next(iter(self._drawn))]
        return known[1]

    # --- following ------------------------------------------------------------------------------

    async def _follow(self, name: str, frontier: Frontier) -> None:
        document = self._room.store.find(name)
        graph = document.graph
        if image_digest(document.image or b"") == frontier.image:
            return
        if all(graph.numbers.get(head, -1) >= graph.floor for head in frontier.heads):
            try:
                image = await self._draw(document, frontier.heads)
            except Refused as error:
                _log.error("frontier-refused", extra={"document": name, "detail": str(error)})
                return
            if image_digest(image) != frontier.image:
                _log.error("document-image-differs", extra={"document": name})
                return
            stranded = document.collect(frontier.heads, image)
        else:
            members = self._room.gossip.members()
            found = await self._fetcher.fetch(members, name, frontier.image)
            if found is None:
                return
            document = self._room.store.document(name)
            stranded = document.adopt(found)
        self._tell(document, stranded)
        self._drawn.pop(name, None)
        self._voted.pop(name, None)
        self._looked.pop(name, None)
        await self._room.rewrite(document)

    def _tell(self, document: Document, stranded: Sequence[Operation]) -> None:
        self._metrics.document_collected.inc()
        self._metrics.document_stranded.inc(len(stranded))
        extra = {"document": document.name, "stranded": len(stranded)}
        _log.info("document-collected", extra={**extra, "below": document.graph.floor})
