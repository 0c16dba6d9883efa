"""One member's part in choosing the mode: it reports its network, and asks for what was decided.

    links measured ──> reach ──> signed report ──log──> ModeBook: median, decision (store/modes.py)
                                                             │
    SwitchRequest <── core/epochs/wishing <── Wish <─────────┘   while another protocol runs

What a member does of this, its features say (node/config.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.core.effects import HandOver, Submit
from dwcp_replica.core.epochs.wishing import Wish, first_protocol
from dwcp_replica.core.modes.decide import Mode, mode_in_force
from dwcp_replica.core.modes.placement import better_leader
from dwcp_replica.core.modes.reach import Reach, reach
from dwcp_replica.net.links import LinkWatch, Pace
from dwcp_replica.node.config import USUAL, Feature
from dwcp_replica.node.engine import Engine
from dwcp_replica.node.health import takes_part
from dwcp_replica.node.mesh import Mesh
from dwcp_replica.store import Store
from dwcp_replica.store.reporting import Reporter

PLACE_ROUNDS: Final = 60
"""A leader leads for so many rounds of measuring before it hands over to a better placed one."""

_log = logging.getLogger(__name__)


class ModeKeeper:
    """Joins links, log and core; lives on the event loop."""

    def __init__(
        self, genesis: EpochRecord, signer: Callable[[], Signer], verifier: Verifier,
        engine: Engine, store: Store, mesh: Mesh, metrics: ReplicaMetrics,
        features: frozenset[Feature] = USUAL,
    ) -> None:  # fmt: skip
        self._genesis = genesis
        self._features = features
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
        self._led_since_s: float | None = None
        self._reporter = Reporter(genesis.hash(), signer, policy.measure_ms)

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What must run."""
        if Feature.MEASURE in self._features:
            return [self.links.run(self.after_round), self.notice()]
        return [self.wish_again(), self.notice()]

    async def wish_again(self) -> None:
        """Without measurements: say for ever what is asked for."""
        while True:
            await asyncio.sleep(self._policy.measure_ms / 1000)
            self._wish()

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
            self._place()

    async def notice(self) -> None:
        """Tell of every change of mode as soon as it is there."""
        while True:
            await self._engine.until(self._has_changed)
            self._tell()
            self._wish()

    # --- reporting ------------------------------------------------------------------------------

    def _report(self) -> None:
        if not self._policy.detect or Feature.REPORT not in self._features:
            return
        wall_ms = int(time.time() * 1000)
        envelope = self._reporter.envelope(self._store.modes, self.reach, wall_ms)
        if envelope is not None:
            self._metrics.reports.inc()
            self._engine.inbox.put(Submit(envelope))

    # --- placing --------------------------------------------------------------------------------

    def _place(self) -> None:
        """Hand the lead to a member that reaches a quorum much sooner, once in a long while."""
        standing = self._engine.standing
        leads = takes_part(standing) and standing.primary == standing.me
        now_s = time.monotonic()
        if not leads or standing.record.protocol != "raft":
            self._led_since_s = None
            return
        if self._led_since_s is None:
            self._led_since_s = now_s
        wanted = self._policy.detect and Feature.PLACE in self._features
        settled_s = PLACE_ROUNDS * self._policy.measure_ms / 1000
        if not wanted or now_s - self._led_since_s < settled_s:
            return
        best = better_leader(self.reach.rtt_us, *self._others(standing.record))
        if best is not None:
            self._led_since_s = now_s  # if it does not come to it, not soon again
            self._metrics.placements.inc()
            to = standing.record.members[best].name
            _log.info("leader-placed", extra={"to": to, "rttUs": self.reach.rtt_us})
            self._engine.inbox.put(HandOver(best))

    def _others(self, record: EpochRecord) -> tuple[dict[int, int | None], dict[int, int | None]]:
        """By number: my round trip to each other member, and its own to a quorum as it says."""
        mine, claims = self._signer().public_key, self._store.modes.claims(self._store.stamp_ms)
        others = {n: m.identity for n, m in enumerate(record.members) if m.identity != mine}
        return (
            {n: self.links.link_to(key).rtt_us for n, key in others.items()},
            {n: claims.get(key) for n, key in others.items()},
        )

    # --- acting ---------------------------------------------------------------------------------

    def _wish(self) -> None:
        """Ask for the protocol of the decided mode, while another runs."""
        standing = self._engine.standing
        if standing.me is None:
            return
        wish = self._wanted(standing.record)
        if wish is not None:
            self._engine.inbox.put(wish)

    def _wanted(self, record: EpochRecord) -> Wish | None:
        if Feature.FIRST_PROTOCOL in self._features:
            return first_protocol(self._genesis, record)
        if Feature.SWITCH not in self._features:
            return None
        return self._store.modes.wish(record, self._store.applied_index)

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
