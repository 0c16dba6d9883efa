"""Members that gossip in virtual time, over links that delay, lose, are cut, and lie.

A lost packet is what TCP makes of it: what was sent arrives RESEND_MS later, and all behind it too.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import permutations
from random import Random

import msgspec

from client.crdt.people import rules
from dwcp.crdt import Document, Operation, Store
from dwcp.wire.gossip import GossipMessage, decode_frame
from dwcp_replica.gossip import Gossip

RESEND_MS = 250
PACKET_BYTES = 1400
TICK_MS = 50
Lie = Callable[[int, int, bytes], list[bytes]]
"""(from, to, frame) -> what is sent instead."""


@dataclass
class World:
    """`count` members in a full mesh; `rate` is bytes each millisecond, each way of each link."""

    count: int
    seed: int
    one_way_ms: int = 5
    loss: float = 0.0
    rate: float = 12_500.0
    now_ms: int = 0
    sent_bytes: int = 0
    lost: int = 0
    members: list[Gossip] = field(default_factory=list)
    lies: dict[int, Lie] = field(default_factory=dict)
    up: set[tuple[int, int]] = field(default_factory=set)
    busy_until: dict[tuple[int, int], float] = field(default_factory=dict)
    arrived_last: dict[tuple[int, int], float] = field(default_factory=dict)
    lives: dict[tuple[int, int], int] = field(default_factory=dict)
    queue: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    order: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        for number in range(self.count):
            self.add(number, Store(rules()))

    def add(self, number: int, store: Store) -> None:
        wake = lambda link, me=number: self.at(0, lambda: self.pump((me, link)))  # noqa: E731
        member = Gossip(store, self.random.randrange, wake)
        if number < len(self.members):
            self.members[number] = member
        else:
            self.members.append(member)
        self.at(TICK_MS, lambda: self.tick(number, member))

    def restart(self, number: int) -> None:
        """The member starts again with what it had; its connections are new."""
        store = Store(rules())
        for document in self.members[number].store:
            store.restore(document.dump())
        others = [other for other in range(self.count) if (number, other) in self.up]
        for other in others:
            self.cut(number, other)
        self.add(number, store)
        for other in others:
            self.join(number, other)

    def document(self, number: int, name: str = "notes") -> Document:
        return self.members[number].store.document(name)

    def submit(self, number: int, operation: Operation) -> None:
        """A client's operation reaches a member."""
        assert not self.members[number].deliver(operation).refused

    # links

    def join_all(self, groups: list[list[int]] | None = None) -> None:
        """Join members within groups (default: all), and cut all other links."""
        of = {m: g for g, group in enumerate(groups or [list(range(self.count))]) for m in group}
        for one, other in permutations(range(self.count), 2):
            if one > other:
                continue
            if of.get(one) is not None and of.get(one) == of.get(other):
                self.join(one, other)
            else:
                self.cut(one, other)

    def join(self, one: int, other: int) -> None:
        for me, link in ((one, other), (other, one)):
            if (me, link) not in self.up:
                self.up.add((me, link))
                self.lives[me, link] = self.lives.get((me, link), 0) + 1
                self.members[me].talks.met(link)
                self.members[me].connect(link)

    def cut(self, one: int, other: int) -> None:
        for me, link in ((one, other), (other, one)):
            if (me, link) in self.up:
                self.up.discard((me, link))
                self.lives[me, link] += 1
                self.members[me].disconnect(link)

    def pump(self, wire: tuple[int, int]) -> None:
        """Let a member speak while the link takes its frames."""
        me, to = wire
        if wire not in self.up or self.busy_until.get(wire, 0) > self.now_ms:
            return
        frame = self.members[me].say(to, self.now_ms)
        if frame is None:
            return
        lie = self.lies.get(me)
        for said in [frame] if lie is None else lie(me, to, frame):
            self.send(wire, said)
        self.busy_until[wire] = self.now_ms + max(len(frame) / self.rate, 0.001)
        self.at(max(len(frame) / self.rate, 0.001), lambda: self.pump(wire))

    def send(self, wire: tuple[int, int], frame: bytes) -> None:
        self.sent_bytes += len(frame)
        delay = self.one_way_ms + len(frame) / self.rate
        for _ in range(1 + len(frame) // PACKET_BYTES):
            if self.random.random() < self.loss:
                self.lost += 1
                delay += RESEND_MS
                break
        arrival = max(self.now_ms + delay, self.arrived_last.get(wire, 0.0))
        self.arrived_last[wire] = arrival
        life = self.lives[wire]
        self.at(arrival - self.now_ms, lambda: self.hear(wire, frame, life))

    def hear(self, wire: tuple[int, int], frame: bytes, life: int) -> None:
        if self.lives[wire] != life:
            return  # the connection broke meanwhile
        try:
            message = decode_frame(frame)
        except msgspec.DecodeError:
            return  # a liar's
        if not isinstance(message, GossipMessage):
            return
        self.members[wire[1]].receive(wire[0], message, len(frame), self.now_ms)

    def tick(self, number: int, member: Gossip) -> None:
        if self.members[number] is member:
            member.tick(self.now_ms)
            self.at(TICK_MS, lambda: self.tick(number, member))

    # time

    def at(self, delay_ms: float, action: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.queue, (self.now_ms + delay_ms, self.order, action))

    def run(self, until: Callable[[], bool], limit_ms: int = 60_000) -> int:
        """Virtual milliseconds until this holds."""
        began = self.now_ms
        while not until():
            time, _, action = heapq.heappop(self.queue)
            assert time - began < limit_ms, f"seed {self.seed}: not within {limit_ms} ms"
            self.now_ms = time  # type: ignore[assignment]
            action()
        return int(self.now_ms - began)

    def pass_ms(self, duration_ms: int) -> None:
        """Let time pass."""
        end = self.now_ms + duration_ms
        self.run(lambda: self.now_ms >= end)

    def level(self, *members: int) -> bool:
        """True when these (default: all) have the same versions of the same documents."""
        chosen = members or range(self.count)
        return len({self.members[number].parts.digests() for number in chosen}) == 1
