"""What each type means, said once more and slowly: from all operations and their whole pasts.

Nothing of the product's state is used: pasts are plain sets, every value is computed from scratch.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from dwcp.wire.documents import (
    Add,
    Assign,
    Discard,
    Edit,
    Increment,
    Insert,
    Make,
    Operation,
    OperationBody,
    Remove,
)

Path = tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One edit of one operation, with the order that last-writer-wins goes by."""

    operation: bytes
    at: int
    edit: Edit
    order: tuple[int, bytes, bytes]


class Oracle:
    adding: ClassVar[tuple[type, ...]] = (Add, Assign, Increment, Insert, Make)

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.past: dict[bytes, set[bytes]] = {}
        self.events: list[Event] = []
        decode = msgspec.msgpack.Decoder(OperationBody).decode
        waiting = {o.hash(): (o, decode(o.body)) for o in operations}
        while waiting:
            for name, (operation, body) in list(waiting.items()):
                parents = (*body.heads, *body.names)
                if all(parent in self.past for parent in parents):
                    del waiting[name]
                    self.past[name] = set(parents).union(*(self.past[p] for p in parents))
                    order = (body.lamport, operation.author, name)
                    self.events += [Event(name, at, e, order) for at, e in enumerate(body.edits)]

    def before(self, first: Event, second: Event) -> bool:
        """True when the second edit's author saw the first."""
        if first.operation == second.operation:
            return first.at < second.at
        return first.operation in self.past[second.operation]

    def live(self, path: Path, *kinds: type) -> list[Event]:
        """Edits at a path that no removal of the key or of one above it saw."""
        removals = [
            e
            for e in self.events
            if isinstance(e.edit, Remove) and path[: len(e.edit.path)] == e.edit.path
        ]
        found = [e for e in self.events if isinstance(e.edit, kinds) and e.edit.path == path]
        return [e for e in found if not any(self.before(e, r) for r in removals)]

    def counter(self, path: Path) -> int | None:
        events = self.live(path, Increment, Make)
        if not events:
            return None
        return sum(e.edit.amount for e in events if isinstance(e.edit, Increment))

    def register(self, path: Path) -> list[Any] | None:
        """The writes that no other write saw, by order."""
        everything = [e for e in self.events if isinstance(e.edit, Assign) and e.edit.path == path]
        writes = self.live(path, Assign)
        if not writes:
            return None
        last = [w for w in writes if not any(self.before(w, other) for other in everything)]
        return [w.edit.value for w in sorted(last, key=lambda w: w.order)]  # type: ignore[union-attr]

    def members(self, path: Path, kind: str) -> list[Any] | None:
        adds = self.live(path, Add)
        if not adds:
            return None
        discards = [e for e in self.events if isinstance(e.edit, Discard) and e.edit.path == path]
        if kind == "2p-set":
            discards = self.live(path, Discard)
        there: dict[str, Any] = {}
        for add in adds:
            same = [d for d in discards if key_of(d.edit.value) == key_of(add.edit.value)]  # type: ignore[union-attr]
            gone = bool(same) if kind == "2p-set" else any(self.before(add, d) for d in same)
            if kind == "g-set" or not gone:
                there[key_of(add.edit.value)] = add.edit.value  # type: ignore[union-attr]
        return [there[key] for key in sorted(there)]


def key_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
