"""Which mode the measured network asks for, and when a change of mode is due.

    classify: the rule of thresholds          (a table, no memory)
    settle:   classify, unless the present mode is still within the hysteresis
    Decision: a mode must be asked for through a whole dwell, after a cool-down

A quantity that is unknown abstains. A link under 10 ms whose rate nobody knows is no data
centre yet, and nothing else either: the present mode stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from dwcp.wire.records import Protocol
from dwcp_replica.core.modes.reach import Reach


class Mode(StrEnum):
    """How the replicas agree, and how documents travel."""

    DATACENTER = "Datacenter"
    HYBRID = "Hybrid"
    INTERNET = "Internet"


PROTOCOL_OF: Final[dict[Mode, Protocol]] = {
    Mode.DATACENTER: "raft",
    Mode.HYBRID: "raft",
    Mode.INTERNET: "pbft",
}


def mode_in_force(decided: Mode, protocol: Protocol) -> Mode:
    """What runs: the decided mode, or the one whose protocol runs instead of it."""
    if PROTOCOL_OF[decided] == protocol:
        return decided
    return Mode.INTERNET if protocol == "pbft" else Mode.DATACENTER


@dataclass(frozen=True, slots=True)
class Rules:
    """Where one mode ends and the next begins; the defaults are the brief's.

    Below `rtt_low_us` with `rate_bps` or more: Datacenter. Above `rtt_high_us`, or below
    `rate_bps`: Internet. Otherwise Hybrid. `hysteresis` is the share of a threshold by which
    a value must be beyond it before a mode is left. Times are milliseconds: a new mode must be
    asked for during `dwell_ms`, at least `cooldown_ms` after the last automatic switch.
    """

    rtt_low_us: int = 10_000
    rtt_high_us: int = 50_000
    rate_bps: int = 1_000_000_000
    hysteresis: float = 0.1
    dwell_ms: int = 20_000
    cooldown_ms: int = 30_000

    def __post_init__(self) -> None:
        if not 0 < self.rtt_low_us <= self.rtt_high_us:
            raise ValueError(
                f"the thresholds {self.rtt_low_us} us and {self.rtt_high_us} us are not in "
                "order: make the lower one positive and at most the upper one"
            )
        if not 0 <= self.hysteresis < 1:
            raise ValueError(f"hysteresis is {self.hysteresis}: use a share from 0 to below 1")
        if self.rate_bps < 0 or self.dwell_ms < 0 or self.cooldown_ms < 0:
            raise ValueError("a rate or a time is negative: use 0 or more")


def classify(network: Reach, rules: Rules) -> Mode | None:
    """The mode that the thresholds name for this network; None while too little is known."""
    rtt, rate = network.rtt_us, network.rate_bps
    if (rate is not None and rate < rules.rate_bps) or (
        rtt is not None and rtt > rules.rtt_high_us
    ):
        return Mode.INTERNET
    if rtt is None:
        return None
    if rtt >= rules.rtt_low_us:
        return Mode.HYBRID
    return None if rate is None else Mode.DATACENTER


def settle(present: Mode, network: Reach, rules: Rules) -> Mode:
    """The mode that this network asks for, given the one that is in force.

    The present mode stays while some network within the hysteresis of the measured one would
    still ask for it.
    """
    share = rules.hysteresis
    for rtt_factor in (1.0, 1 - share, 1 + share):
        for rate_factor in (1.0, 1 - share, 1 + share):
            if classify(_scaled(network, rtt_factor, rate_factor), rules) is present:
                return present
    return classify(network, rules) or present


def _scaled(network: Reach, rtt_factor: float, rate_factor: float) -> Reach:
    rtt, rate = network.rtt_us, network.rate_bps
    return replace(
        network,
        rtt_us=None if rtt is None else round(rtt * rtt_factor),
        rate_bps=None if rate is None else round(rate * rate_factor),
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What has been decided so far; replicated state. Times are agreed time, milliseconds.

    forced: the mode that a person asked for, until it is released. asked: a mode other than
    the present one that the network asks for, without a break since `asked_since_ms`.
    cooldown_ms: the wait after the last switch, where it is longer than the rules' (fail-over
    with back-off). pinned: switching is off, and the cluster stays with its first protocol.
    """

    mode: Mode
    forced: Mode | None = None
    pinned: bool = False
    asked: Mode | None = None
    asked_since_ms: int = 0
    switched_ms: int | None = None
    cooldown_ms: int = 0


@dataclass(frozen=True, slots=True)
class Switch:
    """A change of mode is due, for this reason and with these numbers."""

    to: Mode
    reason: str
    network: Reach


def force(decision: Decision, mode: Mode | None) -> Decision:
    """A person asks for a mode, or (None) lets the network decide again."""
    return replace(decision, forced=mode, asked=None)


def consider(
    decision: Decision, network: Reach, now_ms: int, rules: Rules
) -> tuple[Decision, Switch | None]:
    """Take one round of reports; say what is remembered, and which switch is due.

    A forced mode is honoured at once and until it is released; neither dwell nor cool-down
    binds it. The caller reports a switch that took place with `switched`.
    """
    if decision.pinned:
        return replace(decision, asked=None), None
    if decision.forced is not None:
        kept = replace(decision, asked=None)
        if decision.forced is decision.mode:
            return kept, None
        return kept, Switch(decision.forced, "forced", network)
    wanted = settle(decision.mode, network, rules)
    if wanted is decision.mode:
        return replace(decision, asked=None), None
    if wanted is not decision.asked:
        decision = replace(decision, asked=wanted, asked_since_ms=now_ms)
    cooldown_ms = max(rules.cooldown_ms, decision.cooldown_ms)
    cool = decision.switched_ms is None or now_ms - decision.switched_ms >= cooldown_ms
    if cool and now_ms - decision.asked_since_ms >= rules.dwell_ms:
        return decision, Switch(wanted, "network", network)
    return decision, None


def switched(decision: Decision, mode: Mode, now_ms: int) -> Decision:
    """A switch took place: an epoch of `mode` has begun."""
    return replace(decision, mode=mode, asked=None, switched_ms=now_ms)
