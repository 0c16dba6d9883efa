"""A disk that may be slow, full, torn by a crash, or rotten; what was synced stays.

A crash loses what was not synced yet, or a part of it: a prefix of the group that was being
written may have reached the disk. Damage is found when the log is read again (durable/wal.py):
at the end it is cut off, before the end the log is only read; in both cases the replica is mute.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from dwcp_replica.core.effects import Record
from dwcp_replica.sim.world import World

SPIKE: Final = 0.03
"""How often a write takes ten times as long as the others."""


class Disk:
    """One member's log of records."""

    def __init__(
        self, world: World, random: Random, sync_ms: int, keep: Callable[[Record], None]
    ) -> None:
        self.records: list[Record] = []
        self.busy = False
        self.mute: str | None = None
        self._world = world
        self._random = random
        self._sync_ms = sync_ms
        self._keep = keep
        self.read_only = False
        self._full = False
        self._writing: list[Record] = []
        self._anew: list[Record] = []
        self._parked: Callable[[], None] | None = None
        self._life = 0

    def write(
        self, records: list[Record], done: Callable[[], None], anew: list[Record] | None = None
    ) -> None:
        """Make a group durable, then say so; one group at a time.

        With `anew` the log begins anew with these records, which stand for all before them: they
        are written too, and what was before is removed once they are durable.
        """
        assert not self.busy, "one group is being written"
        self.busy = True
        self._anew = anew or []
        self._writing = records
        if self._full:
            self._parked = done
        else:
            self._begin(done)

    def fill(self) -> None:
        """No space from now on: a write waits."""
        self._full = True

    def free(self) -> None:
        """There is space again."""
        self._full = False
        if self._parked is not None:
            done, self._parked = self._parked, None
            self._begin(done)

    def crash(self) -> None:
        """The power goes: of the group being written, a prefix or nothing is there."""
        writing = len(self._writing) + len(self._anew)
        torn = self._random.randint(0, writing) if self._random.random() < 0.5 else 0
        if self._parked is None:
            self._store(self._writing[:torn])
            self._store_anew(self._anew[: max(0, torn - len(self._writing))])
        self._life += 1
        self.busy = False
        self._writing = []
        self._anew = []
        self._parked = None

    def rot(self, *, tail: bool) -> None:
        """Damage a record; the next start finds out. An empty log has nothing to damage."""
        if not self.records:
            return
        at = len(self.records) - 1 if tail else self._random.randrange(len(self.records))
        del self.records[at:]
        self.read_only = not tail
        self.mute = "damaged tail" if tail else "damaged middle"

    def _begin(self, done: Callable[[], None]) -> None:
        delay = self._sync_ms * 10 if self._random.random() < SPIKE else self._sync_ms
        self._world.after(delay, self._finish, self._life, done)

    def _finish(self, life: int, done: Callable[[], None]) -> None:
        if life != self._life:
            return
        self._store(self._writing)
        if self._anew and not self.read_only:
            self.records = []
        self._store_anew(self._anew)
        self._writing = []
        self._anew = []
        self.busy = False
        done()

    def _store_anew(self, records: list[Record]) -> None:
        """Nothing new: what these say was durable before."""
        if not self.read_only:
            self.records += records

    def _store(self, records: list[Record]) -> None:
        if self.read_only:
            return
        self.records += records
        for record in records:
            self._keep(record)
