"""What a seed decides, as data: the cluster, its faults, its liars. A part can be left out.

Every aspect has dice of its own, so that leaving one fault out changes nothing else: that is
what makes a failure shrink (shrink.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

from dwcp.wire.records import ModePolicy, Protocol, Trust
from dwcp_replica.core.quorum import liars as liars_of
from dwcp_replica.sim.host import Machine
from dwcp_replica.sim.registry import LIARS, LIARS_OF
from dwcp_replica.sim.world import Link

FAULTS_MS: Final = 2500
"""Until when faults happen at the latest, in virtual ms; then only the liars go on."""
RAFT_SHARE: Final = 0.4
CRASH_SHARE: Final = 0.25
"""Of the lives with Raft, those whose members trust each other."""
CRASH_SIZES: Final = (1, 3, 5)
REAL_EVERY: Final = 20
"""Every so manieth seed runs with Ed25519 and encoded frames."""

NO_DETECTION: Final = ModePolicy()
CLIENTS: Final = 3
SIZES: Final = ((4, 0.94), (7, 0.98), (10, 0.99), (13, 1.0))
"""How many members a life has, and up to which draw: large clusters are slow, and rarely needed."""


class _Timed:
    """When a fault begins; how long it lasts is in the field that each kind names so."""

    __slots__ = ()
    at_ms: int

    @property
    def end_ms(self) -> int:
        """When it is over."""
        lasts = getattr(self, "for_ms", 0) or getattr(self, "down_ms", 0)
        assert isinstance(lasts, int), "durations are whole milliseconds"
        return self.at_ms + lasts


@dataclass(frozen=True, slots=True)
class Crash(_Timed):
    """A member stops at once and comes back after `down_ms` with what it had synced."""

    member: int
    at_ms: int
    down_ms: int


@dataclass(frozen=True, slots=True)
class Cut(_Timed):
    """Some members can not reach the others, or not be reached, or both."""

    members: tuple[int, ...]
    at_ms: int
    for_ms: int
    outbound: bool = True
    inbound: bool = True


@dataclass(frozen=True, slots=True)
class Slow(_Timed):
    """All that a member sends takes longer."""

    member: int
    at_ms: int
    for_ms: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Full(_Timed):
    """A member's disk has no space: nothing becomes durable for a while."""

    member: int
    at_ms: int
    for_ms: int


@dataclass(frozen=True, slots=True)
class Lose(_Timed):
    """All messages of one kind that a member sends are lost for a while."""

    member: int
    at_ms: int
    for_ms: int
    kind: str


@dataclass(frozen=True, slots=True)
class Rot(_Timed):
    """A member crashes and its log is damaged: it comes back mute. One of f."""

    member: int
    at_ms: int
    down_ms: int
    tail: bool


@dataclass(frozen=True, slots=True)
class Amnesia(_Timed):
    """A member loses its volume: it may not come back under its key. One of f."""

    member: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Refresh(_Timed):
    """The admin orders another epoch with the same members."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Replace(_Timed):
    """The admin orders that a new machine take a member's place."""

    member: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Resize(_Timed):
    """The admin orders 7 members instead of 4, or 4 instead of 7."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Switch(_Timed):
    """The admin orders a protocol, with the same members."""

    protocol: Protocol
    at_ms: int


@dataclass(frozen=True, slots=True)
class Alarmed(_Timed):
    """Some members PANIC."""

    members: tuple[int, ...]
    at_ms: int


Fault = (
    Crash | Cut | Slow | Full | Lose | Rot | Amnesia | Refresh | Replace | Resize | Switch | Alarmed
)
EPOCHS_EVERY: Final = 0.4
"""How often a life has other epochs on purpose, besides those that lies bring about."""
SWITCHES_EVERY: Final = 0.4
"""How often a life changes its protocol, once or more."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One life of a cluster, but for the dice of the network."""

    seed: int
    n: int
    operations: int
    interval: int
    think_ms: int
    weather: Link
    uneven: bool
    machines: tuple[Machine, ...]
    liars: dict[int, str]
    faults: tuple[Fault, ...]
    real: bool
    clients: int = CLIENTS
    timeout_ms: int = 500
    fast_reads: bool = False
    protocol: Protocol = "pbft"
    trust: Trust = "Byzantine"
    modes: ModePolicy = NO_DETECTION

    @property
    def faulty(self) -> frozenset[int]:
        """The members that count among f: liars, and those that lost what they had promised."""
        broken = {f.member for f in self.faults if isinstance(f, Rot | Amnesia)}
        return frozenset(broken | set(self.liars))


def derive(
    seed: int, n: int | None = None, operations: int = 20, protocol: Protocol | None = None
) -> Scenario:
    """The life that `seed` decides, but for what is given. 1, 3 and 5 members trust each other."""
    dice = Random(f"{seed}/cluster")
    drawn = dice.random()
    kind = Random(f"{seed}/protocol")
    protocol = protocol or ("raft" if kind.random() < RAFT_SHARE else "pbft")
    honest = kind.random() < CRASH_SHARE and protocol == "raft" and n is None
    n = n or next(size for size, upto in SIZES if drawn < upto)
    n = kind.choice((1, 3, 3, 5)) if honest else n
    trust: Trust = "Crash" if n in CRASH_SIZES else "Byzantine"
    budget = list(range(n))
    Random(f"{seed}/faulty").shuffle(budget)
    budget = budget[: liars_of(n, trust)]
    ends = trust == "Byzantine"
    switches = _switches(Random(f"{seed}/switches"), protocol) if ends else ()
    liars = _liars(Random(f"{seed}/liars"), budget, protocol, everywhere=bool(switches))
    return Scenario(
        seed=seed,
        n=n,
        operations=operations,
        interval=dice.choice((2, 4, 10, 100)),
        think_ms=dice.choice((10, 60, 150)),
        weather=_weather(Random(f"{seed}/weather")),
        uneven=dice.random() < 0.3,
        machines=tuple(_machine(dice) for _ in range(n)),
        liars=liars,
        faults=(
            *_faults(Random(f"{seed}/faults"), n, [m for m in budget if m not in liars], protocol),
            *(_epochs(Random(f"{seed}/epochs"), n) if ends else ()),
            *switches,
        ),
        real=seed % REAL_EVERY == 0,
        fast_reads=Random(f"{seed}/reads").random() < 0.3 and trust == "Byzantine",
        protocol=protocol,
        trust=trust,
    )


