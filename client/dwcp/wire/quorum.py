"""How many votes are enough. The only place that knows."""

from __future__ import annotations


def faults(n: int) -> int:
    """f, the number of members that may lie: floor((n - 1) / 3). Castro and Liskov 1999, §2."""
    assert n >= 1, f"a cluster has members, got n={n}"
    return (n - 1) // 3


def liars(n: int, trust: str = "Byzantine") -> int:
    """Members that may lie without breaking a promise: f under Byzantine trust, none under Crash.

    Raises ValueError for another kind of trust.
    """
    if trust == "Byzantine":
        return faults(n)
    if trust == "Crash":
        return 0
    raise ValueError(f"trust is {trust!r}: use Byzantine or Crash")


def quorum(n: int, trust: str = "Byzantine") -> int:
    """Votes such that any two quorums share an honest member, and the honest can form one.

    Byzantine: (n + f) // 2 + 1, so that two quorums share f + 1 members (2f + 1 when
    n = 3f + 1; plain 2f + 1 is unsafe for n = 5, 6, 8, 9, 11, 12). Crash: a majority.
    Raises ValueError for another kind of trust.
    """
    if trust == "Byzantine":
        return (n + faults(n)) // 2 + 1
    if trust == "Crash":
        return n // 2 + 1
    raise ValueError(f"trust is {trust!r}: use Byzantine or Crash")
