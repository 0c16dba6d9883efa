"""One link: round trips that busy processes do not colour, loss in shares, rates only if true."""

from __future__ import annotations

from dwcp_replica.core.modes.meter import SAMPLES_MAX, Meter, TcpSample
from dwcp_replica.core.modes.reach import Link


def tcp(
    rtt_us: int = 1000,
    sent: int = 0,
    retransmitted: int = 0,
    rate_bps: int = 0,
    *,
    app_limited: bool = True,
) -> TcpSample:
    return TcpSample(rtt_us, retransmitted, sent, rate_bps, app_limited)


def test_nothing_measured_is_nothing_known() -> None:
    assert Meter().link() == Link()


def test_the_shortest_round_trip_counts_and_the_kernels_only_without_a_pong() -> None:
    meter = Meter()
    meter.tcp(tcp(rtt_us=800))
    assert meter.link().rtt_us == 800
    for rtt_us in (9_000, 11_000, 90_000):
        meter.ping(rtt_us)
    assert meter.link().rtt_us == 9_000, "a proxy half-way would pass for the member"


def test_jitter_is_the_mean_step_between_round_trips() -> None:
    meter = Meter()
    meter.ping(1000)
    assert meter.link().jitter_us is None
    meter.ping(1400)
    meter.ping(1200)
    assert meter.link().jitter_us == 300


def test_loss_is_a_share_of_what_was_sent_and_unknown_on_an_idle_link() -> None:
    meter = Meter()
    meter.tcp(tcp(sent=1000, retransmitted=10))
    meter.tcp(tcp(sent=1050, retransmitted=11))
    assert meter.link().loss is None
    meter.tcp(tcp(sent=2000, retransmitted=20))
    assert meter.link().loss == 0.01


def test_a_new_connection_starts_its_counters_anew() -> None:
    meter = Meter()
    meter.tcp(tcp(sent=100_000, retransmitted=9_000))
    meter.tcp(tcp(sent=10, retransmitted=0))
    meter.tcp(tcp(sent=510, retransmitted=5))
    assert meter.link().loss == 0.01


def test_a_rate_that_the_sender_limited_is_not_the_paths() -> None:
    meter = Meter()
    meter.tcp(tcp(rate_bps=16 * 10**9))
    assert meter.link().rate_bps is None
    meter.tcp(tcp(rate_bps=2 * 10**9, app_limited=False))
    assert meter.link().rate_bps == 2 * 10**9
    meter.probed(3 * 10**8)
    assert meter.link().rate_bps == 3 * 10**8, "what was achieved caps what the kernel saw"


def test_old_samples_are_forgotten_and_a_lost_connection_takes_all_along() -> None:
    meter = Meter()
    for _ in range(SAMPLES_MAX):
        meter.ping(90_000)
    for _ in range(SAMPLES_MAX):
        meter.ping(500)
    meter.probed(10**9)
    assert meter.link() == Link(rtt_us=500, jitter_us=0, rate_bps=10**9)
    meter.lost()
    assert meter.link() == Link()
