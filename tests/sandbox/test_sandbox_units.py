"""The parts of the sandbox that only compute: no root, no network, milliseconds."""

from __future__ import annotations

import ipaddress
import itertools
import json
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sandbox import (
    binaries,
    control_plane,
    dns,
    images,
    layout,
    network,
    node,
    pki,
    shell,
    smoke,
    storage,
    wheels,
)

ALL_NODES = range(1, layout.NODES_MAX + 1)


@pytest.fixture
def place() -> layout.Layout:
    return layout.Layout(Path("/var/lib/test-sandbox"))


# ---- layout ---------------------------------------------------------------------------------


def test_nodes_share_no_name_address_or_subnet(place: layout.Layout) -> None:
    nodes = place.nodes(layout.NODES_MAX)
    for values in (
        {n.name for n in nodes},
        {n.address for n in nodes} | {layout.CONTROL_ADDRESS},
        {n.bridge for n in nodes},
        {n.zone for n in nodes},
        {n.containerd_socket for n in nodes},
    ):
        assert len(values) >= len(nodes)
    assert layout.CONTROL_ADDRESS not in {n.address for n in nodes}


def test_networks_are_apart_and_hold_what_they_should(place: layout.Layout) -> None:
    nodes = place.nodes(layout.NODES_MAX)
    networks = [layout.SERVICE_NETWORK, layout.NODE_NETWORK, *(n.pod_subnet for n in nodes)]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(networks, 2))
    assert all(n.pod_subnet.subnet_of(layout.POD_NETWORK) for n in nodes)
    assert all(ipaddress.ip_address(n.address) in layout.NODE_NETWORK for n in nodes)
    assert ipaddress.ip_address(layout.DNS_SERVICE_ADDRESS) in layout.SERVICE_NETWORK


def test_bridge_names_fit_an_interface(place: layout.Layout) -> None:
    assert all(len(n.bridge) <= 15 for n in place.nodes(layout.NODES_MAX))


@pytest.mark.parametrize("number", [0, layout.NODES_MAX + 1])
def test_node_numbers_are_bounded(place: layout.Layout, number: int) -> None:
    with pytest.raises(shell.SandboxError, match="numbered 1 to"):
        place.node(number)


def test_names_follow_from_the_state_directory(place: layout.Layout) -> None:
    other = layout.Layout(Path("/var/lib/other"))
    assert place.name == layout.Layout(place.state).name
    assert place.name != other.name


@pytest.mark.parametrize("path", ["relative", "/" + "x" * 70])
def test_state_path_must_fit(path: str) -> None:
    with pytest.raises(shell.SandboxError, match="absolute path"):
        layout.Layout(Path(path))


def test_unknown_node_is_answered_with_the_known_ones(place: layout.Layout) -> None:
    assert place.node_named("node-2", 2).number == 2
    with pytest.raises(shell.SandboxError, match="use one of node-1, node-2"):
        place.node_named("node-3", 2)


# ---- network --------------------------------------------------------------------------------


def test_ip_batch_gives_every_node_its_address_and_no_way_out(place: layout.Layout) -> None:
    lines = network.ip_batch(place.nodes(2)).splitlines()
    assert "address replace 172.31.255.11/24 dev node0" in lines
    assert "address replace 172.31.255.12/24 dev node0" in lines
    assert "route replace unreachable default" in lines
    assert not [line for line in lines if " via " in line]


# ---- node configuration ---------------------------------------------------------------------


@pytest.mark.parametrize("number", ALL_NODES)
def test_containerd_config_is_toml_and_stays_in_its_directory(
    place: layout.Layout, number: int
) -> None:
    owner = place.node(number)
    config = tomllib.loads(node.containerd_config(place, owner, Path("/plugins")))
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    runc = cri["containerd"]["runtimes"]["runc"]["options"]
    assert cri["sandbox_image"] in images.COMPONENT_IMAGES
    assert cri["cni"]["bin_dir"] == "/plugins"
    places = [config["root"], config["state"], config["grpc"]["address"], runc["Root"]]
    for path in [*places, cri["cni"]["conf_dir"]]:
        assert Path(path).is_relative_to(owner.root)
    assert runc["SystemdCgroup"] is False


