"""Real engines as values: a state, an input, and what follows, each computed once.

An engine's step depends on nothing but its state and its input, so that equal states, found equal
by their fingerprint, need be stepped only once for each input, in however many orders members get
there. A state is kept as bytes and made an engine again for the step.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dwcp.wire.peer import PeerMessage
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, Verifier, digest
from dwcp_replica.core.effects import (
    EVERYONE,
    Applied,
    EvidenceFound,
    Halted,
    Input,
    Ready,
    Received,
    Record,
    Tick,
)
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.state import IN_FLIGHT_MAX, WINDOW_INTERVALS
from dwcp_replica.sim.fingerprint import Fingerprints
from dwcp_replica.sim.glimpse import Executed, Glimpse, glimpse
from dwcp_replica.sim.host import BROKEN, WALL_START_MS
from dwcp_replica.sim.ledger import BrokenPromiseError
from dwcp_replica.sim.promises import Promises

START_MS: Final = 1000
LOOKED_UP: Final = ("_driver", "_handlers")
"""What an engine finds by itself: functions, which can not be kept where one is planted."""


@dataclass(frozen=True, slots=True)
class Restart:
    """The member crashes and starts again from its disk, if it has not done so before."""


@dataclass(frozen=True, slots=True)
class Together:
    """Inputs that come one right after the other."""

    inputs: tuple[Input, ...]


Cause = Input | Restart | Together


@dataclass(frozen=True, slots=True)
class Fixed:
    """In place of dice: the same draw always, another one for each member."""

    me: int

    def __call__(self, bound: int) -> int:
        """Below `bound`."""
        return self.me * bound // 13


@dataclass(slots=True)
class Life:
    """An honest member: its engine, its disk, what it has promised and executed."""

    replica: Replica
    promises: Promises
    executed: list[Executed] = field(default_factory=list)
    disk: list[Record] = field(default_factory=list)
    restarts: int = 0
    sent: int = 0
    """The messages that it has ever sent, as bits by their number."""


@dataclass(frozen=True, slots=True)
class Known:
    """A state of a member that was found: as bytes, what it has sent, what can be seen of it."""

    kept: bytes
    sent: int
    seen: Glimpse


@dataclass(frozen=True, slots=True)
class Effect:
    """What an input leads to: a state's number, the messages sent, what was broken if anything."""

    state: int
    sent: tuple[int, ...] = ()
    broken: str = ""


