"""Documents that merge: signed operations, a hash graph, and types that converge.

Sans-IO: no clock, no randomness, no files. The facade is `Document` (one replica of one document),
`Store` (many of them), `Operation` (what travels), and `sync` (two functions and a state).
"""

from __future__ import annotations

from dwcp.wire.documents import Operation
from dwcp_replica.crdt import sync
from dwcp_replica.crdt.document import Authors, Document, Received, Refused, Rules
from dwcp_replica.crdt.state import BadEdit
from dwcp_replica.crdt.transaction import Transaction
from dwcp_replica.crdt.values import BadValue

__all__ = [
    "Authors",
    "BadEdit",
    "BadValue",
    "Document",
    "Operation",
    "Received",
    "Refused",
    "Rules",
    "Transaction",
    "sync",
]
