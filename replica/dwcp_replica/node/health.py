"""Whether a replica is healthy, and why another one is suspected: in words, from what is so now.

Healthy is who has committed recently, or is idle and able to: it votes, reaches a quorum, takes
part in its view, and no request has waited for long. A process that was never given a genesis
does none of that. A suspicion is one replica's own observation, and moves nobody by itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from dwcp.wire.peer import Status
from dwcp_replica.api.views import Suspicion
from dwcp_replica.core.standing import Standing
from dwcp_replica.node.engine import Engine

PATIENCE_TIMEOUTS: Final = 3
"""So many time-outs of a request may pass without progress before somebody is called ill."""
SILENT_MS_MAX: Final = 5000
"""A member says where it stands several times within a time-out of a request."""


class Pulse:
    """What the health of a member is judged by, over time; lives on the event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._able = False
        self._unable_since_ms: int | None = _now_ms()

    async def watch(self) -> None:
        """Note when this member begins or ceases to take part in a view, for ever."""
        while True:
            await self._engine.until(lambda: takes_part(self._engine.standing) != self._able)
            self._able = not self._able
            self._unable_since_ms = None if self._able else _now_ms()

    @property
    def commit_age_ms(self) -> int | None:
        """Milliseconds since an entry became final here; None before the first in this life."""
        last_s = self._engine.committed_s
        return None if last_s is None else int((time.monotonic() - last_s) * 1000)

    def illness(self) -> str | None:
        """What keeps this member from committing; None while it commits, or is idle and able."""
        unable_ms = None if self._unable_since_ms is None else _now_ms() - self._unable_since_ms
        return illness(self._engine.standing, _now_ms(), unable_ms, self.commit_age_ms)


def takes_part(standing: Standing) -> bool:
    """True while this replica is at work in a view of an epoch that goes on."""
    ended = standing.sealed or standing.waiting or standing.halted is not None
    return standing.active and not ended


def illness(
    standing: Standing, now_ms: int, unable_ms: int | None, commit_age_ms: int | None
) -> str | None:
    """Why a member does not commit, all in milliseconds; None while nothing is known against it.

    `now_ms` is the engine's time. `unable_ms`: for how long it has taken no part in a view.
    """
    if standing.halted is not None:
        return f"halted: {standing.halted}"
    patience_ms = PATIENCE_TIMEOUTS * standing.record.parameters.request_timeout_ms
    if unable_ms is not None and unable_ms > patience_ms:
        what = f"an epoch after {standing.epoch}" if standing.sealed else "a view that works"
        return f"without {what} for {unable_ms / 1000:.1f} s"
    waited_ms = 0 if standing.waits_since_ms is None else now_ms - standing.waits_since_ms
    stalled_ms = waited_ms if commit_age_ms is None else min(waited_ms, commit_age_ms)
    if stalled_ms > patience_ms:
        return f"{standing.pending} requests wait, and none was final for {stalled_ms / 1000:.1f} s"
    return None


@dataclass(frozen=True, slots=True)
class Contact:
    """What is known of another member: what it said last, and since when nothing was heard.

    `silence_ms` is None when nothing ever was; `lied`: there is a proof of that.
    """

    said: Status | None
    silence_ms: int | None
    lied: bool = False


def suspicion(mine: Standing, other: Contact) -> Suspicion | None:
    """Why another member can not be counted on now; None while nothing speaks against it."""
    said = other.said
    if other.lied:
        return "lied"
    if other.silence_ms is None or said is None:
        return "unheard"
    if other.silence_ms > SILENT_MS_MAX:
        return "silent"
    if said.mute:
        return "mute"
    if said.epoch < mine.epoch:
        return "old-epoch"
    behind = mine.final - said.final
    lags = behind > mine.record.parameters.checkpoint_interval
    return "lagging" if said.epoch == mine.epoch and lags else None


def _now_ms() -> int:
    return int(time.monotonic() * 1000)