class Engines:
    """All states of all members that were found, and all messages, by number.

    `crashes`: what is on a disk tells states apart; without crashes it can not matter. `kinds`:
    only these messages travel, or all. `timely`: time passes, so that when others were heard
    tells states apart. How much more a peer may ask of large answers never tells states apart.
    """

    def __init__(
        self,
        genesis: EpochRecord,
        keys: tuple[Sequence[Signer], Verifier],
        *,
        liars: frozenset[int] = frozenset(),
        crashes: bool = False,
        timely: bool = False,
        kinds: frozenset[str] | None = None,
    ) -> None:
        self.genesis = genesis
        self.n = len(genesis.members)
        self.known: list[Known] = []
        self.causes: list[Cause] = []
        self.targets: list[int] = []
        self.towards = [0] * self.n
        """For each member, the messages to it as bits."""
        self.steps = 0
        self.restartable = crashes
        self._signers, self._verifier = keys
        self._liars = liars
        self._kinds = kinds
        self._prints = Fingerprints(("allowance",) if timely else ("allowance", "heard_ms"))
        self._states: dict[bytes, int] = {}
        self._numbers: dict[bytes, int] = {}
        self._effects: dict[tuple[int, int], Effect] = {}

    # --- messages ------------------------------------------------------------------------------

    def cause(self, target: int, cause: Cause) -> int:
        """The number of an input for a member."""
        key = self._prints.of((target, type(cause).__name__, cause))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.causes)
            self.causes.append(cause)
            self.targets.append(target)
            self.towards[target] |= 1 << number
        return number

    def said(self, source: int, target: int, message: PeerMessage) -> int | None:
        """The number of a message; None when its kind does not travel here."""
        if self._kinds is not None and type(message).__name__ not in self._kinds:
            return None
        return self.cause(target, Received(source, message))

    def describe(self, number: int) -> str:
        """What a cause is, for a reader."""
        cause, target = self.causes[number], self.targets[number]
        if isinstance(cause, Together):
            cause = cause.inputs[0]
        if isinstance(cause, Received):
            said = cause.message
            where = getattr(said, "header", None) or getattr(
                getattr(said, "entry", said), "header", None
            )
            place = "" if where is None else f" of {where.index} {where.hash().hex()[:4]}"
            return f"{type(said).__name__}{place} from {cause.sender} to {target}"
        return f"{type(cause).__name__} at {target}"

    def only(self, kinds: frozenset[str]) -> None:
        """From now on only these messages travel, of those that were sent before too."""
        self._kinds = kinds
        for number, cause in enumerate(self.causes):
            if isinstance(cause, Received) and type(cause.message).__name__ not in kinds:
                self.towards[self.targets[number]] &= ~(1 << number)

    # --- states --------------------------------------------------------------------------------

    def begin(self, me: int) -> int:
        """The state of a member that starts with an empty disk."""
        window = WINDOW_INTERVALS * max(self.genesis.parameters.checkpoint_interval, IN_FLIGHT_MAX)
        life = Life(self._engine(me, []), Promises(window))
        effect = self._taken(life, me, Tick(START_MS, WALL_START_MS + START_MS))
        assert not effect.broken, effect.broken
        return effect.state

    def step(self, state: int, number: int) -> Effect:
        """What an input leads to in a state."""
        found = self._effects.get((state, number))
        if found is None:
            self.steps += 1
            me, cause = self.targets[number], self.causes[number]
            found = self._taken(_thawed(self.known[state].kept), me, cause)
            self._effects[(state, number)] = found
        return found

    def engine(self, state: int) -> Replica:
        """A state as an engine, for whoever makes a scene."""
        return _thawed(self.known[state].kept).replica

    def _engine(self, me: int, disk: list[Record]) -> Replica:
        return Replica(
            genesis=self.genesis,
            me=me,
            signer=self._signers[me],
            verifier=self._verifier,
            records=list(disk),
            draw=Fixed(me),
        )

    def _taken(self, life: Life, me: int, cause: Cause) -> Effect:
        sent: list[int] = []
        broken = ""
        try:
            if isinstance(cause, Restart):
                self._restart(life, me, sent)
            else:
                for one in cause.inputs if isinstance(cause, Together) else (cause,):
                    self._act(life, me, one, sent)
        except BROKEN as wrong:
            broken = f"{type(wrong).__name__}: {wrong}"
        except BrokenPromiseError as wrong:
            broken = f"promise: {wrong}"
        return Effect(self._number(life, me), tuple(sent), broken)

    def _restart(self, life: Life, me: int, sent: list[int]) -> None:
        if life.restarts:
            return
        now_ms = life.replica._core.now_ms
        life.restarts += 1
        life.executed.clear()
        life.replica = self._engine(me, life.disk)
        self._act(life, me, Tick(now_ms, WALL_START_MS + now_ms), sent)

    def _act(self, life: Life, me: int, event: Input, sent: list[int]) -> None:
        """Step the engine, and do what it wants done: disks are quick here, and so is execution."""
        due: deque[Input] = deque([event])
        while due:
            ready = life.replica.step(due.popleft())
            for record in ready.persist:
                life.promises.durable(record)
            life.disk += ready.persist if self.restartable else ()
            self._send(life, me, ready, sent)
            for entry in ready.apply:
                header = entry.header
                later = life.replica.standing().epoch > header.epoch
                life.executed.append(Executed(header.index, header.epoch, header.hash(), later))
                due.append(self._applied(life, header.index))
            for told in ready.events:
                self._told(told)

    def _send(self, life: Life, me: int, ready: Ready, sent: list[int]) -> None:
        for out in ready.send:
            life.promises.sent(out.message, life.restarts, mute=False)
            for target in range(self.n) if out.to == EVERYONE else (out.to,):
                number = None if target == me else self.said(me, target, out.message)
                if number is not None:
                    life.sent |= 1 << number
                    sent.append(number)

    def _applied(self, life: Life, index: int) -> Applied:
        if index % self.genesis.parameters.checkpoint_interval:
            return Applied(index, None)
        state = digest("state", b"".join(one.hash for one in life.executed))
        life.promises.states[index] = state
        return Applied(index, state)

    def _told(self, event: object) -> None:
        match event:
            case Halted(reason):
                raise AssertionError(f"halted: {reason}")
            case EvidenceFound(member):
                assert member in self._liars, f"convicted the honest member {member}"

    def _number(self, life: Life, me: int) -> int:
        disk = life.disk if self.restartable and not life.restarts else ()
        key = self._prints.of((me, life.sent, life.restarts, life.executed, disk, life.replica))
        number = self._states.get(key)
        if number is None:
            number = self._states[key] = len(self.known)
            self.known.append(Known(_frozen(life), life.sent, glimpse(life.replica, life.executed)))
        return number


def _frozen(life: Life) -> bytes:
    """As bytes, but for what an engine looks up by itself."""
    held = {name: one for name, one in vars(life.replica).items() if name not in LOOKED_UP}
    rest: list[Any] = [life.promises, life.executed, life.disk, life.restarts, life.sent]
    return pickle.dumps((held, *rest), 5)


def _thawed(kept: bytes) -> Life:
    held, *rest = pickle.loads(kept)  # noqa: S301 - written by _frozen in this very process
    replica = Replica.__new__(Replica)
    vars(replica).update(held)
    replica._use_driver()
    return Life(replica, *rest)
