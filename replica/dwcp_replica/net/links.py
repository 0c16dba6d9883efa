"""How far the other members are: signed pings, the kernel's figures, and now and then a probe.

    every round, for every member      a few pings, spread over half of the round
                                       the kernel is asked about the connection
                                       a probe, where the link is short and its width unknown

A probe is a ping with filler. It runs only where round trips are short, since elsewhere the width
does not decide anything, and costs at most `probe_bytes` for a link in PROBE_ROUNDS rounds.
Members answer pings at a bounded rate; more are refused, counted and change nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from dwcp.wire.links import (
    NONCE_BYTES,
    PROBE_BYTES_MAX,
    LinkMessage,
    Ping,
    Pong,
    encode_link_message,
    pong_signing_bytes,
)
from dwcp.wire.records import Member
from dwcp.wire.signing import Signer, Verifier
from dwcp_replica.core.modes.meter import Meter, TcpSample
from dwcp_replica.core.modes.reach import Link
from dwcp_replica.net.counters import PeerCounters

PINGS_PER_ROUND: Final = 5
PROBE_ROUNDS: Final = 3
SILENT_ROUNDS_MAX: Final = 3
"""A member that answered no ping for so long is not known to be near any more."""
ANSWERED_PER_S_MAX: Final = 100
PROBED_BYTES_PER_S_MAX: Final = 2 * PROBE_BYTES_MAX
OUTSTANDING_MAX: Final = 64
"""Pings to one member that may wait for their pong; the oldest are forgotten."""


class Road(Protocol):
    """The connections over which frames leave (net.dialer.PeerDialer)."""

    def send_frame(self, to: int, frame: bytes) -> None:
        """Queue a frame for one member."""
        ...

    def connected(self, member: int) -> bool:
        """True while our connection to this member stands."""
        ...

    def sample(self, member: int) -> TcpSample | None:
        """What the kernel says of that connection; None when it says nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to measure, in milliseconds, and what one probe may cost.

    probe_below_us: links with longer round trips are not probed. probe_bytes 0: none is.
    """

    every_ms: int = 10_000
    probe_bytes: int = 1024 * 1024
    probe_below_us: int = 10_000


@dataclass(slots=True)
class _Asked:
    """A ping on its way: when it left (performance counter, ns), and the filler it carried."""

    at_ns: int
    probe_bytes: int


@dataclass(slots=True)
class _Neighbour:
    """What is known of one member, and what it was asked and has asked."""

    meter: Meter = field(default_factory=Meter)
    asked: dict[bytes, _Asked] = field(default_factory=dict)
    answered: int = 0
    silent_rounds: int = 0
    probed_round: int | None = None
    second: int = 0
    answers: int = 0
    filler_bytes: int = 0


class LinkWatch:
    """Measures this member's links to all others, and answers their pings."""

    def __init__(
        self, genesis: bytes, members: Callable[[], Sequence[Member]],
        signer: Callable[[], Signer], verifier: Verifier, road: Road, counters: PeerCounters,
        pace: Pace,
    ) -> None:  # fmt: skip
        self._genesis = genesis
        self._members = members
        self._signer = signer
        self._verifier = verifier
        self._road = road
        self._counters = counters
        self._pace = pace
        self._round = 0
        self._known: dict[int, _Neighbour] = {}

    @property
    def rounds(self) -> int:
        """Rounds of measuring that have come to their end."""
        return self._round

    def link(self, member: int) -> Link:
        """The link to one member as it was measured; unknown in what was not."""
        found = self._known.get(member)
        return Link() if found is None else found.meter.link()

    def link_to(self, identity: bytes) -> Link:
        """The link to the member with this key."""
        found = (n for n, member in enumerate(self._members()) if member.identity == identity)
        return next(map(self.link, found), Link())

    async def run(self, after_round: Callable[[], None]) -> None:
        """Measure for ever, and call `after_round` whenever there is something new."""
        every_s = self._pace.every_ms / 1000
        while True:
            for _ in range(PINGS_PER_ROUND):
                self._ping_all()
                await asyncio.sleep(every_s / 2 / PINGS_PER_ROUND)
            await asyncio.sleep(every_s / 2)
            self.end_round()
            after_round()

    def end_round(self) -> None:
        """Ask the kernel, forget what no longer holds, and probe where it is worth it."""
        self._round += 1
        for member in self._others():
            found = self._neighbour(member)
            found.silent_rounds = 0 if found.answered else found.silent_rounds + 1
            found.answered = 0
            if not self._road.connected(member) or found.silent_rounds >= SILENT_ROUNDS_MAX:
                found.meter.lost()
                found.asked.clear()
                continue
            sample = self._road.sample(member)
            if sample is not None:
                found.meter.tcp(sample)
            self._probe(member, found)

    def take(self, sender: int, message: LinkMessage) -> None:
        """A ping or a pong came from this member."""
        match message:
            case Ping():
                self._answer(sender, message)
            case Pong():
                self._note(sender, message)

    # --- asking ---------------------------------------------------------------------------------

    def _others(self) -> list[int]:
        mine = self._signer().public_key
        return [n for n, member in enumerate(self._members()) if member.identity != mine]

    def _neighbour(self, member: int) -> _Neighbour:
        return self._known.setdefault(member, _Neighbour())

    def _ping_all(self) -> None:
        for member in self._others():
            if self._road.connected(member):
                self._ask(member, b"")

    def _probe(self, member: int, found: _Neighbour) -> None:
        link = found.meter.link()
        near = link.rtt_us is not None and link.rtt_us < self._pace.probe_below_us
        due = found.probed_round is None or self._round - found.probed_round >= PROBE_ROUNDS
        if near and due and self._pace.probe_bytes:
            found.probed_round = self._round
            self._ask(member, bytes(self._pace.probe_bytes))

    def _ask(self, member: int, probe: bytes) -> None:
        nonce = secrets.token_bytes(NONCE_BYTES)
        asked = self._neighbour(member).asked
        while len(asked) >= OUTSTANDING_MAX:
            del asked[next(iter(asked))]
        asked[nonce] = _Asked(time.perf_counter_ns(), len(probe))
        self._road.send_frame(member, encode_link_message(Ping(nonce, probe)))

    def _note(self, sender: int, pong: Pong) -> None:
        """Take a pong that was asked for; its signature shows who is that far away."""
        now_ns = time.perf_counter_ns()
        found = self._known.get(sender)
        asked = None if found is None else found.asked.get(pong.nonce)
        if found is None or asked is None:
            return self._counters.frame_refused("pong-not-asked")
        key = self._members()[sender].identity
        signed = pong_signing_bytes(self._genesis, pong.nonce, self._signer().public_key, key)
        if not self._verifier.verify(key, signed, pong.sig):
            return self._counters.frame_refused("pong-signature")
        del found.asked[pong.nonce]
        found.answered += 1
        took_us = (now_ns - asked.at_ns) // 1000
        if not asked.probe_bytes:
            return found.meter.ping(took_us)
        rtt_us = found.meter.link().rtt_us
        if rtt_us is not None and took_us > rtt_us:
            found.meter.probed(asked.probe_bytes * 8 * 1_000_000 // (took_us - rtt_us))
        return None

    # --- answering ------------------------------------------------------------------------------

    def _answer(self, sender: int, ping: Ping) -> None:
        found, second = self._neighbour(sender), int(time.monotonic())
        if found.second != second:
            found.second, found.answers, found.filler_bytes = second, 0, 0
        found.answers += 1
        found.filler_bytes += len(ping.probe)
        over = found.filler_bytes > PROBED_BYTES_PER_S_MAX
        if found.answers > ANSWERED_PER_S_MAX or over:
            return self._counters.frame_refused("ping-flood")
        if sender >= len(self._members()) or not self._road.connected(sender):
            return None
        key = self._members()[sender].identity
        signed = pong_signing_bytes(self._genesis, ping.nonce, key, self._signer().public_key)
        pong = Pong(ping.nonce, self._signer().sign(signed))
        return self._road.send_frame(sender, encode_link_message(pong))
