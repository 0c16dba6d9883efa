from __future__ import annotations

import shlex
from typing import Any

import pytest

from dwcp_operator.build.pod import SPEC_HASH, PodSettings, mounts_token, pod, spec_hash
from kube.subjects import adopting, subject

SETTINGS = PodSettings("registry.example/dwcp:1", "Never")


def made(**spec: Any) -> dict[str, Any]:
    return pod(subject(**spec), "demo-1", SETTINGS, with_token=True)


def container(found: dict[str, Any]) -> dict[str, Any]:
    (only,) = found["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_restricted_pod_security_standard_is_met() -> None:
    spec, inner = made()["spec"], container(made())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inner["securityContext"]["allowPrivilegeEscalation"] is False
    assert inner["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert inner["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"persistentVolumeClaim", "secret"}


def test_the_arguments_are_those_of_the_replica() -> None:
    line = shlex.join(container(made())["args"])
    assert "--name demo-1 --cluster demo --namespace shop" in line
    assert "--token-file /run/dwcp/token" in line
    assert container(made())["command"] == ["python", "-m", "dwcp_replica"]
    assert {"name": "DWCP_STAY_ON_REFUSAL", "value": "1"} in container(made())["env"]


def test_a_member_that_has_its_genesis_is_given_no_token() -> None:
    later = pod(subject(), "demo-1", SETTINGS, with_token=False)
    assert mounts_token(made())
    assert not mounts_token(later)
    assert "--token-file" not in container(later)["args"]
    assert len(container(later)["volumeMounts"]) == 1


def test_probes_ask_for_what_they_mean() -> None:
    inner = container(made())
    assert inner["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert inner["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert inner["readinessProbe"]["httpGet"]["path"] == "/readyz"
    ports = {p["name"] for p in inner["ports"]}
    assert inner["readinessProbe"]["httpGet"]["port"] in ports


def test_the_pod_has_a_name_in_dns_and_its_own_volume() -> None:
    spec = made()["spec"]
    assert (spec["hostname"], spec["subdomain"]) == ("demo-1", "demo-members")
    claims = [
        v["persistentVolumeClaim"]["claimName"] for v in spec["volumes"] if v["name"] == "data"
    ]
    assert claims == [subject().claim("demo-1")]
    adopted = pod(adopting(), "demo-1", SETTINGS, with_token=True)["spec"]["volumes"][0]
    assert adopted["persistentVolumeClaim"] == {"claimName": "old-1"}


def test_members_are_spread_but_a_small_cluster_still_starts() -> None:
    rules = made()["spec"]["topologySpreadConstraints"]
    assert [r["topologyKey"] for r in rules] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert all(r["whenUnsatisfiable"] == "ScheduleAnyway" for r in rules)


@pytest.mark.parametrize(
    "spec", [{"image": "other:2"}, {"resources": {"limits": {"memory": "1Gi"}}}], ids=str
)
def test_what_the_user_wrote_changes_the_hash(spec: dict[str, Any]) -> None:
    assert spec_hash(subject(**spec).cluster.spec) != spec_hash(subject().cluster.spec)


def test_what_the_operator_adds_does_not_change_the_hash() -> None:
    upgraded = pod(subject(), "demo-1", PodSettings("registry.example/dwcp:2"), with_token=False)
    assert upgraded["metadata"]["annotations"] == made()["metadata"]["annotations"]
    assert made()["metadata"]["annotations"][SPEC_HASH] == spec_hash(subject().cluster.spec)


def test_the_users_resources_and_image_win() -> None:
    limits = {"limits": {"memory": "1Gi"}}
    assert container(made(resources=limits, image="mine:3"))["resources"] == limits
    assert container(made(resources=limits, image="mine:3"))["image"] == "mine:3"
    assert container(made())["image"] == "registry.example/dwcp:1"
    assert container(made())["resources"]["requests"]
