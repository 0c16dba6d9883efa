"""Every order in which messages may arrive, of the real engine, up to a bound that is printed.

Two searches share the engines (engines.py). `everything`: whatever was ever sent may arrive at any
time, again, or never, so that loss, delay, reordering and repetition are all in it; a state of the
cluster is the states of its members, since those say what was sent. `delayed`: a whole run over
two epochs in the order in which messages were sent, but for so many disturbances: a message is
lost or overtaken by all the others, a member crashes (delay-bounded search: Emmi, Qadeer and
Rakamaric 2011). A liar is a set of messages, or two engines with one key that deny each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from dwcp_replica.sim.engines import Engines, Restart
from dwcp_replica.sim.glimpse import Glimpse, broken

State = tuple[int, ...]
"""The number of each engine's state."""
How = tuple[str | int, ...]
"""What led from one state to another: inputs by their number, or words."""
Node = TypeVar("Node")


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a search ends: so many inputs in a row, so many states, so many disturbances."""

    depth_max: int
    states_max: int
    delays_max: int = 0


@dataclass(frozen=True, slots=True)
class Explored:
    """What a search has seen; `violation` is empty when every promise held in every state.

    `exhausted`: all that the bound allows was seen; `complete`: there is nothing beyond it.
    `states` are of the cluster, `member_states` of single engines, `steps` how often one was
    stepped; `transitions` is how often one state of the cluster was seen to lead to another.
    """

    scene: str
    exhausted: bool
    complete: bool
    states: int
    transitions: int
    depth: int
    member_states: int
    steps: int
    messages: int
    epochs: int
    final: int
    bound: Bound
    violation: str
    trace: tuple[str, ...]


@dataclass(slots=True)
class Cluster:
    """Where a search begins: engines by the member that they are, the first of them honest.

    `members` may have a liar twice, at the end. `anyhow` are inputs that may come at any time, as
    bits; `lies` are what a liar's SEALs may show besides; `lasting`: only liars want the epoch to
    end, so that it must not. `script` is what happens in a whole run,
    each time once all messages have arrived.
    """

    name: str
    engines: Engines
    members: tuple[int, ...]
    honest: int
    start: State
    anyhow: int = 0
    lies: tuple[Glimpse, ...] = ()
    liar: int | None = None
    lasting: bool = False
    script: tuple[tuple[int, ...], ...] = ()


def bits(mask: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


class Judge:
    """What must hold of all members together, judged once for what can be seen of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.epochs = 1
        self.final = 0
        self._cluster = cluster
        self._judged: dict[State, str] = {}
        self._glimpses: dict[Glimpse, int] = {}
        self._of_state: dict[int, int] = {}

    def __call__(self, state: State) -> str:
        """What is broken in a state of the cluster, or nothing."""
        key = tuple(map(self._glimpse, state))
        found = self._judged.get(key)
        if found is None:
            found = self._judged[key] = self._judge(state)
        return found

    def _judge(self, state: State) -> str:
        engines, honest = self._cluster.engines, self._cluster.honest
        seen = [engines.known[one].seen for one in state]
        for one in seen[:honest]:
            self.epochs = max(self.epochs, one.epoch + 1)
            self.final = max(self.final, len(one.executed))
        if self._cluster.lasting and any(one.sealed or one.epoch for one in seen[:honest]):
            return "validity: an epoch ended, and no honest member had asked for it"
        lies = (*seen[honest:], *self._cluster.lies)
        return broken(engines.n, seen[:honest], lies, self._cluster.liar)

    def _glimpse(self, state: int) -> int:
        number = self._of_state.get(state)
        if number is None:
            seen = self._cluster.engines.known[state].seen
            number = self._of_state[state] = self._glimpses.setdefault(seen, len(self._glimpses))
        return number


