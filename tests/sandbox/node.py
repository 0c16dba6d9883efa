"""One node: a containerd and a kubelet with directories, addresses and cgroups of their own.

Two kubelets on one machine would remove each other's pods as orphans, so each has a cgroup root
of its own. What Kubernetes keeps at fixed places (/var/log/containers, /var/lib/kubelet/
device-plugins) is put back in order by teardown.py.
"""

from __future__ import annotations

import json
from pathlib import Path

from sandbox import cgroups, mounts
from sandbox.layout import DNS_DOMAIN, DNS_SERVICE_ADDRESS, POD_NETWORK, Layout, Node
from sandbox.packages import cni_directory
from sandbox.processes import Processes
from sandbox.shell import CommandError, SandboxError, run, wait_until, write_file

PAUSE_IMAGE = "localhost/sandbox/pause:1"
STOP_GRACE_S = 0.0


def containerd_config(layout: Layout, node: Node, cni_plugins: Path) -> str:
    """containerd's TOML: all of its directories inside the node's own.

    restrict_oom_score_adj and netns_mounts_under_state_dir make it a guest of the machine;
    /opt/containerd is disabled because it is a fixed path.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{node.root / "containerd"}"
state = "{node.runtime_state}"
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
address = "{node.containerd_socket}"
[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[{cri}.cni]
bin_dir = "{cni_plugins}"
conf_dir = "{node.root / "cni"}"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
Root = "{node.runtime_state / "runc"}"
SystemdCgroup = false
"""


def cni_config(layout: Layout, node: Node) -> dict[str, object]:
    """The pod network of the node: a bridge, and addresses counted on this host."""
    bridge = {
        "type": "bridge",
        "bridge": node.bridge,
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(node.root / "addresses"),
            "ranges": [[{"subnet": str(node.pod_subnet)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": cni_name(layout, node), "plugins": [bridge, ports]}


def cni_name(layout: Layout, node: Node) -> str:
    """The network's name, with which CNI prefixes its notes in /var/lib/cni/results."""
    return f"{layout.name}-{node.name}"


def kubelet_config(layout: Layout, node: Node) -> dict[str, object]:
    """KubeletConfiguration: stock authentication, addresses and directories of the node's own."""
    pki = layout.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(pki / f"{node.name}.key"),
        "address": node.address,
        "healthzBindAddress": node.address,
        "containerRuntimeEndpoint": f"unix://{node.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{pods_group(layout, node)}",
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "clusterDNS": [DNS_SERVICE_ADDRESS],
        "clusterDomain": DNS_DOMAIN,
        "podCIDR": str(node.pod_subnet),
        "resolvConf": str(layout.resolv_conf),
        "podLogsDir": str(node.root / "pod-logs"),
        "volumePluginDir": str(node.root / "volume-plugins"),
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 12,
        # Tests kill the same container again and again; nobody needs to wait minutes for that.
        "featureGates": {"KubeletCrashLoopBackOffMax": True},
        "crashLoopBackOff": {"maxContainerRestartPeriod": "4s"},
        # Images are brought in by hand, so none may be collected; a full disk is the machine's.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
        "maxPods": min(110, POD_NETWORK.num_addresses),
    }


def pods_group(layout: Layout, node: Node) -> str:
    return f"{layout.name}/{node.name}"


def runtime_group(layout: Layout, node: Node) -> str:
    """Beside the pods' group, since with cgroup v2 only leaves may hold processes."""
    return f"{layout.name}/{node.name}-runtime"


def process_names(node: Node) -> tuple[str, str]:
    """containerd's and the kubelet's names among the sandbox's processes."""
    return f"{node.name}-containerd", f"{node.name}-kubelet"


def start_runtime(layout: Layout, node: Node, processes: Processes) -> None:
    """Start containerd on `node` and return when it answers."""
    plugins = cni_directory()
    if plugins is None:
        raise SandboxError("there are no CNI plugins: install containernetworking-plugins")
    for group in (pods_group(layout, node), runtime_group(layout, node)):
        cgroups.create(group)
    config = node.root / "containerd.toml"
    write_file(config, containerd_config(layout, node, plugins))
    cni = json.dumps(cni_config(layout, node), indent=1)
    write_file(node.root / "cni" / "10-bridge.conflist", cni)
    name, _ = process_names(node)
    command: list[str | Path] = [*layout.enter, "containerd", "--config", config]
    processes.start(name, [*command, "--log-level", "warn"], runtime_group(layout, node))

    def no_answer() -> str:
        processes.require(name)
        try:
            ctr(node, "version")
        except CommandError as error:
            return f"an answer of containerd on {node.name}: {error}"
        return ""

    wait_until(no_answer, timeout_s=20.0)


def ctr(node: Node, *words: str | Path) -> str:
    """Talk to containerd on `node`, in the namespace that Kubernetes uses."""
    return run(["ctr", "--address", node.containerd_socket, "--namespace", "k8s.io", *words])


def load_image(node: Node, archive: Path) -> None:
    """Import an OCI archive into containerd on `node`."""
    ctr(node, "images", "import", archive)


def image_names(node: Node) -> set[str]:
    """The names of the images that containerd on `node` has."""
    return set(ctr(node, "images", "list", "--quiet").split())


def start_kubelet(layout: Layout, node: Node, programs: Path, processes: Processes) -> None:
    """Start the kubelet on `node`; it registers the node by itself."""
    config = node.root / "kubelet.json"
    write_file(config, json.dumps(kubelet_config(layout, node), indent=1))
    labels = f"topology.kubernetes.io/zone={node.zone},topology.kubernetes.io/region=sandbox"
    command: list[str | Path] = [
        *layout.enter,
        programs / "kubelet",
        f"--config={config}",
        f"--kubeconfig={layout.pki / f'{node.name}.kubeconfig'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.kubelet_root}",
        f"--cert-dir={node.root / 'serving'}",
        f"--node-labels={labels}",
        "--v=1",
    ]
    _, name = process_names(node)
    processes.start(name, command, runtime_group(layout, node))


def power_off(layout: Layout, node: Node, processes: Processes) -> None:
    """End everything on `node` as a power failure would; volumes and images stay."""
    for name in reversed(process_names(node)):
        processes.stop(name, grace_s=STOP_GRACE_S)
    for group in (runtime_group(layout, node), pods_group(layout, node)):
        cgroups.kill(group)
    mounts.unmount_below(node.root)
    shim_sockets = mounts.shim_sockets(node.runtime_state)
    mounts.remove_tree(node.runtime_state)
    for socket in shim_sockets:
        socket.unlink(missing_ok=True)
