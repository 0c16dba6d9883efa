"""When a member has something to report of its network: news, doubt, or silence for too long.

A report goes out when it says something new, while the members are making up their minds, and
often enough that the last one does not become too old. Pure: the caller measures and signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from dwcp.wire.envelope import Envelope, EnvelopeBody, envelope_signing_bytes
from dwcp.wire.modes import NetworkReport
from dwcp.wire.signing import Signer
from dwcp_replica.core.modes.reach import Reach
from dwcp_replica.store.modes import REPORTS_LIVE, ModeBook, report_of

NEWS_SHARE: Final = 0.1
"""A quantity that changed by less than this share is not worth an entry of the log."""


def is_news(before: NetworkReport, now: NetworkReport) -> bool:
    """True when something is known that was not, or differs by more than NEWS_SHARE."""
    for name in ("rtt_us", "jitter_us", "loss_ppm", "rate_bps"):
        old, new = getattr(before, name), getattr(now, name)
        if (old is None) != (new is None):
            return True
        if name in ("rtt_us", "rate_bps") and old is not None and abs(new - old) > NEWS_SHARE * old:
            return True
    return False


class Reporter:
    """Makes the reports of one member. `measure_ms`: how often there are new measurements."""

    def __init__(self, genesis: bytes, signer: Callable[[], Signer], measure_ms: int) -> None:
        self._genesis = genesis
        self._signer = signer
        self._fresh_ms = REPORTS_LIVE * measure_ms // 2
        self._sent: NetworkReport | None = None

    def envelope(self, book: ModeBook, network: Reach, wall_ms: int) -> Envelope | None:
        """A signed report of this network for the log; None when there is nothing to say."""
        member = book.report_of_member(self._signer().public_key)
        held = None if member is None else member.report
        last_ms = max(one.stamp_ms if one else 0 for one in (held, self._sent))
        report = report_of(network, max(wall_ms, last_ms + 1))
        if not self._is_due(report, held, doubts=book.state.asked is not None):
            return None
        self._sent = report
        body = msgspec.msgpack.encode(EnvelopeBody(0, 0, 0, (report,)))
        sig = self._signer().sign(envelope_signing_bytes(self._genesis, body))
        return Envelope(self._signer().public_key, body, sig)

    def _is_due(self, report: NetworkReport, held: NetworkReport | None, *, doubts: bool) -> bool:
        sent = self._sent
        if sent is not None and (held is None or held.stamp_ms < sent.stamp_ms):
            return report.stamp_ms - sent.stamp_ms > self._fresh_ms  # the last one is on its way
        if held is None:
            return report.rtt_us is not None or report.rate_bps is not None
        if doubts or is_news(held, report):
            return True
        return report.stamp_ms - held.stamp_ms > self._fresh_ms