def short(seed: int) -> Scenario:
    """A short life: 4 members that run PBFT, one crash or one silent primary, nothing else."""
    scenario = derive(seed, 4, protocol="pbft")
    return replace(scenario, liars={}, faults=scenario.faults[:1])


def _liars(
    dice: Random, budget: list[int], protocol: Protocol, *, everywhere: bool
) -> dict[int, str]:
    names = sorted(LIARS if everywhere else LIARS_OF[protocol])
    return {m: dice.choice(names) for m in budget if dice.random() < 0.7}


def _weather(dice: Random) -> Link:
    return Link(
        delay_ms_min=1,
        delay_ms_max=dice.choice((2, 10, 80)),
        drop=dice.choice((0.0, 0.0, 0.02, 0.2)),
        duplicate=dice.choice((0.0, 0.05, 0.3)),
        bytes_per_ms=dice.choice((0, 0, 0, 0, 50)),
    )


def _machine(dice: Random) -> Machine:
    return Machine(
        skew_ms=dice.choice((0, dice.randint(-200, 200), dice.randint(-9000, 9000))),
        drift=dice.choice((0.0, 0.001, -0.02, 0.05)),
        sync_ms=dice.randint(0, 8),
    )


def _faults(dice: Random, n: int, spare: list[int], protocol: Protocol) -> tuple[Fault, ...]:
    """At least one crash or one primary that can not be heard, and up to three faults more."""
    first: Fault
    whom = 0 if dice.random() < 0.5 else dice.randrange(n)
    at_ms = dice.randint(10, 700)
    if dice.random() < 0.7:
        first = Crash(whom, at_ms, dice.randint(1, 800))
    else:
        first = Cut((0,), at_ms, dice.randint(650, 1000), inbound=dice.random() < 0.5)
    found: list[Fault] = [first, *(_fault(dice, n, protocol) for _ in range(dice.randint(0, 3)))]
    for member in spare:
        at_ms = dice.randint(100, 1000)
        match dice.randrange(4):
            case 0:
                found.append(Rot(member, at_ms, dice.randint(1, 800), tail=dice.random() < 0.6))
            case 1:
                found.append(Amnesia(member, at_ms))
    return tuple(found)


def _epochs(dice: Random, n: int) -> tuple[Fault, ...]:
    """Up to three reasons for another epoch."""
    if dice.random() >= EPOCHS_EVERY:
        return ()
    found: list[Fault] = []
    for _ in range(dice.choice((1, 1, 2, 3))):
        at_ms = dice.randint(20, 1500)
        match dice.randrange(6):
            case 0 | 1:
                found.append(Refresh(at_ms))
            case 2 | 3:
                found.append(Replace(dice.randrange(n), at_ms))
            case 4:
                found.append(Resize(at_ms))
            case _:
                f = (n - 1) // 3
                count = dice.choice((f, f + 1, n))
                found.append(Alarmed(tuple(sorted(dice.sample(range(n), count))), at_ms))
    return tuple(found)


def _switches(dice: Random, protocol: Protocol) -> tuple[Fault, ...]:
    """Up to three orders that change the protocol, to and fro."""
    if dice.random() >= SWITCHES_EVERY:
        return ()
    found: list[Fault] = []
    for at_ms in sorted(dice.randint(20, 1800) for _ in range(dice.choice((1, 1, 2, 3)))):
        protocol = "raft" if protocol == "pbft" else "pbft"
        found.append(Switch(protocol, at_ms))
    return tuple(found)


KINDS: Final = {
    "pbft": ("Prepare", "Commit", "CheckpointVote", "ViewChange", "NewView", "PrePrepare"),
    "raft": ("Prepare", "Commit", "CheckpointVote", "Vote", "VoteRequest", "Append", "Appended"),
}
"""Messages that may be lost altogether for a while."""


def _fault(dice: Random, n: int, protocol: Protocol) -> Fault:
    member, at_ms, for_ms = dice.randrange(n), dice.randint(10, 1000), dice.randint(50, 700)
    match dice.randrange(8):
        case 0 | 1 | 2:
            return Crash(member, at_ms, for_ms)
        case 3:
            both = dice.random() < 0.6
            return Cut((member,), at_ms, for_ms, outbound=both or dice.random() < 0.5)
        case 4:
            side = tuple(sorted(dice.sample(range(n), n // 2)))
            return Cut(side, at_ms, for_ms, inbound=dice.random() < 0.7)
        case 5:
            return Slow(member, at_ms, for_ms, dice.choice((100, 400)))
        case 6:
            return Full(member, at_ms, for_ms)
        case _:
            return Lose(member, at_ms, for_ms, dice.choice(KINDS[protocol]))
