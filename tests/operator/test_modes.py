"""What the resource says of modes, as members hold it."""

from __future__ import annotations

import pytest

from dwcp.wire.records import ModePolicy
from dwcp_operator.manifest import load_manifest
from dwcp_operator.rules import PROTOCOL_OF, forbidden_changes

MANIFEST = """
apiVersion: dwcp.dev/v1alpha1
kind: DWCPCluster
metadata: {name: demo}
spec: {mode: %s, modes: %s}
"""


def policy(mode: str, modes: str = "{}") -> ModePolicy:
    spec = load_manifest(MANIFEST % (mode, modes)).spec
    return spec.modes.policy(spec.mode)


def test_the_defaults_are_the_briefs_thresholds() -> None:
    found = policy("Auto")
    assert found == ModePolicy()
    assert (found.rtt_low_us, found.rtt_high_us, found.rate_bps) == (10_000, 50_000, 10**9)
    assert (found.hysteresis_permille, found.cooldown_ms, found.measure_ms) == (100, 30_000, 10_000)


@pytest.mark.parametrize("mode", ["Auto", "Datacenter", "Hybrid", "Internet"])
def test_only_auto_follows_the_network_and_begins_in_internet(mode: str) -> None:
    found = policy(mode, "{detection: true}")
    assert found.detect is (mode == "Auto")
    assert found.first == ("Internet" if mode == "Auto" else mode)
    assert PROTOCOL_OF[mode] == ("pbft" if found.first == "Internet" else "raft")


def test_a_pinned_cluster_detects_nothing() -> None:
    found = policy("Auto", "{detection: true, pinned: true}")
    assert (found.detect, found.pinned) == (False, True)


def test_thresholds_out_of_order_mean_the_lower_one() -> None:
    found = policy("Auto", "{roundTripLowMs: 80, bandwidthMbps: 100, dwellSeconds: 1}")
    assert (found.rtt_low_us, found.rtt_high_us) == (80_000, 80_000)
    assert (found.rate_bps, found.dwell_ms) == (10**8, 1000)


def test_the_rules_are_those_of_the_genesis() -> None:
    before, after = (
        load_manifest(MANIFEST % ("Auto", modes)).spec.manifest()
        for modes in ("{}", "{detection: true}")
    )
    (sentence,) = forbidden_changes(before, after)
    assert sentence.startswith("spec.modes can not be changed")
