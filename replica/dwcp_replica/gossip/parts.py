"""What a member has of all documents, as one digest for each part: equal digests, equal parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dwcp.crdt import Document
from dwcp.wire.gossip import PARTS, VERSIONS_MAX, Version, Versions, part_of
from dwcp.wire.signing import digest

_EMPTY: Final = digest("document-versions")


class Parts:
    """The versions of documents by part. A digest is computed when it is asked for."""

    def __init__(self) -> None:
        self._versions: list[dict[str, bytes]] = [{} for _ in range(PARTS)]
        self._digests: list[bytes | None] = [_EMPTY] * PARTS

    def note(self, document: Document) -> None:
        """A document has another version now."""
        part = part_of(document.name)
        self._versions[part][document.name] = document.graph.state()
        self._digests[part] = None

    def digests(self) -> tuple[bytes, ...]:
        """One for each part, in order."""
        return tuple(self._digest(part) for part in range(PARTS))

    def state(self, name: str) -> bytes | None:
        """The version of a document; None without it."""
        return self._versions[part_of(name)].get(name)

    def names(self, part: int, low: str, high: str) -> list[str]:
        """The documents of a part in [low, high), by name; "" is open."""
        names = sorted(self._versions[part])
        return [name for name in names if low <= name and (not high or name < high)]

    def shown(self, part: int) -> Iterator[Versions]:
        """All of a part, in messages that together cover every name."""
        names = self.names(part, "", "")
        low = ""
        for at in range(0, max(1, len(names)), VERSIONS_MAX):
            chunk = names[at : at + VERSIONS_MAX]
            rest = names[at + VERSIONS_MAX : at + VERSIONS_MAX + 1]
            high = rest[0] if rest else ""
            versions = tuple(Version(name, self._versions[part][name]) for name in chunk)
            yield Versions(part, low, high, versions)
            low = high

    def _digest(self, part: int) -> bytes:
        known = self._digests[part]
        if known is None:
            versions = self._versions[part]
            pairs = (
                piece for name in sorted(versions) for piece in (name.encode(), versions[name])
            )
            known = self._digests[part] = digest("document-versions", *pairs)
        return known
