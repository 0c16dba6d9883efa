"""One member's part in choosing the mode: it reports its network, and asks for what was decided.

    links measured ──> reach ──> signed report ──log──> ModeBook: median, decision (store/modes.py)
                                                             │
    SwitchRequest <── core/epochs/wishing <── Wish <─────────┘   while another protocol runs

A report goes out when it says something new, while the members are making up their minds, and
often enough that the last one does not become too old.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from dwcp.wire.envelope import Envelope, EnvelopeBody, envelope_signing_bytes
from dwcp.wire.modes import NetworkReport
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.core.effects import Submit
from dwcp_replica.core.modes.decide import Mode, mode_in_force
from dwcp_replica.core.modes.reach import Reach, reach
from dwcp_replica.net.links import LinkWatch, Pace
from dwcp_replica.node.engine import Engine
from dwcp_replica.node.mesh import Mesh
from dwcp_replica.store import Store
from dwcp_replica.store.modes import REPORTS_LIVE, report_of

NEWS_SHARE: Final = 0.1
"""A quantity that changed by less than this share is not worth an entry of the log."""

_log = logging.getLogger(__name__)


def is_news(before: NetworkReport, now: NetworkReport) -> bool:
    """True when something is known that was not, or differs by more than NEWS_SHARE."""
    for name in ("rtt_us", "jitter_us", "loss_ppm", "rate_bps"):
        old, new = getattr(before, name), getattr(now, name)
        if (old is None) != (new is None):
            return True
        if name in ("rtt_us", "rate_bps") and old is not None and abs(new - old) > NEWS_SHARE * old:
            return True
    return False


class ModeKeeper:
    """Joins links, log and core; lives on the event loop."""

    def __init__(
        self, genesis: EpochRecord, signer: Callable[[], Signer], verifier: Verifier,
        engine: Engine, store: Store, mesh: Mesh, metrics: ReplicaMetrics,
    ) -> None:  # fmt: skip
        self._genesis = genesis
        self._policy = policy = genesis.parameters.modes
        self._signer = signer
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self.links = LinkWatch(
            genesis.hash(), lambda: mesh.roster.members, signer, verifier, mesh.dialer, metrics,
            Pace(policy.measure_ms, policy.probe_bytes, policy.rtt_low_us),
        )  # fmt: skip
        mesh.measured = self.links.take
        self._mode = self.mode
        metrics.mode = self._mode.value
        self._switches = store.modes.state.switches
        self._reported: NetworkReport | None = None

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What must run."""
        return [self.links.run(self.after_round), self.notice()]

    @property
    def mode(self) -> Mode:
        """The mode that runs."""
        return mode_in_force(self._store.modes.state.mode, self._engine.standing.record.protocol)

    @property
    def reach(self) -> Reach:
        """The network with which this member reaches a quorum."""
        standing = self._engine.standing
        record, mine = standing.record, self._signer().public_key
        others = [member.identity for member in record.members if member.identity != mine]
        return reach([self.links.link_to(key) for key in others], len(record.members), record.trust)

    @property
    def network(self) -> Reach:
        """The cluster's network as the reports in the log say: their median now."""
        return self._store.modes.network(self._store.stamp_ms)

    def after_round(self) -> None:
        """There are new measurements."""
        if self._store.target is None and self._engine.standing.me is not None:
            self._report()
            self._wish()

    async def notice(self) -> None:
        """Tell of every change of mode as soon as it is there."""
        while True:
            await self._engine.until(self._has_changed)
            self._tell()
            self._wish()

    # --- reporting ------------------------------------------------------------------------------

    def _report(self) -> None:
        if not self._policy.detect:
            return
        held = self._store.modes.report_of_member(self._signer().public_key)
        last_ms = 0 if held is None else held.report.stamp_ms
        if self._reported is not None:
            last_ms = max(last_ms, self._reported.stamp_ms)
        wall_ms = int(time.time() * 1000)
        report = report_of(self.reach, max(wall_ms, last_ms + 1))
        if not self._is_due(report, None if held is None else held.report):
            return
        self._reported = report
        body = msgspec.msgpack.encode(EnvelopeBody(0, 0, 0, (report,)))
        sig = self._signer().sign(envelope_signing_bytes(self._genesis.hash(), body))
        self._metrics.reports.inc()
        self._engine.inbox.put(Submit(Envelope(self._signer().public_key, body, sig)))

    def _is_due(self, report: NetworkReport, held: NetworkReport | None) -> bool:
        fresh_ms = REPORTS_LIVE * self._policy.measure_ms // 2
        sent = self._reported
        if sent is not None and (held is None or held.stamp_ms < sent.stamp_ms):
            return report.stamp_ms - sent.stamp_ms > fresh_ms  # the last one is on its way
        if held is None:
            return report.rtt_us is not None or report.rate_bps is not None
        if self._store.modes.state.asked is not None or is_news(held, report):
            return True
        return report.stamp_ms - held.stamp_ms > fresh_ms

    # --- acting ---------------------------------------------------------------------------------

    def _wish(self) -> None:
        """Ask for the protocol of the decided mode, while another runs."""
        standing = self._engine.standing
        if standing.me is None:
            return
        wish = self._store.modes.wish(standing.record, self._store.applied_index)
        if wish is not None:
            self._engine.inbox.put(wish)

    # --- telling --------------------------------------------------------------------------------

    def _has_changed(self) -> bool:
        return self.mode is not self._mode or self._store.modes.state.switches != self._switches

    def _tell(self) -> None:
        state = self._store.modes.state
        if state.switches != self._switches and state.last is not None:
            self._switches = state.switches
            last = state.last
            numbers = msgspec.structs.asdict(last.network)
            del numbers["stamp_ms"]
            extra = {"from": last.before, "to": last.after, "reason": last.reason, **numbers}
            _log.info("mode-decided", extra={"index": last.index, **extra})
        before, self._mode = self._mode, self.mode
        if before is not self._mode:
            standing = self._engine.standing
            node = "" if standing.me is None else standing.record.members[standing.me].name
            self._metrics.mode = self._mode.value
            self._metrics.mode_switches.labels(node, before, self._mode).inc()
            extra = {"from": before, "to": self._mode, "decided": state.mode}
            _log.info("mode-switched", extra={"epoch": standing.epoch, **extra})
