"""How many votes make a quorum. The operator keeps its own: it never imports the replica."""

from __future__ import annotations


def faulty_max(n: int) -> int:
    """f: how many of n members may lie without harm, (n - 1) // 3."""
    return (n - 1) // 3


def quorum(n: int) -> int:
    """Votes such that any two quorums share f + 1 members: (n + f) // 2 + 1."""
    return (n + faulty_max(n)) // 2 + 1
