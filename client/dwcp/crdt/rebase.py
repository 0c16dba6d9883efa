"""Edits that a frontier has stranded, made again by their author on the present version.

The edits stay what they were, and name the same earlier operations: those below the frontier keep
their names for this. So they merge as they would have if they had come in time; only their place in
the graph is new. What refers to an edit that is no more (another author's stranded one) is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import msgspec

from dwcp.crdt.document import Document
from dwcp.crdt.transaction import Transaction
from dwcp.wire.documents import (
    ROOT,
    Assign,
    Delete,
    Discard,
    Edit,
    Insert,
    Operation,
    decode_operation_body,
    operation_signing_bytes,
)
from dwcp.wire.signing import Signer

Mapped = Callable[[int], int | None]


@dataclass(slots=True)
class Rebased:
    """New operations, to be kept and sent; how many edits could not be made again."""

    made: list[Operation] = field(default_factory=list)
    edits_lost: int = 0


def rebase(
    document: Document, stranded: Iterable[Operation], signer: Signer, epoch: int
) -> Rebased:
    """Make the signer's stranded operations again, in their order. Others' are passed over."""
    done = Rebased()
    renamed: dict[bytes, bytes] = {}
    for operation in stranded:
        if operation.author != signer.public_key:
            continue
        body = decode_operation_body(operation.body)
        names = [operation.hash(), *body.heads, *body.names]
        transaction = Transaction(document.state, document.graph)

        mapped = partial(_mapped, names, renamed, transaction)
        edits = [_again(edit, mapped) for edit in body.edits]
        kept = [edit for edit in edits if edit is not None]
        done.edits_lost += len(edits) - len(kept)
        if not kept:
            continue
        transaction.repeat(kept)
        made = _signed(document, transaction, signer, epoch)
        if document.receive(made).outcome != "applied":
            done.edits_lost += len(kept)
            continue
        renamed[names[0]] = made.hash()
        done.made.append(made)
    return done


def _mapped(
    names: list[bytes], renamed: dict[bytes, bytes], transaction: Transaction, reference: int
) -> int | None:
    """A reference of the old operation as one of the new; None for what is no more."""
    if reference in (ROOT, 0):
        return reference
    name = names[reference]
    return transaction.refer(renamed.get(name, name))


def _again(edit: Edit, mapped: Mapped) -> Edit | None:
    """An edit with references of another operation; None when what it stands on is no more."""
    match edit:
        case Assign(over=over) | Discard(over=over):
            left = (mapped(reference) for reference in over)
            return msgspec.structs.replace(edit, over=tuple(r for r in left if r is not None))
        case Insert(parent=(reference, offset)):
            to = mapped(reference)
            return None if to is None else msgspec.structs.replace(edit, parent=(to, offset))
        case Delete(ranges=ranges):
            found = ((mapped(reference), first, count) for reference, first, count in ranges)
            kept = tuple((to, first, count) for to, first, count in found if to is not None)
            return msgspec.structs.replace(edit, ranges=kept) if kept else None
        case _:
            return edit


def _signed(document: Document, transaction: Transaction, signer: Signer, epoch: int) -> Operation:
    body = transaction.body(document.name, signer.public_key, epoch)
    encoded = msgspec.msgpack.encode(body)
    sig = signer.sign(operation_signing_bytes(document.genesis, encoded))
    return Operation(signer.public_key, encoded, sig)
