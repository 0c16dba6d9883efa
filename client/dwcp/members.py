"""Changes of a cluster's members: which are safe, and what the admin signs for them.

Pure: no clock, no randomness, no I/O. docs/members.md has the way that a change goes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from dwcp.epochs import Invitation, RecordChain, sign_anchor
from dwcp.wire.quorum import liars, quorum
from dwcp.wire.records import Member, SignedGenesis, members_problem, scope_of
from dwcp.wire.signing import Signer
from dwcp.wire.switch import AdminSwitch


def change_fault(chain: RecordChain, names: Sequence[str], ready: Collection[str]) -> str | None:
    """Why these can not be the next members now, in a sentence; None when they can.

    `ready` are the members that vote, by their own signed word.
    """
    record = chain.current
    n, present = len(names), [member.name for member in record.members]
    if len(set(names)) != n:
        return "a member is named twice"
    if members_problem(n, record.trust) is not None:
        want = "1, 3, 5, ..." if record.trust == "Crash" else "4, 7, 10, ..."
        return f"{n} members do not do under {record.trust} trust: it takes {want}"
    used = {m.name for one in chain.records for m in one.members}
    if reused := sorted((set(names) - set(present)) & used):
        return f"the name {reused[0]} was used before: names are never used again"
    voting = [name for name in present if name in ready]
    needed = quorum(len(present), record.trust)
    if len(voting) < needed:
        return (
            f"{len(voting)} of {len(present)} members vote, and {needed} must agree on a change: "
            "bring the others back first"
        )
    staying = [name for name in present if name in names]
    learners = n - len(staying)
    sound = sum(name in ready for name in staying) + learners
    if sound < quorum(n, record.trust):
        silent = ", ".join(name for name in staying if name not in ready)
        return (
            f"{sound} of the {n} members to be would vote, and {quorum(n, record.trust)} are "
            f"needed: {silent} must come back, or be replaced too"
        )
    return None


def order(chain: RecordChain, members: Sequence[Member], admin: Signer) -> AdminSwitch:
    """The admin's order that these be the members after the present record."""
    record = chain.current
    unsigned = AdminSwitch(record.epoch, record.protocol, tuple(members), bytes(64))
    sig = admin.sign(unsigned.signing_bytes(scope_of(chain.genesis, record)))
    return msgspec.structs.replace(unsigned, sig=sig)


def invitation(genesis: SignedGenesis, chain: RecordChain, admin: Signer) -> Invitation:
    """What a new replica needs to join, with the present record anchored by the admin."""
    anchor = sign_anchor(chain.genesis, chain.current, admin)
    return Invitation(genesis, tuple(chain.certified), anchor)


def next_names(cluster: str, used: Collection[str], count: int) -> list[str]:
    """Names that nobody had: CLUSTER-N with the smallest numbers above all that were used."""
    prefix = f"{cluster}-"
    numbers = [
        int(name.removeprefix(prefix))
        for name in used
        if name.startswith(prefix) and name.removeprefix(prefix).isdecimal()
    ]
    first = max(numbers, default=-1) + 1
    return [f"{prefix}{number}" for number in range(first, first + count)]


def agreed_index(said: Sequence[int], n: int, trust: str) -> int:
    """An index that some honest member has reached, if any has: the (f+1)-th highest."""
    assert trust in ("Byzantine", "Crash"), trust
    f = liars(n, "Byzantine") if trust == "Byzantine" else 0
    above = sorted(said, reverse=True)
    return above[f] if len(above) > f else 0
