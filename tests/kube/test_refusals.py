"""What the API server refuses, with the sentence that says what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from kube.conftest import Make
from sandbox.cluster import Sandbox
from sandbox.shell import CommandError

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

ADOPT = {
    "clusterId": "0" * 32,
    "volumes": [{"member": f"x-{i}", "claim": f"c{i}"} for i in range(4)],
}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"replicas": 5}, "spec.replicas=5 is not 3f+1: use 4 or 7"),
        ({"replicas": 3}, "spec.replicas=3 is not 3f+1: use 4 or 7"),
        ({"mode": "Datacenter"}, "spec.mode=Datacenter is not yet supported: use Auto or Internet"),
        ({"trust": "Crash"}, "spec.trust=Crash is not yet supported: use Byzantine"),
        ({"requestTimeout": "61s"}, "out of range: use 100ms to 60s"),
        ({"replicas": 7, "bootstrap": {"adopt": ADOPT}}, "one volume for each replica"),
        ({"storage": {"size": "big"}}, "should match"),
        ({"clients": []}, "at least 1"),
        ({"upgrade": {"stepDeadline": "9s"}}, "out of range: use 10s to 3600s"),
        ({"upgrade": {"window": {"start": "2am"}}}, "should match"),
        ({"resources": {"limits": {"memory": "1Gb"}}}, "should match"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_a_bad_resource_is_refused(make: Make, spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CommandError) as refused:
        make("bad", **spec)
    assert sentence in refused.value.output


def test_changes_are_refused_with_their_reason(make: Make, sandbox: Sandbox) -> None:
    made = make("fixed")

    def refuse(*words: str) -> str:
        with pytest.raises(CommandError) as refused:
            sandbox.kubectl(*words, made.where)
        return refused.value.output

    scale = ("scale", "dwcpcluster/fixed")
    assert "is not 3f+1: use 4 or 7" in refuse(*scale, "--replicas=5")
    assert "not yet supported" in refuse(*scale, "--replicas=7")
    patch = ("patch", "dwcpcluster", "fixed", "--type=merge", "--patch")
    assert "not yet supported" in refuse(*patch, '{"spec":{"replicas":7}}')
    assert "part of the cluster's genesis" in refuse(*patch, '{"spec":{"checkpointInterval":50}}')
    # Removing the field first is no way around it.
    assert "genesis" in refuse(
        "patch", "dwcpcluster", "fixed", "--type=json", "--patch",
        '[{"op":"replace","path":"/spec/requestTimeout","value":"3s"}]',
    )  # fmt: skip
    assert "a volume can not shrink" in refuse(*patch, '{"spec":{"storage":{"size":"500Mi"}}}')
    assert "can not be changed" in refuse(
        *patch, '{"spec":{"storage":{"storageClassName":"other"}}}'
    )
