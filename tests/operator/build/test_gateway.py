"""The objects of the gateways."""

from __future__ import annotations

from typing import Any

from dwcp_operator.access import Gateway
from dwcp_operator.build import gateway as build
from dwcp_operator.build.names import CLUSTER_LABEL, Object
from dwcp_operator.build.pod import PodSettings
from kube.subjects import subject

SETTINGS = PodSettings("dwcp:1")
READER = {
    "clients": ["app", "reader"],
    "access": [{"client": "reader", "read": [""]}],
    "gateway": {"client": "reader", "anonymous": True},
}


def made(**spec: Any) -> Object:
    found = subject(**spec)
    asked = found.cluster.spec.gateway
    assert asked is not None
    return build.deployment(found, asked, SETTINGS)


def container(deployment: Object) -> Object:
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_a_gateway_is_never_taken_for_a_member() -> None:
    template = made(gateway={})["spec"]["template"]
    assert CLUSTER_LABEL not in template["metadata"]["labels"]
    assert build.selector(subject()).items() <= template["metadata"]["labels"].items()
    assert build.service(subject())["spec"]["selector"] == build.selector(subject())


def test_only_users_with_a_certificate_come_in_unless_the_resource_says_so() -> None:
    closed, opened = container(made(gateway={}))["args"], container(made(**READER))["args"]
    assert "--tls-client-authority" in closed
    assert "--tls-client-authority" not in opened
    assert all("--tls-key" in arguments for arguments in (closed, opened))


def test_it_acts_as_the_client_that_the_resource_names() -> None:
    def mounted(**spec: Any) -> list[str]:
        volumes = made(**spec)["spec"]["template"]["spec"]["volumes"]
        return [volume["secret"]["secretName"] for volume in volumes]

    assert mounted(gateway={}) == ["demo-client", "demo-gateway-tls"]
    given = {"client": "b", "tls": {"secretName": "mine"}}
    assert mounted(clients=["a", "b"], gateway=given) == ["demo-client-b", "mine"]


def test_none_run_while_the_cluster_sleeps() -> None:
    assert made(gateway={"replicas": 3})["spec"]["replicas"] == 3
    assert made(gateway={"replicas": 3}, hibernate=True)["spec"]["replicas"] == 0


def test_its_pods_are_restricted_and_probed_in_plain() -> None:
    pod, found = made(gateway={})["spec"]["template"]["spec"], container(made(gateway={}))
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["readOnlyRootFilesystem"] is True
    assert {found[p]["httpGet"]["port"] for p in ("livenessProbe", "readinessProbe")} == {"probes"}
    assert found["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_users_image_and_resources_are_taken() -> None:
    limits = {"limits": {"memory": "1Gi"}}
    found = container(made(image="mine:2", gateway={"resources": limits}))
    assert (found["image"], found["resources"]) == ("mine:2", limits)
    assert container(made(gateway={}))["image"] == "dwcp:1"


def test_a_drain_takes_one_gateway_at_a_time() -> None:
    assert build.disruption_budget(subject())["spec"]["maxUnavailable"] == 1
    assert Gateway().replicas == 2
