"""Lies about time and attention: silence, delay, floods, repetition, censorship, mutation."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Envelope
from dwcp.wire.peer import (
    Append,
    CheckpointVote,
    Commit,
    Entry,
    Fetch,
    FetchBodies,
    FetchElections,
    Forward,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    Vote,
)
from dwcp.wire.switch import AdminSwitch, SwitchRequest
from dwcp_replica.core.effects import EVERYONE, Outbound
from dwcp_replica.sim.liar import Context, Liar
from dwcp_replica.sim.mutation import mutated


class Silent(Liar):
    """Sends nothing at all."""

    def send(self, _outbound: list[Outbound]) -> list[Outbound]:
        """Keep everything to itself."""
        return []


class Delay(Liar):
    """Answers in the last moment before anybody's patience ends."""

    def delay_ms(self, message: PeerMessage) -> int:
        """Just under the request timeout, for what others wait for."""
        waited_for = PrePrepare | NewView | Prepare | Commit | ViewChange | Append | Vote
        waits = isinstance(message, waited_for)
        return self.timeout_ms - self.random.randint(20, 80) if waits else 0


class Selective(Liar):
    """Speaks with some members and not with others, and changes its mind."""

    beat_every_ms = 700

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._heard_by = self._choose()

    def send(self, outbound: list[Outbound]) -> list[Outbound]:
        """Leave members out."""
        sent: list[Outbound] = []
        for out in outbound:
            to = self.others if out.to == EVERYONE else [out.to]
            sent += [Outbound(m, out.message) for m in to if m in self._heard_by]
        return sent

    def beat(self) -> None:
        """Choose other members."""
        self._heard_by = self._choose()

    def _choose(self) -> list[int]:
        return self.random.sample(self.others, self.random.randint(1, len(self.others) - 1))


class StaleView(Liar):
    """Stays in its view when others go on, and repeats what it said there."""

    beat_every_ms = 300

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._said: list[Outbound] = []

    def alter(self, out: Outbound) -> list[Outbound]:
        """Remember what to repeat."""
        if isinstance(out.message, PrePrepare | Prepare | Commit | ViewChange | NewView):
            self._said = [*self._said[-50:], out]
        return [out]

    def hear(self, _sender: int, message: PeerMessage) -> bool:
        """Be deaf to new views, now and then."""
        return not isinstance(message, NewView) or self.random.random() < 0.3

    def beat(self) -> None:
        """Repeat."""
        for out in self._said[:8]:
            self.say(out.to, out.message)


class Replay(Liar):
    """Repeats what it ever heard, to anybody, as it stands."""

    beat_every_ms = 60

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._heard: list[PeerMessage] = []

    def hear(self, _sender: int, message: PeerMessage) -> bool:
        """Remember a sample."""
        if len(self._heard) < 200:
            self._heard.append(message)
        else:
            self._heard[self.random.randrange(200)] = message
        return True

    def beat(self) -> None:
        """Say something old again."""
        for message in self.random.sample(self._heard, min(4, len(self._heard))):
            self.say(self.random.choice(self.others), message)


class Flood(Liar):
    """Sends much that is wrong, far ahead, or asks for much."""

    beat_every_ms = 40

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._header: PrePrepare | None = None

    def hear(self, _sender: int, message: PeerMessage) -> bool:
        """Learn what real proposals look like."""
        if isinstance(message, PrePrepare):
            self._header = message
        return True

    def beat(self) -> None:
        """One burst."""
        if self._header is None:
            return
        entry = self._header.entry
        far = msgspec.structs.replace(
            entry.header,
            index=entry.header.index + self.random.randint(1, 10**6),
            term=entry.header.term + self.random.choice((0, 0, self.me, 50)),
            prev=self.noise(32),
        )
        far = self.signed_header(far)
        junk = Envelope(self.genesis.clients[0].key, self.noise(30), self.noise(64))
        burst: list[PeerMessage] = [
            PrePrepare(msgspec.structs.replace(entry, header=far)),
            self.vote(Prepare, far, self.me),
            self.vote(Commit, far, self.me),
            self.resigned(CheckpointVote(far, self.noise(32), self.me, bytes(64))),
            Forward((junk,) * 20),
            FetchBodies(tuple(self.noise(32) for _ in range(20))),
            FetchElections((self.noise(32),)),
            Fetch(0, 1),
        ]
        self.shout(self.random.choice(burst))


