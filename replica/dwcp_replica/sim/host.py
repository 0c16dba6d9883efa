"""A simulated replica: the real core and store, with a disk that forgets what was not synced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from dwcp.wire.envelope import (
    Envelope,
    Rejected,
    Reply,
    decode_batch,
    decode_body,
    reply_signing_bytes,
)
from dwcp.wire.peer import decode_message, encode_message
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.core.effects import (
    EVERYONE,
    Applied,
    Event,
    Input,
    Outbound,
    Ready,
    Received,
    Record,
    Submit,
    Tick,
)
from dwcp_replica.core.replica import Replica
from dwcp_replica.sim.strategies import Hooks, honest, honest_reply
from dwcp_replica.sim.world import World
from dwcp_replica.store.store import Outcome, Refusal, Store

WALL_START_MS = 1_700_000_000_000


class Observer(Protocol):
    """Whoever checks what honest replicas do."""

    def executed(self, host: Host, index: int, hash_: bytes, outcomes: tuple[Outcome, ...]) -> None:
        """`host` has executed an entry."""
        ...

    def event(self, host: Host, event: Event) -> None:
        """The engine of `host` reports something."""
        ...


class Host:
    """One member's machine. `honest` is False when its strategy lies."""

    def __init__(
        self,
        world: World,
        genesis: EpochRecord,
        me: int,
        signer: Signer,
        verifier: Verifier,
        observer: Observer,
        hooks: Hooks | None = None,
    ) -> None:
        self.world = world
        self.genesis = genesis
        self.me = me
        self.name = genesis.members[me].name
        self.honest = hooks is None
        self.skew_ms = 0
        self.sync_ms = 1
        self.peers: list[Host] = []
        self.reply_to: dict[bytes, Callable[[int, Reply | Rejected], None]] = {}
        self.records: list[Record] = []
        self.frames = False
        self.up = False
        self.life = 0
        self._signer = signer
        self._verifier = verifier
        self._observer = observer
        self._outbound, self._reply = hooks or (honest, honest_reply)
        self._scope = scope_of(genesis, genesis)
        self.core: Replica
        self.store: Store
        self._released_ms = 0
        self._tick_ms = 0
        self.start()

    # --- life --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again, from what the disk holds."""
        assert not self.up, f"{self.name} runs already"
        self.up = True
        self.life += 1
        self.store = Store(self.genesis)
        self.core = Replica(
            genesis=self.genesis,
            me=self.me,
            signer=self._signer,
            verifier=self._verifier,
            records=list(self.records),
        )
        self._released_ms = self.world.now_ms
        self._tick_ms = 0
        self.feed(None)

    def crash(self) -> None:
        """Stop at once: memory is lost, and so is what was not synced yet."""
        self.up = False
        self.life += 1

    # --- events in -----------------------------------------------------------------------------

    def feed(self, event: Input | None) -> None:
        """Step the engine now: time first, then the event."""
        if not self.up:
            return
        now = self.world.now_ms
        self._group(self.core.step(Tick(now, WALL_START_MS + now + self.skew_ms)))
        if event is not None:
            self._group(self.core.step(event))
        self._plan_tick()

    def receive(self, sender: int, frame: bytes | object) -> None:
        """A message arrives from another member."""
        message = decode_message(frame) if isinstance(frame, bytes) else frame
        self.feed(Received(sender, message))  # type: ignore[arg-type]

    def envelope(self, envelope: Envelope) -> None:
        """An envelope arrives from a client."""
        if not self.up:
            return
        body = decode_body(envelope.body)
        found = self.store.check(envelope, body) or self.store.lookup(envelope, body)
        if isinstance(found, Outcome):
            self._answer(found)
        elif isinstance(found, Refusal):
            rejected = Rejected(envelope.digest(), found.reason, found.failure.message)
            self._tell(envelope.client, rejected)
        else:
            self.feed(Submit(envelope))

    # --- effects out ---------------------------------------------------------------------------

    def _group(self, ready: Ready) -> None:
        if not ready:
            return
        life = self.life
        delay = self.sync_ms if ready.persist else 0
        self._released_ms = max(self._released_ms, self.world.now_ms + delay)
        self.world.at(self._released_ms, lambda: self._release(life, ready))

    def _release(self, life: int, ready: Ready) -> None:
        if life != self.life:
            return
        self.records += ready.persist
        for out in self._outbound(ready.send):
            self._send(out)
        for entry in ready.apply:
            outcomes = self.store.apply(entry.header.index, decode_batch(entry.body))
            self._observer.executed(self, entry.header.index, entry.header.hash(), outcomes)
            for outcome in outcomes:
                self._answer(outcome)
            index = entry.header.index
            due = index % self.genesis.parameters.checkpoint_interval == 0
            self.feed(Applied(index, self.store.digest() if due else None))
        for event in ready.events:
            self._observer.event(self, event)

    def _send(self, out: Outbound) -> None:
        frame = encode_message(out.message) if self.frames else out.message
        for peer in self.peers:
            if peer is not self and out.to in (EVERYONE, peer.me):
                self.world.deliver(self.name, peer.name, _arrival(peer, self.me, frame))

    def _answer(self, outcome: Outcome) -> None:
        reply = Reply(
            request=outcome.request,
            index=outcome.index,
            revision=outcome.revision,
            results=outcome.results,
            epoch=0,
            view=self.core.standing().view,
            member=self.me,
            sig=bytes(64),
        )
        reply = self._reply(reply)
        sig = self._signer.sign(reply_signing_bytes(self._scope, reply))
        self._tell(outcome.client, msgspec.structs.replace(reply, sig=sig))

    def _tell(self, client: bytes, message: Reply | Rejected) -> None:
        back = self.reply_to.get(client)
        if back is not None:
            self.world.deliver(self.name, "client", lambda: back(self.me, message))

    def _plan_tick(self) -> None:
        due = self.core.deadline_ms()
        if due is None:
            return
        due = max(due, self.world.now_ms + 1)
        if self._tick_ms <= self.world.now_ms or due < self._tick_ms:
            self._tick_ms = due
            life = self.life
            self.world.at(due, lambda: self.feed(None) if life == self.life else None)


def _arrival(peer: Host, sender: int, frame: bytes | object) -> Callable[[], None]:
    return lambda: peer.receive(sender, frame)
