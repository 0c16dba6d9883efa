"""A failing life made smaller: fewer liars, faults and operations, while it still fails.

Leaving something out changes the order of everything after it, so that a smaller life may fail
in another way; what is kept is any failure of the same kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from dwcp_replica.sim.campaign import attempt
from dwcp_replica.sim.scenario import Scenario
from dwcp_replica.sim.world import Link

TRIES_MAX = 200


def shrink(scenario: Scenario, what: str) -> tuple[Scenario, str]:
    """The smallest life found that fails like `what`, and how it fails."""
    kind = _kind(what)
    tries = 0
    smaller = True
    while smaller and tries < TRIES_MAX:
        smaller = False
        for candidate in _smaller(scenario):
            tries += 1
            result = attempt(candidate)
            if isinstance(result, str) and _kind(result) == kind:
                scenario, what, smaller = candidate, result, True
                break
            if tries >= TRIES_MAX:
                break
    return scenario, what


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Every life with one thing less, the greatest steps first."""
    for operations in sorted({1, 2, scenario.operations // 2, scenario.operations - 1}):
        if 0 < operations < scenario.operations:
            yield replace(scenario, operations=operations)
    for member in scenario.liars:
        yield replace(scenario, liars={m: s for m, s in scenario.liars.items() if m != member})
    for at in range(len(scenario.faults)):
        yield replace(scenario, faults=scenario.faults[:at] + scenario.faults[at + 1 :])
    if scenario.weather != Link() or scenario.uneven:
        yield calm(scenario)


def calm(scenario: Scenario) -> Scenario:
    """The same life over good links."""
    return replace(scenario, weather=Link(), uneven=False)


def _kind(what: str) -> str:
    """Which promise: the words before the second colon, without numbers."""
    return re.sub(r"[0-9]+", "", ":".join(what.split(":", 2)[:2]))
