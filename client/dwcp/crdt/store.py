"""Many documents under one set of rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from dwcp.crdt.document import Document, Received, Rules
from dwcp.wire.documents import Operation, decode_operation_body

DOCUMENTS_MAX: Final = 100_000


def document_of(operation: Operation) -> str | None:
    """The name of the document that an operation changes; None when it is malformed."""
    try:
        return decode_operation_body(operation.body).document
    except msgspec.DecodeError:
        return None


class StoreFull(Exception):  # noqa: N818 - named as the protocol names it
    """No room for another document: remove some, or raise the limit everywhere."""


class Store:
    """Documents by name, made when the first operation of an author who may write arrives."""

    def __init__(self, rules: Rules, documents_max: int = DOCUMENTS_MAX) -> None:
        self._rules = rules
        self._documents: dict[str, Document] = {}
        self._documents_max = documents_max
        self.refused_malformed = 0

    def __iter__(self) -> Iterator[Document]:
        return (self._documents[name] for name in sorted(self._documents))

    def __len__(self) -> int:
        return len(self._documents)

    def __contains__(self, name: str) -> bool:
        return name in self._documents

    def document(self, name: str) -> Document:
        """The document of this name, made when it is missing. Raises StoreFull."""
        found = self._documents.get(name)
        if found is None:
            if len(self._documents) >= self._documents_max:
                raise StoreFull(f"there are {self._documents_max} documents already")
            found = self._documents[name] = Document(name, self._rules)
        return found

    def find(self, name: str) -> Document:
        """The document, or an empty one that is not kept: see `keep`."""
        return self._documents.get(name) or Document(name, self._rules)

    def keep(self, document: Document) -> bool:
        """Keep a document from `find` once it holds something; False when it may not be kept.

        What only waits for a future epoch is not reason enough: from whom it is, is not known,
        and a stranger must not make documents.
        """
        if document.name in self._documents:
            return True
        worth = bool(len(document.graph)) or (len(document.held) and not document.held.epochs())
        if not worth or len(self._documents) >= self._documents_max:
            return False
        self._documents[document.name] = document
        return True

    def receive(self, operation: Operation) -> Received:
        """Hand an operation to its document. One that is refused makes no new document."""
        try:
            name = decode_operation_body(operation.body).document
        except msgspec.DecodeError:
            self.refused_malformed += 1
            return Received("refused", (), "malformed")
        if name in self._documents:
            return self._documents[name].receive(operation)
        new = Document(name, self._rules)
        received = new.receive(operation)
        if received.outcome == "refused":
            return received
        if new.held.epochs():  # from whom, is not known: a stranger must not make documents
            return Received("refused", (), "held-full")
        if len(self._documents) >= self._documents_max:
            return Received("refused", (), "store-full")
        self._documents[name] = new
        return received

    def put(self, document: Document) -> None:
        """Keep a document that was read from our own disk."""
        self._documents[document.name] = document

    def restore(self, data: bytes) -> Document:
        """Put a document back from its dump. Raises msgspec.DecodeError when it is damaged."""
        document = Document.restore(data, self._rules)
        self._documents[document.name] = document
        return document
