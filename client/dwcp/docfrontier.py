"""A client follows the frontiers that members agreed on, and makes its stranded edits again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dwcp import errors
from dwcp.crdt import Document, Operation, Outbox, Store
from dwcp.crdt.rebase import rebase
from dwcp.dochooks import Hooks
from dwcp.imagefetch import ImageFetcher
from dwcp.wire.frontiers import Frontier, image_digest


class Owner(Protocol):
    """The documents of a client."""

    @property
    def store(self) -> Store:
        """The documents."""
        ...

    def outbox(self, name: str) -> Outbox:
        """What waits for receipts."""
        ...

    def reached(self) -> list[int]:
        """The members that are connected."""
        ...

    def rewritten(
        self, document: Document, gone: Sequence[Operation], made: list[Operation]
    ) -> None:
        """A document was collected: keep it so, and send what was made again."""
        ...


@dataclass(slots=True)
class FrontierFollower:
    """Of one client. `rebased` and `edits_lost`: what was made again, and what could not be."""

    owner: Owner
    hooks: Hooks
    fetcher: ImageFetcher
    epoch: Callable[[], int]
    rebased: int = 0
    edits_lost: int = field(default=0)

    async def follow(self, name: str, timeout_ms: int) -> bool:
        """Stand where the cluster stands; False when that was not to be learned, or had, now."""
        try:
            frontier = await self.hooks.frontier(name, timeout_ms=timeout_ms)
        except errors.DWCPError:
            return False
        document = self.owner.store.find(name)
        if frontier is None or image_digest(document.image or b"") == frontier.image:
            return True
        stranded = await self._collect(document, frontier)
        if stranded is None:
            return False
        self.owner.store.put(document)
        done = rebase(document, stranded, self.hooks.signer, self.epoch())
        self.rebased += len(done.made)
        self.edits_lost += done.edits_lost
        self.owner.rewritten(document, stranded, done.made)
        return True

    async def _collect(self, document: Document, frontier: Frontier) -> list[Operation] | None:
        graph = document.graph
        if all(graph.numbers.get(head, -1) >= graph.floor for head in frontier.heads):
            drawn = await asyncio.to_thread(document.material(frontier.heads).image)
            if image_digest(drawn) == frontier.image:
                return document.collect(frontier.heads, drawn)
        sources = self.owner.reached()
        image = await self.fetcher.fetch(sources, document.name, frontier.image)
        return None if image is None else document.adopt(image)
