"""Links measured between real members over loopback, and what strangers to the truth achieve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import pytest

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.links import (
    NONCE_BYTES,
    Ping,
    Pong,
    decode_frame,
    encode_link_message,
    pong_signing_bytes,
)
from dwcp.wire.records import Member, ModePolicy, Parameters
from dwcp_replica.core.modes.meter import TcpSample
from dwcp_replica.core.modes.reach import Link
from dwcp_replica.net import links
from dwcp_replica.net.links import LinkWatch, Pace
from replica.harness import QUICK, Tasks
from replica.net.cluster import Seen
from replica.waiting import in_loop, until

GENESIS = bytes(32)


@dataclass
class Wire:
    """The road of one member: what leaves is kept, until `carry` brings it over."""

    sent: list[tuple[int, bytes]] = field(default_factory=list)
    up: bool = True

    def send_frame(self, to: int, frame: bytes) -> None:
        self.sent.append((to, frame))

    def connected(self, member: int) -> bool:
        return self.up

    def sample(self, member: int) -> TcpSample | None:
        return None

    def taken(self) -> list[Ping | Pong]:
        found, self.sent = self.sent, []
        messages = [decode_frame(frame) for _, frame in found]
        return [message for message in messages if isinstance(message, Ping | Pong)]


class Two:
    """Members 0 and 1, joined by hand."""

    def __init__(self, pace: Pace | None = None) -> None:
        self.keys = [Ed25519Signer.generate() for _ in range(2)]
        self.wires = [Wire(), Wire()]
        self.seen = [Seen(), Seen()]
        self.watches = [
            LinkWatch(
                GENESIS,
                self.members,
                partial(self.keys.__getitem__, number),
                Ed25519Verifier(),
                wire,
                seen,
                pace or Pace(),
            )
            for number, (wire, seen) in enumerate(zip(self.wires, self.seen, strict=True))
        ]

    def members(self) -> Sequence[Member]:
        return [
            Member(f"m-{n}", key.public_key, bytes(32), "", "") for n, key in enumerate(self.keys)
        ]

    def carry(self) -> None:
        """Bring over what member 0 has sent, and the answers."""
        for message in self.wires[0].taken():
            self.watches[1].take(0, message)
        for message in self.wires[1].taken():
            self.watches[0].take(1, message)

    def measure(self) -> Link:
        """One round by hand."""
        self.watches[0]._ping_all()
        self.carry()
        self.watches[0].end_round()
        self.carry()
        return self.watches[0].link(1)


def test_a_round_tells_how_far_and_how_wide() -> None:
    links_seen = [Two().measure() for _ in range(20)]
    for link in links_seen:
        assert link.rtt_us is not None
        assert link.rtt_us < 1_000_000
    # a probe that was answered sooner than the ping before it tells nothing: a busy machine
    rates = [link.rate_bps for link in links_seen if link.rate_bps is not None]
    assert rates, "the link is short, so that it was probed"


@pytest.mark.parametrize("pace", [Pace(probe_bytes=0), Pace(probe_below_us=0)])
def test_a_long_link_or_a_budget_of_nothing_is_not_probed(pace: Pace) -> None:
    assert Two(pace).measure().rate_bps is None


def test_a_probe_keeps_its_budget() -> None:
    two = Two(Pace(probe_bytes=1000))
    sizes = []
    for _ in range(2 * links.PROBE_ROUNDS):
        two.watches[0]._ping_all()
        two.carry()
        two.watches[0].end_round()
        sizes += [len(frame) for _, frame in two.wires[0].sent if len(frame) > 500]
        two.carry()
    assert len(sizes) == 2
    assert max(sizes) < 1100


def test_a_pong_that_nobody_asked_for_or_signed_wrongly_changes_nothing() -> None:
    two = Two()
    two.watches[0].take(1, Pong(bytes(NONCE_BYTES), bytes(64)))
    assert two.seen[0].refused == {"pong-not-asked": 1}
    two.watches[0]._ping_all()
    (ping,) = two.wires[0].taken()
    forged = pong_signing_bytes(GENESIS, ping.nonce, two.keys[0].public_key, two.keys[1].public_key)
    two.watches[0].take(1, Pong(ping.nonce, two.keys[0].sign(forged)))
    assert two.seen[0].refused["pong-signature"] == 1
    assert two.watches[0].link(1) == Link()
    right = Pong(ping.nonce, two.keys[1].sign(forged))
    two.watches[0].take(1, right)
    assert two.watches[0].link(1).rtt_us is not None
    two.watches[0].take(1, right)
    assert two.seen[0].refused["pong-not-asked"] == 2, "one ping has one pong"


def test_a_flood_of_pings_is_answered_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links.time, "monotonic", lambda: 5.0)
    two = Two()
    for number in range(links.ANSWERED_PER_S_MAX + 7):
        two.watches[1].take(0, Ping(number.to_bytes(NONCE_BYTES, "big")))
    assert len(two.wires[1].sent) == links.ANSWERED_PER_S_MAX
    assert two.seen[1].refused == {"ping-flood": 7}


def test_a_member_that_is_silent_or_gone_is_no_longer_known_to_be_near() -> None:
    two = Two(Pace(probe_bytes=0))
    assert two.measure().rtt_us is not None
    for _ in range(links.SILENT_ROUNDS_MAX):
        assert two.watches[0].link(1).rtt_us is not None
        two.watches[0].end_round()
    assert two.watches[0].link(1) == Link()
    two.measure()
    two.wires[0].up = False
    two.watches[0].end_round()
    assert two.watches[0].link(1) == Link()


def test_a_probe_larger_than_the_bound_is_malformed() -> None:
    frame = encode_link_message(Ping(bytes(NONCE_BYTES), bytes(links.PROBE_BYTES_MAX + 1)))
    with pytest.raises(msgspec.DecodeError, match="length <= 4194304"):
        decode_frame(frame)


@in_loop
async def test_running_members_show_their_links(tmp_path: Path) -> None:
    modes = ModePolicy(measure_ms=100, probe_bytes=65_536)
    parameters = Parameters(
        QUICK.checkpoint_interval, QUICK.request_timeout_ms, QUICK.max_clock_skew_ms, modes=modes
    )
    async with Tasks(tmp_path) as cluster:
        await cluster.operator.bootstrap(cluster.places, parameters)
        place = cluster.places[0]

        def running() -> LinkWatch:
            found = cluster.running[place.name].running
            assert found is not None
            return found.modes.links

        await until(
            lambda: all(running().link(n).rate_bps for n in (1, 2, 3)), what="links", seconds=20
        )
        status = await cluster.http.status(place)
        for peer in status["peers"]:
            assert 0 < peer["rttUs"] < 2_000_000
            assert peer["rateBps"] > 1_000_000
        name = 'dwcp_link_rtt_seconds{peer="test-1"}'
        assert 0 < await cluster.http.metric(place, name) < 2