class Search(Generic[Node]):
    """Nodes that were found, how each was reached, and what was broken."""

    def __init__(self, cluster: Cluster, bound: Bound, first: Node) -> None:
        self.cluster = cluster
        self.bound = bound
        self.judge = Judge(cluster)
        self.came: dict[Node, tuple[Node | None, How]] = {first: (None, ())}
        self.transitions = 0
        self.depth = 0
        self.violation = self.judge(cluster.start)
        self.trace: tuple[str, ...] = ()

    def visit(self, node: Node, state: State, before: Node, how: How, wrong: str) -> bool:
        """Note a transition; True when it leads to what was not found before."""
        self.transitions += 1
        fresh = node not in self.came
        if fresh:
            self.came[node] = (before, how)
        if wrong or fresh:
            self.violation = wrong or self.judge(state)
        if self.violation:
            self.trace = (*self._path(before), *self._told(how))
        return fresh

    def full(self) -> bool:
        """True when there is no room for more."""
        return len(self.came) >= self.bound.states_max

    def broken(self) -> bool:
        """True when a promise was broken: there is nothing more to look for."""
        return bool(self.violation)

    def explored(self, *, exhausted: bool, complete: bool = False) -> Explored:
        """The figures."""
        engines = self.cluster.engines
        return Explored(
            scene=self.cluster.name,
            exhausted=exhausted and not self.violation,
            complete=complete and not self.violation,
            states=len(self.came),
            transitions=self.transitions,
            depth=self.depth,
            member_states=len(engines.known),
            steps=engines.steps,
            messages=len(engines.causes),
            epochs=self.judge.epochs,
            final=self.judge.final,
            bound=self.bound,
            violation=self.violation,
            trace=self.trace,
        )

    def _told(self, how: How) -> list[str]:
        describe = self.cluster.engines.describe
        return [describe(one) if isinstance(one, int) else one for one in how]

    def _path(self, node: Node) -> tuple[str, ...]:
        found: list[str] = []
        at: Node | None = node
        while at is not None:
            at, how = self.came[at]
            if at is not None:
                found += reversed(self._told(how))
        return tuple(reversed(found))


@dataclass(frozen=True, slots=True)
class Strides:
    """How a member may go on: by inputs that nobody sees the effect of, then one that shows.

    What nobody sees can wait until then, since whatever was sent may still arrive later: so the
    other orders of such steps lead nowhere else. That is the reduction.
    """

    shown: tuple[tuple[int, tuple[int, ...]], ...]
    broken: str = ""
    path: tuple[int, ...] = ()


