"""A quorum lost for good: one audited way to begin anew from what the survivors can prove."""

from __future__ import annotations

import time

import pytest

from kube import reliability
from kube.conftest import Make
from kube.test_backups import claim, last_of, take
from sandbox.cluster import Sandbox

pytestmark = [pytest.mark.kube, pytest.mark.e2e, pytest.mark.timeout(400)]

LOSS = "what was acknowledged after the last entry that source-0 and source-1 can prove"


def test_a_lost_quorum_is_recovered_by_naming_what_may_be_lost(
    make: Make, sandbox: Sandbox, namespace: str, image: str
) -> None:
    source = make("source")
    claim(sandbox, namespace)
    source.wait_all_ready()
    source.start_client(image)
    source.put("before", "the loss")
    source.wait_all_ready()
    tag = source.status()["clusterId"][:8]
    began = time.monotonic()
    for gone in ("source-2", "source-3"):
        sandbox.kubectl("delete", "pvc", f"{gone}-{tag}", source.where, "--wait=false")
        sandbox.kubectl("delete", "pod", gone, source.where, "--wait=false")

    def lost() -> str:
        reason = source.condition("Available").get("reason")
        return "" if reason == "QuorumLost" else f"Available QuorumLost, not {reason}"

    sandbox.wait_until(lost, 60)
    assert source.status()["membership"]["epoch"] == 0, "nobody orders without a quorum"

    take(sandbox, namespace, "survivors")
    last = last_of(sandbox, namespace, "survivors")
    backup = {"claim": "backups", "file": last["file"], "genesisHash": last["genesisHash"]}
    rescued = make("rescued", bootstrap={"backup": {**backup, "acceptedLoss": LOSS}})
    rescued.wait_available(90)
    seconds = time.monotonic() - began
    rescued.wait_all_ready()
    rescued.start_client(image)
    assert rescued.get("before") == "the loss"
    rescued.put("after", "the loss")
    assert LOSS in rescued.dwcp("verify-chain"), "all its members have signed what may be lost"
    reliability.note(
        "quorum lost for good, begun again from the survivors", None,
        f"Available {seconds:.0f} s after the loss; the genesis says what may be lost",
    )  # fmt: skip
