"""Authors for the tests of documents: keys from numbers, sorted so that 0 ranks first."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

from dwcp.crdt import Document, Rules
from dwcp.identity import Ed25519Signer, Ed25519Verifier

GENESIS = b"g" * 32


@cache
def signers(count: int) -> tuple[Ed25519Signer, ...]:
    """Signers in the order of their public keys."""
    made = (Ed25519Signer(b"author" + n.to_bytes(26, "big")) for n in range(count))
    return tuple(sorted(made, key=lambda signer: signer.public_key))


@dataclass
class Members:
    """Who may write, by epoch. An epoch above `newest` is not known yet."""

    newest: int = 0
    barred: dict[int, set[bytes]] = field(default_factory=dict)

    def may_write(self, document: str, author: bytes, epoch: int) -> bool | None:
        if epoch > self.newest:
            return None
        return author not in self.barred.get(epoch, set())


VERIFIER = Ed25519Verifier()


def rules(members: Members | None = None) -> Rules:
    return Rules(GENESIS, VERIFIER, members or Members())


def document(name: str = "notes", members: Members | None = None) -> Document:
    return Document(name, rules(members))
