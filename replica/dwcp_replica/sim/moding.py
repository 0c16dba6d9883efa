"""Simulated members that measure, report and switch, some of whose reports are lies.

Every member reports the network that its links of the simulated world have, with noise; liars
report what their strategy makes up. Reporting, deciding and wishing are the real code
(store.reporting, store.modes, core.epochs.wishing), under a load whose every promise is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

from dwcp.wire.records import ModePolicy, Protocol
from dwcp_replica.core.modes.decide import PROTOCOL_OF, Mode
from dwcp_replica.core.modes.reach import Link as Measured
from dwcp_replica.core.modes.reach import Reach, reach
from dwcp_replica.sim.host import WALL_START_MS, Host, Machine
from dwcp_replica.sim.run import Simulation
from dwcp_replica.sim.scenario import Scenario, derive
from dwcp_replica.sim.world import Link
from dwcp_replica.store.reporting import Reporter

RATE_BPS: Final = 10_000_000_000
POLICY: Final = ModePolicy(detect=True, measure_ms=2000, dwell_ms=4000, cooldown_ms=6000)
"""The brief's thresholds, five times as quick."""
SETTLES_MS: Final = 60_000
STEPS_MAX: Final = 5_000_000
"""These lives are long, and their heartbeats count."""

Lie = Callable[[Random, Reach], Reach | None]
"""What a lying reporter says of its network; None: nothing."""


def _flips(dice: Random, truth: Reach) -> Reach:
    return replace(truth, rtt_us=dice.choice((1, 3_000_000)))


LIES: Final[Mapping[str, Lie]] = {
    "near": lambda _, truth: replace(truth, rtt_us=1, rate_bps=2 * RATE_BPS),
    "far": lambda _, truth: replace(truth, rtt_us=3_000_000),
    "narrow": lambda _, truth: replace(truth, rate_bps=1),
    "flips": _flips,
    "says nothing": lambda _, _truth: None,
    "knows nothing": lambda _, _truth: Reach(),
}
"""How reporters lie."""


def scenario(
    seed: int, n: int, operations: int, think_ms: int, policy: ModePolicy = POLICY
) -> Scenario:
    """A life without other faults, whose members measure."""
    return replace(
        derive(seed, n, operations, "pbft"),
        interval=100,
        think_ms=think_ms,
        weather=Link(),
        uneven=False,
        machines=(Machine(),) * n,
        liars={},
        faults=(),
        real=False,
        timeout_ms=2000,
        modes=policy,
    )


class ModingLife(Simulation):
    """A cluster whose round trips are as `rtt_ms` says; `lies` are by member."""

    def __init__(
        self, scenario: Scenario, rtt_ms: float, lies: Mapping[int, str], noise: float = 0.0
    ) -> None:
        super().__init__(scenario)
        self.world.steps_max = STEPS_MAX
        self._lies = lies
        self._noise = noise
        self._dice_of = [self._dice(f"modes {host.me}") for host in self.hosts]
        self._rtt_ms = rtt_ms
        self._over = False
        policy = scenario.modes
        self._every_ms = policy.measure_ms
        genesis = self.genesis.hash()
        for host, dice in zip(self.hosts, self._dice_of, strict=True):
            reporter = Reporter(genesis, partial(getattr, host, "signer"), policy.measure_ms)
            self.world.after(dice.randrange(self._every_ms), self._round, host, reporter)
        self.move(rtt_ms)

    def move(self, rtt_ms: float) -> None:
        """The members are so far apart from now on."""
        self._rtt_ms = rtt_ms
        one_way_ms = max(1, round(rtt_ms / 2))
        self.world.link = Link(one_way_ms, one_way_ms)

    def settle(self, mode: Mode) -> bool:
        """Let time pass until this is decided, and its protocol runs, everywhere."""
        return self.world.run(self.world.now_ms + SETTLES_MS, lambda: self.runs(mode))

    def runs(self, mode: Mode) -> bool:
        """True when every member has decided it and runs its protocol."""
        return all(
            host.store.modes.state.mode is mode and self._protocol(host) == PROTOCOL_OF[mode]
            for host in self.hosts
        )

    def stop_measuring(self) -> None:
        """No more reports: what is under way may come to its end."""
        self._over = True

    def _protocol(self, host: Host) -> Protocol:
        return host.record.protocol

    def _round(self, host: Host, reporter: Reporter) -> None:
        """A member has measured anew."""
        if self._over:
            return
        self.world.after(self._every_ms, self._round, host, reporter)
        if not host.up or host.store.target is not None:
            return
        network = self._said(host)
        wall_ms = WALL_START_MS + host.clock_ms
        book = host.store.modes
        envelope = None if network is None else reporter.envelope(book, network, wall_ms)
        if envelope is not None:
            self.checker.submitted.add(envelope.digest())
            host.envelope(envelope)
        wish = book.wish(host.record, host.store.applied_index)
        if wish is not None:
            host.feed(wish)

    def _said(self, host: Host) -> Reach | None:
        """What a member says it has measured."""
        dice = self._dice_of[host.me]
        links = [
            Measured(round(self._rtt_ms * 1000 * self._factor(dice)), 0, 0.0, RATE_BPS)
            for _ in range(self.n - 1)
        ]
        truth = reach(links, self.n)
        lie = self._lies.get(host.me)
        return truth if lie is None else LIES[lie](dice, truth)

    def _factor(self, dice: Random) -> float:
        return 1.0 + dice.uniform(-self._noise, self._noise)
