"""One document of a client: what its user reads and edits (dwcp.documents has the rest)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from dwcp import errors
from dwcp.crdt import Conflict, Document, Transaction, conflict_at, conflicts, settle, show
from dwcp.crdt.values import Value
from dwcp.wire.documents import Kind

if TYPE_CHECKING:
    from dwcp.documents import Documents

FOLLOW_MS: Final = 2_000
"""To learn what is agreed takes no longer, or it is asked again later."""


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