def test_cni_config_of_a_node(place: layout.Layout) -> None:
    owner = place.node(2)
    config: Any = json.loads(json.dumps(node.cni_config(place, owner)))
    bridge = config["plugins"][0]
    assert bridge["bridge"] == "cni2"
    assert bridge["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]
    assert Path(bridge["ipam"]["dataDir"]).is_relative_to(owner.root)


def test_kubelet_config_is_stock_in_what_it_trusts(place: layout.Layout) -> None:
    config: Any = node.kubelet_config(place, place.node(1))
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert config["authorization"]["mode"] == "Webhook"
    assert config["clusterDNS"] == [layout.DNS_SERVICE_ADDRESS]


def test_kubelets_have_cgroup_roots_of_their_own(place: layout.Layout) -> None:
    configs: list[Any] = [node.kubelet_config(place, n) for n in place.nodes(3)]
    roots = {config["cgroupRoot"] for config in configs}
    assert len(roots) == 3
    assert all(root.startswith(f"/{place.name}/") for root in roots)


def test_pods_and_their_runtime_are_in_sibling_groups(place: layout.Layout) -> None:
    owner = place.node(1)
    pods, runtime = node.pods_group(place, owner), node.runtime_group(place, owner)
    assert Path(pods).parent == Path(runtime).parent
    assert not Path(runtime).is_relative_to(pods)


# ---- control plane --------------------------------------------------------------------------


def test_api_server_checks_rights(place: layout.Layout) -> None:
    flags = control_plane.api_server(place)
    assert "--authorization-mode=Node,RBAC" in flags
    assert not [flag for flag in flags if "AlwaysAllow" in flag or "disable-admission" in flag]


def test_components_have_a_certificate_for_each_kubeconfig(place: layout.Layout) -> None:
    issued = {f"{c.file}.kubeconfig" for c in pki.control_plane_certificates()}
    commands = [control_plane.controller_manager(place), control_plane.scheduler(place)]
    named = {Path(w.split("=")[1]).name for c in commands for w in c if "kubeconfig=" in w}
    proxy = control_plane.proxy_config(place)
    named.add(Path(proxy["clientConnection"]["kubeconfig"]).name)
    named.add(place.kubeconfig.name)
    assert named <= issued


# ---- certificates ---------------------------------------------------------------------------


def test_kubelet_certificate_is_its_node_identity(place: layout.Layout) -> None:
    text = pki.node_certificate(place.node(2)).openssl_config()
    assert "\nO=system:nodes\nCN=system:node:node-2\n" in text
    assert "subjectAltName=DNS:node-2,IP:172.31.255.12" in text
    assert "extendedKeyUsage=serverAuth,clientAuth" in text


def test_client_certificate_serves_nothing() -> None:
    text = pki.Certificate("scheduler", "system:kube-scheduler").openssl_config()
    assert "serverAuth" not in text
    assert "subjectAltName" not in text
    assert "CA:FALSE" in text


def test_kubeconfig_holds_the_given_user() -> None:
    config = json.loads(pki.kubeconfig(b"authority", {"token": "secret"}))
    assert config["users"][0]["user"] == {"token": "secret"}
    assert config["clusters"][0]["cluster"]["server"] == layout.API_SERVER
    assert config["current-context"] == config["contexts"][0]["name"]


# ---- binaries -------------------------------------------------------------------------------


def test_cache_key_changes_with_any_file() -> None:
    files = [("go.mod", b"module a"), ("main.go", b"package main")]
    key = binaries.cache_key(files)
    assert key == binaries.cache_key(reversed(files))
    assert key != binaries.cache_key([("go.mod", b"module b"), files[1]])
    assert key != binaries.cache_key([("go.sum", b"module a"), files[1]])
    assert key != binaries.cache_key(files[:1])
    # The same bytes, cut differently between two files.
    assert binaries.cache_key([("a", b"xy"), ("b", b"")]) != binaries.cache_key(
        [("a", b"x"), ("b", b"y")]
    )


def test_cache_key_changes_with_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = binaries.current_key()
    monkeypatch.setattr(binaries, "HELM", "4.0.99")
    assert binaries.current_key() != before


def test_versions_are_those_of_the_module() -> None:
    module = (binaries.SOURCE / "go.mod").read_text()
    for package, version in (
        ("k8s.io/kubernetes", binaries.KUBERNETES),
        ("github.com/coredns/coredns", binaries.COREDNS),
        ("helm.sh/helm/v4", binaries.HELM),
        ("github.com/yannh/kubeconform", binaries.KUBECONFORM),
    ):
        assert f"\t{package} v{version}" in module
    staging = binaries.KUBERNETES.removeprefix("1.")
    pinned = [line for line in module.splitlines() if line.startswith("\tk8s.io/") and "=>" in line]
    assert pinned
    assert all(line.endswith(f" v0.{staging}") for line in pinned)
    assert "go {}.{}.0\n".format(*binaries.GO_MINIMUM) in module


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.19.8 linux/amd64", (1, 19)),
        ("go version devel +abc", (0, 0)),
    ],
)
def test_go_version(text: str, version: tuple[int, int]) -> None:
    assert binaries.parse_go_version(text) == version


