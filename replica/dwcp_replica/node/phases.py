"""How long entries stay in each phase of agreement, read off what the core emits.

The core has no clock; its effects say when an entry was accepted (its record), when it was
prepared (its first certificate) and when it was final (it is executed). Times are taken where
the core is stepped, so they hold the waiting for votes, not the disk's work after them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final

from prometheus_client import Histogram

from dwcp_replica.core.effects import CertificateRecord, EntryRecord, Ready

WHOLE_MAX: Final = 32
"""Entries whose whole time is remembered."""


class PhaseClock:
    """Feeds `seconds`, a histogram with the label `phase`: prepare, commit."""

    def __init__(self, seconds: Histogram, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._prepare = seconds.labels("prepare")
        self._commit = seconds.labels("commit")
        self._clock_s = clock_s
        self._accepted: dict[int, float] = {}
        self._prepared: dict[int, tuple[float, float]] = {}
        self._whole_s: deque[float] = deque(maxlen=WHOLE_MAX)
        self.final_s: float | None = None
        """When an entry became final last; None before the first."""

    @property
    def commit_ms(self) -> float | None:
        """The median time from accepting an entry to knowing it final, of the latest; or None."""
        return median(self._whole_s) * 1000 if self._whole_s else None

    def note(self, ready: Ready) -> None:
        """Take the effects of one step."""
        if not (ready.persist or ready.apply):
            return
        now_s = self._clock_s()
        for record in ready.persist:
            match record:
                case EntryRecord(entry):
                    self._accepted[entry.header.index] = now_s
                case CertificateRecord(certificate) if certificate.kind == "prepare":
                    self._note_prepared(certificate.header.index, now_s)
        self.final_s = now_s if ready.apply else self.final_s
        for entry in ready.apply:
            self._note_final(entry.header.index, now_s)

    def _note_prepared(self, upto: int, now_s: float) -> None:
        for index in [i for i in self._accepted if i <= upto]:
            accepted_s = self._accepted.pop(index)
            self._prepare.observe(now_s - accepted_s)
            self._prepared[index] = accepted_s, now_s

    def _note_final(self, index: int, now_s: float) -> None:
        """Catch-up makes entries final that were never prepared here: they have no phases."""
        self._accepted.pop(index, None)
        times = self._prepared.pop(index, None)
        if times is not None:
            accepted_s, prepared_s = times
            self._commit.observe(now_s - prepared_s)
            self._whole_s.append(now_s - accepted_s)
