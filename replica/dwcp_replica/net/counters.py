"""What the peer transport reports about itself."""

from __future__ import annotations

from typing import Protocol


class PeerCounters(Protocol):
    """Takes note of what the transport refused, lost or saw; every reason is an enumerated word."""

    def frame_refused(self, reason: str) -> None:
        """An incoming connection or frame was refused and changed nothing."""
        ...

    def dial_failed(self, reason: str) -> None:
        """A connection to a peer could not be made or was lost."""
        ...

    def frames_dropped(self, count: int) -> None:
        """This many outgoing frames were dropped, the oldest first: the queue was full."""
        ...