# ---- DNS ------------------------------------------------------------------------------------


def _answer(number: int, flags: int = 0x8180, count: int = 1) -> bytes:
    question = dns.encode_query("a.b", number)[12:]
    record_ = b"\xc0\x0c" + struct.pack(">2HIH", 1, 1, 2, 4) + bytes([10, 96, 0, 1])
    return struct.pack(">6H", number, flags, 1, count, 0, 0) + question + record_ * count


def test_query_spells_the_name() -> None:
    query = dns.encode_query("kube-dns.svc.", 7)
    assert query == b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x08kube-dns\x03svc\0\0\x01\0\x01"


def test_answer_with_pointers_is_read() -> None:
    assert dns.decode_answer(_answer(7, count=2), 7) == ["10.96.0.1", "10.96.0.1"]


def test_answer_to_another_query_or_a_failure_counts_as_none() -> None:
    assert dns.decode_answer(_answer(7), 8) == []
    assert dns.decode_answer(_answer(7, flags=0x8183), 7) == []


def test_dns_has_no_way_out_and_runs_without_rights() -> None:
    assert "forward" not in dns.COREFILE
    deployment = next(i for i in dns.manifest(2)["items"] if i["kind"] == "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


# ---- storage --------------------------------------------------------------------------------


def test_each_node_has_as_many_volumes_of_either_access_mode(place: layout.Layout) -> None:
    items = storage.manifest(place.nodes(2), 3)["items"]
    volumes = [item for item in items if item["kind"] == "PersistentVolume"]
    modes = [tuple(item["spec"]["accessModes"]) for item in volumes]
    assert modes.count(("ReadWriteOnce",)) == modes.count(("ReadWriteOncePod",)) == 6
    assert len({item["metadata"]["name"] for item in volumes}) == 12
    assert len({item["spec"]["local"]["path"] for item in volumes}) == 12


def test_volume_is_bound_to_its_node(place: layout.Layout) -> None:
    made = storage.volume(place.node(2), 5)
    terms = made["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert terms[0]["matchExpressions"][0]["values"] == ["node-2"]


def test_volume_name_leads_back(place: layout.Layout) -> None:
    owner = place.node(2)
    assert storage.parse_volume_name(place, storage.volume_name(owner, 7)) == (owner, 7)


def test_only_volumes_without_a_claim_are_spent() -> None:
    phases = ["Available", "Bound", "Released", "Failed"]
    items = [{"metadata": {"name": phase}, "status": {"phase": phase}} for phase in phases]
    assert storage.spent(items) == ["Released", "Failed"]


def test_wiped_volume_is_empty(tmp_path: Path) -> None:
    owner = layout.Node(1, tmp_path)
    storage.make_directories([owner], 1)
    (owner.volume(1) / "file").write_text("x")
    storage.wipe(owner, 1)
    assert list(owner.volume(1).iterdir()) == []


# ---- images and wheels ----------------------------------------------------------------------


def test_platform_tags_name_the_image_glibc_first_and_none_newer() -> None:
    tags = wheels.platform_tags("x86_64")
    assert tags[0] == "manylinux_2_41_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux2014_x86_64"} <= set(tags)
    assert "manylinux_2_42_x86_64" not in tags


def test_wheel_cache_key_is_of_contents_not_of_order() -> None:
    assert wheels.cache_key([b"a", b"b"]) == wheels.cache_key([b"b", b"a"])
    assert wheels.cache_key([b"a", b"b"]) != wheels.cache_key([b"ab"])


def test_missing_requirements_are_named(tmp_path: Path) -> None:
    with pytest.raises(shell.SandboxError, match="name existing files with --requirements"):
        wheels.ensure(tmp_path, [tmp_path / "absent.txt"])
    assert list(tmp_path.iterdir()) == []


def test_image_file_name() -> None:
    assert images.file_name("localhost/dwcp:dev") == "localhost-dwcp-dev"


def test_smoke_pods_are_as_strict_as_ours_must_be() -> None:
    made = smoke.pod("x", "node-1", [], "claim")
    assert made["spec"]["securityContext"]["runAsUser"] == 65532
    container = made["spec"]["containers"][0]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