class Paces:
    """Strides of single engines, each computed once."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._found: dict[tuple[int, int], Strides] = {}
        self._useless: dict[int, int] = {}

    def of(self, state: int, sent: int, *, honest: bool) -> Strides:
        """Where an engine may get to next, given what may arrive at it."""
        key = (state, sent & ~self._useless.get(state, 0))
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._strides(state, sent, honest=honest)
        return found

    def _strides(self, first: int, sent: int, *, honest: bool) -> Strides:
        engines = self.cluster.engines
        shown: dict[int, tuple[int, ...]] = {}
        paths: dict[int, tuple[int, ...]] = {first: ()}
        todo = [first]
        for state in todo:
            for number in bits(sent & ~self._useless.get(state, 0)):
                effect = engines.step(state, number)
                path = (*paths[state], number)
                if effect.broken and honest:
                    return Strides((), effect.broken, path)
                if effect.state == state:
                    self._useless[state] = self._useless.get(state, 0) | 1 << number
                    continue
                if self._shows(state, effect.state):
                    shown.setdefault(effect.state, path)
                elif effect.state not in paths:
                    paths[effect.state] = path
                    todo.append(effect.state)
        return Strides(tuple(self._needed(shown, sent)))

    def _needed(
        self, shown: dict[int, tuple[int, ...]], sent: int
    ) -> list[tuple[int, tuple[int, ...]]]:
        """Those that no other one turns into, unseen, when more arrives: that may come later."""
        engines, later = self.cluster.engines, set[int]()
        for state, path in shown.items():
            for number in bits(sent & ~self._useless.get(state, 0)):
                after = engines.step(state, number).state
                if after == state:
                    self._useless[state] = self._useless.get(state, 0) | 1 << number
                elif len(shown.get(after, ())) > len(path) and not self._shows(state, after):
                    later.add(after)
        return [(state, path) for state, path in shown.items() if state not in later]

    def _shows(self, state: int, after: int) -> bool:
        """True when others can see a difference between two states."""
        known, then = self.cluster.engines.known[state], self.cluster.engines.known[after]
        return then.sent != known.sent or then.seen != known.seen


def everything(
    cluster: Cluster, bound: Bound, stop: Callable[[], bool] = lambda: False
) -> Explored:
    """Breadth first, so that what is found is found with the fewest strides."""
    search: Search[State] = Search(cluster, bound, cluster.start)
    paces = Paces(cluster)
    frontier = [cluster.start]
    while frontier and not search.broken() and search.depth < bound.depth_max:
        search.depth += 1
        following: list[State] = []
        for state in frontier:
            if search.broken() or search.full() or stop():
                return search.explored(exhausted=False)
            for new, path, wrong in _strides(paces, state):
                if search.visit(new, new, state, path, wrong):
                    following.append(new)
                if search.broken():
                    break
        frontier = following
    return search.explored(exhausted=True, complete=not frontier)


def _strides(paces: Paces, state: State) -> Iterator[tuple[State, tuple[int, ...], str]]:
    """Every stride of every engine: what follows, the inputs, what it broke."""
    cluster = paces.cluster
    sent = cluster.anyhow
    for one in state:
        sent |= cluster.engines.known[one].sent
    for at, one in enumerate(state):
        here = sent & cluster.engines.towards[cluster.members[at]]
        strides = paces.of(one, here, honest=at < cluster.honest)
        if strides.broken:
            yield state, strides.path, strides.broken
        for after, path in strides.shown:
            yield (*state[:at], after, *state[at + 1 :]), path, ""


@dataclass(frozen=True, slots=True)
class Run:
    """A whole run so far: engines, what is on its way in order, the script, the disturbances."""

    state: State
    queue: tuple[int, ...]
    at: int
    delays: int


def delayed(cluster: Cluster, bound: Bound, stop: Callable[[], bool] = lambda: False) -> Explored:
    """Every whole run with at most so many disturbances."""
    first = Run(cluster.start, (), 0, 0)
    search: Search[Run] = Search(cluster, bound, first)
    stack = [(first, 0)]
    while stack and not search.broken():
        if search.full() or stop():
            return search.explored(exhausted=False)
        run, depth = stack.pop()
        search.depth = max(search.depth, depth)
        for new, how, wrong in _goes_on(cluster, run, bound.delays_max):
            if search.visit(new, new.state, run, how, wrong):
                stack.append((new, depth + 1))
            if search.broken():
                break
    return search.explored(exhausted=not stack)


def _goes_on(cluster: Cluster, run: Run, delays_max: int) -> Iterator[tuple[Run, How, str]]:
    """What may happen next in a run."""
    if not run.queue:
        if run.at < len(cluster.script):
            yield Run(run.state, cluster.script[run.at], run.at + 1, run.delays), ("and then",), ""
        return
    head, *rest = run.queue
    state, sent, wrong = arrives(cluster, run.state, head)
    yield Run(state, (*rest, *sent), run.at, run.delays), (head,), wrong
    if run.delays >= delays_max:
        return
    told = cluster.engines.describe(head)
    yield Run(run.state, tuple(rest), run.at, run.delays + 1), (f"lost: {told}",), ""
    if rest:
        yield Run(run.state, (*rest, head), run.at, run.delays + 1), (f"overtaken: {told}",), ""
    target = cluster.engines.targets[head]
    if cluster.engines.restartable and target in cluster.members[: cluster.honest]:
        crash = cluster.engines.cause(target, Restart())
        state, sent, wrong = arrives(cluster, run.state, crash)
        if state != run.state:
            yield Run(state, (*run.queue, *sent), run.at, run.delays + 1), (crash,), wrong


def arrives(cluster: Cluster, state: State, number: int) -> tuple[State, list[int], str]:
    """An input reaches its member, both of them where it is a liar."""
    after, wrong = list(state), ""
    sent: list[int] = []
    for at, member in enumerate(cluster.members):
        if member == cluster.engines.targets[number]:
            effect = cluster.engines.step(state[at], number)
            after[at] = effect.state
            sent += effect.sent
            wrong = wrong or (effect.broken if at < cluster.honest else "")
    return tuple(after), sent, wrong
