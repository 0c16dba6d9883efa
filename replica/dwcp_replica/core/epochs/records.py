"""The next epoch's record, computed from a quorum of SEALs: everybody gets the same one.

Which SEALs count is decided in the slot; given them, nothing is left to choose (epochs.md,
Switching, step 4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

import msgspec

from dwcp.wire.epochs import Panics, Seal, seals_digest
from dwcp.wire.peer import Equivocation, Fork, Header
from dwcp.wire.records import EpochRecord, Member, Protocol
from dwcp.wire.switch import AdminSwitch, Switch
from dwcp_replica.core import evidence
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Branch
from dwcp_replica.core.recover import Statement

FALLBACK: Final = "pbft"
"""What runs after PANIC or equivocation, and where no SWITCH says otherwise."""


def next_record(
    membership: Membership,
    seals: tuple[Seal, ...],
    statements: Sequence[Statement],
    start: Branch,
    switch: Switch | None,
) -> EpochRecord:
    """The record that these SEALs oblige everyone to.

    `start` is what `recover` gives for `statements`, `switch` the first valid one in it.
    """
    record = membership.record
    proven = proven_liars(membership, seals, statements)
    protocol = FALLBACK if switch is None else switch.protocol
    if proven or any(isinstance(seal.trigger, Panics) for seal in seals):
        protocol = FALLBACK
    members = switch.members if isinstance(switch, AdminSwitch) else record.members
    forced = forced_by(record, switch)
    barred = barred_among(record, proven, members)
    epoch, tip = record.epoch + 1, start.tip
    return msgspec.structs.replace(
        record,
        epoch=epoch,
        protocol=protocol,
        members=members,
        start_index=tip.index,
        start_hash=tip.hash,
        start_term=tip.term,
        leader=first_leader(epoch, len(members), barred),
        previous=record.hash(),
        seals=seals_digest(seals),
        barred=barred,
        forced=forced,
    )


def forced_by(record: EpochRecord, switch: Switch | None) -> Protocol | None:
    """The protocol that is held from now on: what an order says, else as before."""
    if isinstance(switch, AdminSwitch) and switch.hold != "as-is":
        return switch.protocol if switch.hold == "force" else None
    return record.forced


def first_leader(epoch: int, n: int, barred: tuple[int, ...]) -> int:
    """Member epoch mod n, skipping the barred."""
    return next(m for k in range(n) if (m := (epoch + k) % n) not in barred)


def barred_among(
    record: EpochRecord, proven: Iterable[int], members: tuple[Member, ...]
) -> tuple[int, ...]:
    """The numbers, in the new set, of proven equivocators; nobody when that leaves no leader."""
    named = [record.members[m] for m in (*record.barred, *proven)]
    keys, names = {m.identity for m in named}, {m.name for m in named}  # a new key hides nobody
    barred = tuple(i for i, m in enumerate(members) if m.identity in keys or m.name in names)
    return barred if len(barred) < len(members) else ()


def proven_liars(
    membership: Membership, seals: Sequence[Seal], statements: Sequence[Statement]
) -> tuple[int, ...]:
    """Leaders convicted by a SEAL's trigger, or by two chains that the SEALs show."""
    found: set[int] = set()
    for seal in seals:
        if isinstance(seal.trigger, Equivocation | Fork):
            liar = evidence.proven_liar(membership, seal.trigger)
            assert liar is not None, "a valid SEAL's trigger holds"
            found.add(liar)
    chains = [s.log for s in statements] + [s.certified for s in statements if s.certified]
    for one, other in combinations(chains, 2):
        for term in parted_terms(one, other):
            found.add(membership.record.primary(term))
    return tuple(sorted(found))


def parted_terms(one: Branch, other: Branch) -> set[int]:
    """The terms of which both chains carry entries above the place where they part.

    Two chains with a common base, or whose bases lie on each other; certified bases always do.
    """
    low = max(one.base.index, other.base.index)
    common = low
    while (
        (mine := one.hash_at(common + 1)) is not None
        and (theirs := other.hash_at(common + 1)) is not None
        and mine == theirs
    ):
        common += 1
    return _terms_above(one, common) & _terms_above(other, common)


def _terms_above(chain: Branch, index: int) -> set[int]:
    headers: tuple[Header, ...] = chain.headers
    return {header.term for header in headers if header.index > index}
