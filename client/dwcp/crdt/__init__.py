"""Documents that merge: signed operations, a hash graph, and types that converge.

Sans-IO: no clock, no randomness, no files. `Document` is one replica of one document, `Store` many
of them, `Operation` what travels, `sync` anti-entropy as two functions and a state. Conflicts are
views (`conflicts`, `Resolutions`); `check_resolver` tests a user's own. docs/documents.md explains.
"""

from __future__ import annotations

from dwcp.crdt import sync
from dwcp.crdt.conflicts import (
    Conflict,
    Custom,
    LastWriteWins,
    Manual,
    MultiValue,
    Priority,
    Strategies,
    ThreeWayMerge,
    conflict_at,
    conflicts,
    settle,
)
from dwcp.crdt.document import Authors, Document, Received, Refused, Rules
from dwcp.crdt.history import Resolutions, show
from dwcp.crdt.laws import Violation, check_resolver
from dwcp.crdt.receipts import Outbox, OutboxFull, Voters, make_receipt
from dwcp.crdt.state import BadEdit
from dwcp.crdt.store import Store, StoreFull, document_of
from dwcp.crdt.transaction import Transaction
from dwcp.crdt.values import BadValue
from dwcp.wire.documents import Operation

__all__ = [
    "Authors",
    "BadEdit",
    "BadValue",
    "Conflict",
    "Custom",
    "Document",
    "LastWriteWins",
    "Manual",
    "MultiValue",
    "Operation",
    "Outbox",
    "OutboxFull",
    "Priority",
    "Received",
    "Refused",
    "Resolutions",
    "Rules",
    "Store",
    "StoreFull",
    "Strategies",
    "ThreeWayMerge",
    "Transaction",
    "Violation",
    "Voters",
    "check_resolver",
    "conflict_at",
    "conflicts",
    "document_of",
    "make_receipt",
    "settle",
    "show",
    "sync",
]