class HugeStatus(Liar):
    """Claims to be far ahead of everybody."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Large numbers, true ones now and then."""
        if not isinstance(out.message, Status) or self.random.random() < 0.3:
            return [out]
        huge = self.random.choice((2**40, 2**62))
        lie = msgspec.structs.replace(
            out.message,
            view=self.random.choice((out.message.view, huge)),
            last=huge,
            final=huge,
            stable=self.random.choice((out.message.stable, huge)),
        )
        return [Outbound(out.to, lie)]


class Restless(Liar):
    """Asks for one new view after the other."""

    beat_every_ms = 450

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._view = 1

    def hear(self, _sender: int, message: PeerMessage) -> bool:
        """Note where the others are."""
        if isinstance(message, Status):
            self._view = max(self._view, min(message.view, 2**30))
        return True

    def beat(self) -> None:
        """An empty statement for a later view."""
        self._view += self.random.choice((1, 1, 2, self.n))
        empty = ViewChange(0, self._view, None, (), None, (), (), self.me, bytes(64))
        self.shout(self.resigned(empty))


class Censor(Liar):
    """Never proposes or forwards what one client asks, or what ends the epoch."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._victim = self.random.choice(context.genesis.clients).key
        self._keeps_switches = self.random.random() < 0.4

    def take(self, envelope: Envelope) -> bool:
        """Be deaf to one client."""
        return self._keeps_switches or envelope.client != self._victim

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Be deaf to those who pass its requests on, to the admin or to who asks for a switch."""
        if self._keeps_switches:
            return not isinstance(message, AdminSwitch | SwitchRequest)
        if not isinstance(message, Forward):
            return True
        return all(self.take(envelope) for envelope in message.envelopes) and sender >= 0


class Mutate(Liar):
    """Changes one field of one message now and then, and signs it anew where it can."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Small scope: everything else is as it should be."""
        if self.random.random() > 0.25:
            return [out]
        message = mutated(out.message, self.random)
        if self.random.random() < 0.8:
            message = self.resigned(message)
            if isinstance(message, PrePrepare):
                entry = message.entry
                header = self.signed_header(entry.header)
                message = PrePrepare(msgspec.structs.replace(entry, header=header))
            elif isinstance(message, Append) and message.entries:
                message = msgspec.structs.replace(message, entries=self._signed(message.entries))
        whom = out.to if self.random.random() < 0.5 else self.random.choice(self.others)
        return [out, Outbound(whom, message)]

    def _signed(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        return tuple(Entry(self.signed_header(e.header), e.body) for e in entries)


class Twin(Liar):
    """One identity that runs twice: each twin speaks with a side of its own, and sides change."""

    beat_every_ms = 600

    def __init__(self, context: Context, side: int) -> None:
        super().__init__(context)
        self._side = side
        self._turn = 0
        self._mine = self._choose()

    def send(self, outbound: list[Outbound]) -> list[Outbound]:
        """Only to my side."""
        sent: list[Outbound] = []
        for out in outbound:
            to = self.others if out.to == EVERYONE else [out.to]
            sent += [Outbound(m, out.message) for m in to if m in self._mine]
        return sent

    def hear(self, sender: int, _message: PeerMessage) -> bool:
        """Only my side."""
        return sender in self._mine

    def beat(self) -> None:
        """The sides turn; the two twins never speak with the same member."""
        self._turn += 1
        self._mine = self._choose()

    def _choose(self) -> set[int]:
        at = self._turn % len(self.others)
        turned = self.others[at:] + self.others[:at]
        half = len(turned) // 2
        return set(turned[half:] if self._side else turned[:half])
