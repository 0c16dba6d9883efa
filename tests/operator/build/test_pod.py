from __future__ import annotations

import shlex
from typing import Any

import pytest

from dwcp_operator.build.names import Subject
from dwcp_operator.build.pod import SPEC_HASH, PodSettings, mounts_token, pod
from kube.subjects import adopting, subject

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
SETTINGS = PodSettings("registry.example/dwcp:1", "Never")


def build(
    found: Subject, settings: PodSettings = SETTINGS, *, with_token: bool = True
) -> dict[str, Any]:
    return pod(found, "demo-1", settings, found.cluster.template, with_token=with_token)


def made(**spec: Any) -> dict[str, Any]:
    return build(subject(**spec))


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
    later = build(subject(), with_token=False)
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
    adopted = build(adopting())["spec"]["volumes"][0]
    assert adopted["persistentVolumeClaim"] == {"claimName": "old-1"}


def test_members_are_spread_but_a_small_cluster_still_starts() -> None:
    rules = made()["spec"]["topologySpreadConstraints"]
    assert [r["topologyKey"] for r in rules] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    assert all(r["whenUnsatisfiable"] == "ScheduleAnyway" for r in rules)


@pytest.mark.parametrize(
    "spec",
    [
        {"image": "other:2"},
        {"resources": {"limits": {"memory": "1Gi"}}},
        {"placement": {"priorityClassName": "high"}},
        {"placement": {"nodeSelector": {"disk": "ssd"}}},
    ],
    ids=str,
)
def test_what_the_user_wrote_changes_the_revision(spec: dict[str, Any]) -> None:
    assert subject(**spec).cluster.template.revision != subject().cluster.template.revision


def test_what_the_operator_adds_does_not_change_the_revision() -> None:
    upgraded = build(subject(), PodSettings("registry.example/dwcp:2"), with_token=False)
    assert upgraded["metadata"]["annotations"] == made()["metadata"]["annotations"]
    assert made()["metadata"]["annotations"][SPEC_HASH] == subject().cluster.template.revision


def test_a_new_operator_finds_the_pods_of_older_ones_unchanged() -> None:
    """These were computed by the first version: another value would restart every member."""
    older = {
        "ff5f444370be1293": {},
        "e989aceddd0c4910": {"image": "other:2", "resources": {"limits": {"memory": "1Gi"}}},
    }
    for revision, spec in older.items():
        assert subject(**spec).cluster.template.revision == revision


def test_what_is_written_as_its_default_changes_nothing() -> None:
    spelt = {"placement": {"tolerations": [], "sites": []}, "upgrade": {}, "resources": {}}
    assert subject(**spelt).cluster.template.revision == subject().cluster.template.revision


def test_how_changes_are_rolled_out_is_no_change() -> None:
    others = {
        "upgrade": {"rollback": True, "window": {"start": "02:00"}},
        "monitoring": {"podMonitor": True},
        "hibernate": True,
        "storage": {"size": "9Gi"},
    }
    assert subject(**others).cluster.template.revision == subject().cluster.template.revision


def test_members_run_where_the_user_says() -> None:
    placement = {
        "nodeSelector": {"disk": "ssd"},
        "priorityClassName": "high",
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "sites": [
            {"name": "north", "nodeSelector": {"zone": "n"}},
            {"name": "south", "nodeSelector": {"zone": "s"}},
        ],
    }
    spec = made(placement=placement)["spec"]
    assert spec["nodeSelector"] == {"disk": "ssd", "zone": "s"}
    assert spec["priorityClassName"] == "high"
    assert spec["tolerations"][-1] == {
        "key": "dedicated", "operator": "Exists", "effect": "NoSchedule"
    }  # fmt: skip
    assert len(spec["tolerations"]) == len(made()["spec"]["tolerations"]) + 1
    assert "nodeSelector" not in made()["spec"]
    assert "priorityClassName" not in made()["spec"]


def test_sites_are_dealt_in_turn_so_that_none_holds_more_than_its_share() -> None:
    sites = [{"name": name, "nodeSelector": {"zone": name}} for name in ("a", "b", "c", "d")]
    placement = subject(replicas=7, placement={"sites": sites}).cluster.template.placement
    dealt = [placement.site(f"demo-{i}") for i in range(7)]
    assert [s.name for s in dealt if s] == ["a", "b", "c", "d", "a", "b", "c"]
    assert subject().cluster.template.placement.site("demo-0") is None


def test_the_users_resources_and_image_win() -> None:
    limits = {"limits": {"memory": "1Gi"}}
    assert container(made(resources=limits, image="mine:3"))["resources"] == limits
    assert container(made(resources=limits, image="mine:3"))["image"] == "mine:3"
    assert container(made())["image"] == "registry.example/dwcp:1"
    assert container(made())["resources"]["requests"]


def test_the_client_port_speaks_tls_where_the_resource_says_so() -> None:
    def of(**spec: Any) -> tuple[list[str], str, list[str]]:
        body = made(**spec)
        found = container(body)
        schemes = {found[p]["httpGet"].get("scheme", "HTTP") for p in PROBES}
        (scheme,) = schemes
        return found["args"], scheme, [v["name"] for v in body["spec"]["volumes"]]

    arguments, scheme, volumes = of()
    assert (any("tls" in a for a in arguments), scheme, "tls" in volumes) == (False, "HTTP", False)
    arguments, scheme, volumes = of(tls={})
    assert ("--client-tls" in arguments, scheme, "tls" in volumes) == (True, "HTTPS", False)
    arguments, scheme, volumes = of(tls={"secretName": "mine"})
    assert ("--client-tls-key" in arguments, scheme, "tls" in volumes) == (True, "HTTPS", True)
