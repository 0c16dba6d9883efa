"""The start of a new view or epoch, computed from a quorum of statements (epochs.md, recover).

Term first, then the certificate of that term, then length. Every other order was tried in the
model and lost something that had been promised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dwcp_replica.core.chain import Branch, Point


@dataclass(frozen=True, slots=True)
class Statement:
    """What one member states in a SEAL or a VIEW-CHANGE: its log, and its highest CC's chain.

    `checkpoint` is its stable checkpoint, or None at the epoch's start; `certified` ends at the
    entry of its highest CC.
    """

    log: Branch
    certified: Branch | None
    checkpoint: Point | None


class UnsafeStartError(Exception):
    """The statements contradict a stable checkpoint: more than f members have lied."""


def recover(statements: Sequence[Statement]) -> Branch:
    """The chain that a quorum's statements oblige everyone to start from.

    Raises UnsafeStartError when it would not extend the highest stable checkpoint shown.
    """
    assert statements, "recover needs statements"
    chains = [s.log for s in statements]
    certified = [s.certified for s in statements if s.certified is not None]
    # a stable checkpoint counts as a CC of its entry
    certified += [Branch(s.checkpoint, (), ()) for s in statements if s.checkpoint is not None]
    chains += certified
    top_term = max(chain.tip.term for chain in chains)
    candidates = [chain for chain in chains if chain.tip.term == top_term]
    of_term = [chain for chain in certified if chain.tip.term == top_term]
    if of_term:
        bound = max(of_term, key=_length).tip
        candidates = [chain for chain in candidates if chain.contains(bound)]
    best = max(candidates, key=_length)
    for statement in statements:
        if statement.checkpoint is not None and not best.contains(statement.checkpoint):
            raise UnsafeStartError(
                f"the start does not extend checkpoint {statement.checkpoint.index}"
            )
    return best


def _length(chain: Branch) -> tuple[int, bytes]:
    return (chain.tip.index, chain.tip.hash)
