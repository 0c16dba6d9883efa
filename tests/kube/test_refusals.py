"""What the API server refuses, with the sentence that says what to write instead."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from dwcp_operator.act.snapshot import UnreadableError, subject_of
from kube.conftest import Make
from kube.generated import specs
from sandbox.cluster import Sandbox
from sandbox.shell import CommandError

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

ADOPT = {
    "clusterId": "0" * 32,
    "volumes": [{"member": f"x-{i}", "claim": f"c{i}"} for i in range(4)],
}
FIVE = {**ADOPT, "volumes": [{"member": f"bad-{i}", "claim": f"c{i}"} for i in range(5)]}


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"replicas": 5}, "spec.replicas=5 is not 3f+1: use 4 or 7"),
        ({"replicas": 0}, "spec.replicas is not 3f+1: use 4 or 7"),
        ({"replicas": 3}, "spec.replicas=3 is not 3f+1: use 4 or 7"),
        ({"trust": "Crash"}, "spec.trust=Crash is not yet supported: use Byzantine"),
        ({"requestTimeout": "61s"}, "out of range: use 100ms to 60s"),
        ({"bootstrap": {"adopt": FIVE}}, "a number of volumes that is not 3f+1"),
        ({"replaceAfter": "5s"}, "use 30s or more, or 0s for never"),
        ({"storage": {"size": "big"}}, "should match"),
        ({"clients": []}, "at least 1"),
        ({"upgrade": {"stepDeadline": "9s"}}, "out of range: use 10s to 3600s"),
        ({"upgrade": {"window": {"start": "2am"}}}, "should match"),
        ({"resources": {"limits": {"memory": "1Gb"}}}, "should match"),
        ({"documents": {"strategies": [{"strategy": "Custom"}]}}, "either a resolver"),
        ({"documents": {"strategies": [{"strategy": "Priority"}]}}, "Priority needs priorities"),
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
    assert "more than the 31 members" in refuse(*scale, "--replicas=34")
    patch = ("patch", "dwcpcluster", "fixed", "--type=merge", "--patch")
    assert "is not 3f+1: use 7 or 10" in refuse(*patch, '{"spec":{"replicas":8}}')
    assert "part of the cluster's genesis" in refuse(*patch, '{"spec":{"checkpointInterval":50}}')
    # Removing the field first is no way around it.
    assert "genesis" in refuse(
        "patch", "dwcpcluster", "fixed", "--type=json", "--patch",
        '[{"op":"replace","path":"/spec/requestTimeout","value":"3s"}]',
    )  # fmt: skip
    assert "a volume can not shrink" in refuse(*patch, '{"spec":{"storage":{"size":"500Mi"}}}')
    assert "can not be changed" in refuse(*patch, '{"spec":{"fastReads":true}}')


def generated(count: int) -> list[dict[str, Any]]:
    """Resources as tests/operator/test_generated.py plans them, each under a name of its own."""
    made: list[dict[str, Any]] = []

    @settings(max_examples=count, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(spec=specs)
    def collect(spec: dict[str, Any]) -> None:
        made.append(
            {
                "apiVersion": "dwcp.dev/v1alpha1",
                "kind": "DWCPCluster",
                "metadata": {"name": f"generated{len(made)}"},
                "spec": json.loads(json.dumps(spec)),
            }
        )

    collect()
    return made


def test_what_the_api_server_takes_the_operator_understands(
    sandbox: Sandbox, namespace: str, tell: Callable[[str], None]
) -> None:
    """Rules, schema and models say the same: what one lets through, the other does not refuse."""
    resources = generated(500)
    words = ("create", "--dry-run=server", "--validate=ignore", "-ojson", "-f=-", f"-n={namespace}")
    done = subprocess.run(
        [*sandbox.enter, str(sandbox.programs / "kubectl"), *words],
        input=json.dumps({"apiVersion": "v1", "kind": "List", "items": resources}),
        env={**os.environ, **sandbox.environment()},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    taken = json_documents(done.stdout)
    refused = set(re.findall(r'"(generated\d+)" is invalid', done.stderr))
    assert len(taken) + len(refused) == len(resources), done.stderr[-2000:]
    assert taken
    assert refused
    unread = {}
    for raw in taken:
        try:
            subject_of(raw)
        except UnreadableError as error:
            unread[json.dumps(raw["spec"])] = str(error)
    # The members' numbers cost more than a rule may: the operator says what is wrong with them.
    others = {spec: why for spec, why in unread.items() if "spec.bootstrap.adopt" not in why}
    assert not others
    tell(
        f"generated resources at the API server: {len(taken)} taken ({len(unread)} of them told "
        f"in Degraded), {len(refused)} refused"
    )


def json_documents(text: str) -> list[dict[str, Any]]:
    """What kubectl prints for several objects: a List, or one object after the other."""
    decoder, found, place = json.JSONDecoder(), [], 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        one, place = decoder.raw_decode(text, place)
        found += one["items"] if one["kind"] == "List" else [one]
    return found
