"""Growing volumes: asked for at once and of all, whatever state the members are in.

A member whose disk is full does not vote, and a cluster whose disks are full has no quorum: if
growth waited for either, it could never help. It takes nobody down. A volume that shows its new
size only after a restart marks its member for roll.py, which takes members down one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

from dwcp_operator.plan.observed import Desired, MemberObserved, Volume
from dwcp_operator.plan.steps import GrowVolume, Step, WaitFor, WaitReason


def grow(desired: Desired, members: tuple[MemberObserved, ...]) -> Iterator[Step]:
    """A step for each volume that was asked to hold less; a wait for those that do not yet."""
    present = [m for m in members if m.volume is Volume.PRESENT and m.volume_bytes > 0]
    for member in present:
        if member.volume_bytes < desired.volume_bytes:
            yield GrowVolume(member.name, desired.volume_bytes)
    growing = tuple(m.name for m in present if m.growing)
    if growing:
        yield WaitFor(WaitReason.GROWTH, growing)
