"""Who may write documents: the clients of each epoch's record, which all replicas agree on."""

from __future__ import annotations

from collections.abc import Iterable

from dwcp.wire.records import EpochRecord


class EpochAuthors:
    """Authors by epoch (dwcp.crdt.Authors); an epoch whose record is not known is unknown."""

    def __init__(self, records: Iterable[EpochRecord]) -> None:
        self._clients: dict[int, frozenset[bytes]] = {}
        for record in records:
            self.add(record)

    def add(self, record: EpochRecord) -> None:
        """An epoch's record is known now."""
        self._clients[record.epoch] = frozenset(client.key for client in record.clients)

    def may_write(self, document: str, author: bytes, epoch: int) -> bool | None:  # noqa: ARG002
        """See dwcp.crdt.Authors."""
        clients = self._clients.get(epoch)
        return None if clients is None else author in clients
