"""How soon an automatic switch may follow another (epochs.md, Liveness). Pure.

30 s normally; after a fail-over the wait is 60 s and doubles with each further one, up to a day.
24 healthy hours forgive all of them. A switch that the admin orders waits for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

NORMAL_MS: Final = 30_000
FIRST_MS: Final = 60_000
LONGEST_MS: Final = 24 * 3600 * 1000
FORGIVEN_AFTER_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Cooldown:
    """What one member remembers of its automatic switches; core time in ms."""

    switched_ms: int | None = None
    failures: int = 0

    def wait_ms(self) -> int:
        """How long after the last switch the next one may come."""
        if not self.failures:
            return NORMAL_MS
        return int(min(FIRST_MS * 2 ** (self.failures - 1), LONGEST_MS))

    def allows(self, now_ms: int) -> bool:
        """True when a switch may be asked for now."""
        return self.switched_ms is None or now_ms - self.switched_ms >= self.wait_ms()

    def switched(self, now_ms: int) -> Cooldown:
        """After a switch that no failure forced."""
        return replace(self._forgiving(now_ms), switched_ms=now_ms)

    def failed(self, now_ms: int) -> Cooldown:
        """After a fail-over, on evidence or for want of progress."""
        healthy = self._forgiving(now_ms)
        return Cooldown(now_ms, healthy.failures + 1)

    def _forgiving(self, now_ms: int) -> Cooldown:
        """Without failures once this long has passed since the switch back: a healthy day.

        The time spent waiting is not healthy time: it begins when the wait is over.
        """
        if self.switched_ms is None or not self.failures:
            return self
        healthy_ms = now_ms - self.switched_ms - self.wait_ms()
        return replace(self, failures=0) if healthy_ms >= FORGIVEN_AFTER_MS else self
