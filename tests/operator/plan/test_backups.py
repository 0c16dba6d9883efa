"""When a backup is due, and when one is served to the members of a cluster to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dwcp_operator.plan import (
    CreateGenesis,
    Desired,
    DropBackup,
    GenesisHeld,
    GenesisSeen,
    MemberObserved,
    Observed,
    ServeBackup,
    Source,
    Volume,
    WaitFor,
    WaitReason,
    plan,
)
from dwcp_operator.plan.backups import RETRY_MS_MAX, due_in_ms

NAMES = tuple(f"demo-{i}" for i in range(4))
DESIRED = Desired(cluster="demo", members=NAMES, restore=True)


@pytest.mark.parametrize(
    ("every_ms", "taken", "failures", "since_ms", "due_ms"),
    [
        (None, 0, 0, None, 0),  # never tried
        (None, 1, 0, 5, None),  # taken once, and only one was asked for
        (None, 0, 1, 4_000, 6_000),  # failed: again after 10 s
        (None, 0, 2, 4_000, 16_000),
        (None, 0, 40, 0, RETRY_MS_MAX),
        (3_600_000, 1, 0, 600_000, 3_000_000),
        (3_600_000, 1, 0, 3_600_001, 0),
        (60_000, 3, 9, 0, 60_000),  # never later than the next would be
    ],
)
def test_when_a_backup_is_due(
    every_ms: int | None, taken: int, failures: int, since_ms: int | None, due_ms: int | None
) -> None:
    assert due_in_ms(every_ms, taken, failures, since_ms) == due_ms


def waiting(name: str) -> MemberObserved:
    return MemberObserved(name=name, volume=Volume.PRESENT, running=True, identity=b"k")


def seen(source: Source) -> Observed:
    return Observed(keys=True, members=tuple(map(waiting, NAMES)), source=source)


def test_no_genesis_is_made_before_the_backup_is_served() -> None:
    steps = plan(DESIRED, seen(Source.ABSENT))
    assert steps == (ServeBackup(), WaitFor(WaitReason.BACKUP, ()))
    assert plan(DESIRED, seen(Source.STARTING)) == (WaitFor(WaitReason.BACKUP, ()),)
    assert plan(DESIRED, seen(Source.SERVING)) == (CreateGenesis(),)


def test_a_cluster_that_begins_empty_needs_none() -> None:
    assert plan(replace(DESIRED, restore=False), seen(Source.ABSENT)) == (CreateGenesis(),)


def held(*, published: bool = True) -> GenesisHeld:
    return GenesisHeld(b"g" * 32, dict.fromkeys(NAMES, b"k"), frozenset(NAMES), published)


def test_a_member_that_waits_for_its_state_is_served_again() -> None:
    complete = GenesisSeen(b"g" * 32, complete=True)
    members = [replace(waiting(name), genesis=complete) for name in NAMES]
    young = Observed(keys=True, genesis=held(), members=tuple(members))
    assert ServeBackup() not in plan(DESIRED, young)
    members[2] = replace(members[2], unready_for_ms=20_000)
    assert ServeBackup() in plan(DESIRED, replace(young, members=tuple(members)))
    serving = replace(young, members=tuple(members), source=Source.SERVING)
    assert not {ServeBackup(), DropBackup()} & set(plan(DESIRED, serving))
