"""One link as its owner sees it: signed pings and the kernel's view of its connection.

A peer can make a link look worse than it is, by answering late; it can not make it look better
than the light allows, since a pong signs the ping's nonce. The shortest of the latest round trips
counts: what a busy process adds to a ping is not the network's. The kernel's round trip counts
only while no pong is here: a proxy between the members ends the kernel's connection half-way, and
its end would pass for the member's. For the same reason loss is that of the first hop there, and
a rate that the kernel saw is capped by what probes achieved, where there were any.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from dwcp_replica.core.modes.reach import Link

SAMPLES_MAX: Final = 16
RATES_MAX: Final = 3
"""So few, that a link which became narrow is soon known to be."""
SEGMENTS_MIN: Final = 100
"""Fewer segments than this say nothing of a loss of a percent."""


@dataclass(frozen=True, slots=True)
class TcpSample:
    """What the kernel says of a connection; counters run since it was opened.

    rtt_us: smoothed round trip. retransmitted, sent: segments. rate_bps: bits per second that
    were last delivered; app_limited: the sender had no more to send then, so that the rate
    says nothing of the path.
    """

    rtt_us: int
    retransmitted: int
    sent: int
    rate_bps: int
    app_limited: bool


@dataclass(slots=True)
class Meter:
    """The latest samples of one link; forgets the oldest."""

    _pings_us: deque[int] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    _tcp: deque[TcpSample] = field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    _rates_bps: deque[int] = field(default_factory=lambda: deque(maxlen=RATES_MAX))
    _probed_bps: deque[int] = field(default_factory=lambda: deque(maxlen=RATES_MAX))

    def ping(self, rtt_us: int) -> None:
        """A signed pong came back after this long."""
        assert rtt_us >= 0, f"a round trip of {rtt_us} us"
        self._pings_us.append(rtt_us)

    def tcp(self, sample: TcpSample) -> None:
        """The kernel was asked; a counter that went back means a new connection."""
        last = self._tcp[-1] if self._tcp else None
        if last is not None and (
            sample.sent < last.sent or sample.retransmitted < last.retransmitted
        ):
            self._tcp.clear()
        self._tcp.append(sample)
        if not sample.app_limited and sample.rate_bps > 0:
            self._rates_bps.append(sample.rate_bps)

    def probed(self, rate_bps: int) -> None:
        """A bounded probe achieved this rate: more than that is not claimed."""
        self._probed_bps.append(rate_bps)

    def lost(self) -> None:
        """The connection is gone: what was measured over it no longer holds."""
        self._pings_us.clear()
        self._tcp.clear()
        self._rates_bps.clear()
        self._probed_bps.clear()

    def link(self) -> Link:
        """The figures as they stand; what was not measured is None."""
        kernel_us = [sample.rtt_us for sample in self._tcp if sample.rtt_us > 0]
        return Link(
            rtt_us=min(self._pings_us or kernel_us[-1:], default=None),
            jitter_us=_jitter(self._pings_us),
            loss=self._loss(),
            rate_bps=max(self._probed_bps or self._rates_bps, default=None),
        )

    def _loss(self) -> float | None:
        """The share of segments sent again within the samples."""
        if len(self._tcp) < 2:
            return None
        sent = self._tcp[-1].sent - self._tcp[0].sent
        if sent < SEGMENTS_MIN:
            return None
        return min(1.0, (self._tcp[-1].retransmitted - self._tcp[0].retransmitted) / sent)


def _jitter(pings_us: deque[int]) -> int | None:
    """The mean difference between one round trip and the next (as RFC 3550, section 6.4.1)."""
    if len(pings_us) < 2:
        return None
    steps = [abs(after - before) for before, after in pairwise(pings_us)]
    return sum(steps) // len(steps)
