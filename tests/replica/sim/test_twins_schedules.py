"""Schedules of twins that others wrote: leaders and partitions round by round, two copies of 0.

The source gives no verdict; what must hold is what every simulated life must keep, at every step,
and that all is well again once the partitions end. A round is a while in which only its leaders
get through with proposals and new views, so that views go by until one of them leads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dwcp.wire.signing import Signer
from dwcp_replica.sim.liar import Liar
from dwcp_replica.sim.memo import hashes_remembered
from dwcp_replica.sim.planting import Setting
from dwcp_replica.sim.registry import TWINS
from dwcp_replica.sim.run import Simulation
from dwcp_replica.sim.scenario import Scenario
from dwcp_replica.sim.world import Link

ROUND_MS = 2000


class Scheduled(Simulation):
    """A life whose partitions and leaders follow a schedule, and whose twins are honest copies."""

    def __init__(self, scenario: Scenario, case: dict[str, Any]) -> None:
        super().__init__(scenario)
        self.case = case
        self.leaders_seen = 0

    def liar(self, me: int, signer: Signer, side: int) -> Liar | None:
        """A twin lies about nothing but that it is one."""
        return Liar(self.context(me, signer, side)) if me in self.scenario.liars else None

    def name(self, node: int) -> str:
        """Nodes are members, and behind them the copies of the first ones."""
        n = self.scenario.n
        return f"sim-{node}" if node < n else f"sim-{node - n}~"

    def live_through(self) -> None:
        """Every round, with whatever its firewall cuts besides."""
        nodes = range(self.case["nodes"] + self.case["twins"])
        firewall = self.case.get("firewall", {})
        for key in sorted(self.case["round_leaders"], key=int):
            groups = [set(group) for group in self.case["round_partitions"][key]]
            apart = [
                (a, b)
                for a in nodes
                for b in nodes
                if a != b and not any({a, b} <= group for group in groups)
            ]
            apart += [(int(a), b) for a, to in firewall.get(key, {}).items() for b in to]
            pairs = [(self.name(a), self.name(b)) for a, b in apart]
            quiet = {
                (self.name(node), kind)
                for node in nodes
                for kind in ("PrePrepare", "NewView")
                if node not in self.case["round_leaders"][key]
            }
            self.world.cut(pairs)
            self.world.lost_kinds |= quiet
            self.world.run(self.world.now_ms + ROUND_MS, lambda: False)
            self.world.lost_kinds -= quiet
            self.world.mend(pairs)
        self.end_well()


@pytest.mark.slow
def test_independent_schedules_of_twins(conformance: Path) -> None:
    cases = (conformance / "bft_twins" / "scenarios.jsonl").read_text().splitlines()
    convicted = moved = 0
    for number, line in enumerate(cases):
        case = json.loads(line)
        liars = dict.fromkeys(range(case["twins"]), TWINS)
        setting = Setting(case["nodes"], 30, 10, liars, (), Link(1, 10))
        life = Scheduled(setting.scenario(number + 1), case)
        with hashes_remembered():
            life.live_through()
        convicted += any(host.core.standing().evidence for host in life.hosts if host.honest)
        moved += life.checker.views > 1
    print(f"bft_twins: {len(cases)} schedules, {moved} with view changes, {convicted} convicted 0")
    assert len(cases) >= 50
    assert moved > 10
    assert convicted > 10
