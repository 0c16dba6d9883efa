"""What is where: names, addresses and paths of a sandbox, all derived from its state directory.

Nothing here touches the machine. Two sandboxes with different state directories share no name:
the network namespace and the cgroup carry a digest of the directory's path.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from sandbox.shell import SandboxError

NODES_MAX = 9
VOLUMES_MAX = 99

SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")
API_SERVICE_ADDRESS = str(SERVICE_NETWORK[1])
DNS_SERVICE_ADDRESS = str(SERVICE_NETWORK[10])
DNS_DOMAIN = "cluster.local"

POD_NETWORK = ipaddress.IPv4Network("10.244.0.0/16")
NODE_NETWORK = ipaddress.IPv4Network("172.31.255.0/24")
CONTROL_ADDRESS = str(NODE_NETWORK[1])
API_PORT = 6443
API_SERVER = f"https://{CONTROL_ADDRESS}:{API_PORT}"
NODE_BRIDGE = "node0"


def default_state() -> Path:
    """The state directory when none is named: $DWCP_SANDBOX_STATE or /var/lib/dwcp-sandbox."""
    return Path(os.environ.get("DWCP_SANDBOX_STATE", "/var/lib/dwcp-sandbox"))


def default_cache() -> Path:
    """The build cache when none is named: $DWCP_SANDBOX_CACHE or ~/.cache/dwcp-sandbox."""
    return Path(os.environ.get("DWCP_SANDBOX_CACHE", "~/.cache/dwcp-sandbox")).expanduser()


@dataclass(frozen=True, slots=True)
class Node:
    """One node; `number` counts from 1 and decides its name, address, subnet and zone."""

    number: int
    root: Path

    def __post_init__(self) -> None:
        if not 1 <= self.number <= NODES_MAX:
            raise SandboxError(f"nodes are numbered 1 to {NODES_MAX}, not {self.number}")

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def zone(self) -> str:
        return f"zone-{self.number}"

    @property
    def address(self) -> str:
        return str(NODE_NETWORK[10 + self.number])

    @property
    def pod_subnet(self) -> ipaddress.IPv4Network:
        """The /24 from which the pods of this node get their addresses."""
        return ipaddress.IPv4Network((int(POD_NETWORK[256 * self.number]), 24))

    @property
    def bridge(self) -> str:
        return f"cni{self.number}"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd.sock"

    @property
    def runtime_state(self) -> Path:
        """What a real machine keeps in /run: it does not outlive a power failure."""
        return self.root / "run"

    @property
    def kubelet_root(self) -> Path:
        return self.root / "kubelet"

    def volume(self, number: int) -> Path:
        return self.root / "volumes" / f"{number:02d}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Every name and path of the sandbox whose state is in the directory `state`."""

    state: Path

    def __post_init__(self) -> None:
        # The longest socket below, nodes/1/kubelet/pod-resources/kubelet.sock, must fit 107 bytes.
        if not self.state.is_absolute() or len(str(self.state)) > 60:
            raise SandboxError(
                f"--state {self.state}: use an absolute path of at most 60 characters"
            )

    @property
    def name(self) -> str:
        """The network namespace and the cgroup carry this name."""
        return f"dwcp-sandbox-{hashlib.sha256(bytes(self.state)).hexdigest()[:6]}"

    @property
    def namespace_file(self) -> Path:
        return Path("/run/netns") / self.name

    @property
    def enter(self) -> list[str]:
        """The words before a command that make it run inside the network namespace.

        Not `ip netns exec`: that mounts /sys anew, and hides the cgroups.
        """
        return ["nsenter", f"--net={self.namespace_file}", "--"]

    @property
    def record(self) -> Path:
        """The file that says what was started; its presence marks the directory as ours."""
        return self.state / "sandbox.json"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    @property
    def processes(self) -> Path:
        return self.state / "processes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig (group system:masters)."""
        return self.pki / "admin.kubeconfig"

    @property
    def resolv_conf(self) -> Path:
        return self.state / "resolv.conf"

    def node(self, number: int) -> Node:
        return Node(number, self.state / "nodes" / str(number))

    def nodes(self, count: int) -> list[Node]:
        """Nodes 1 to `count`."""
        return [self.node(number) for number in range(1, count + 1)]

    def node_named(self, name: str, count: int) -> Node:
        """The node called `name` among the first `count`; SandboxError lists the names."""
        found = {node.name: node for node in self.nodes(count)}
        if name not in found:
            raise SandboxError(f"there is no node {name}: use one of {', '.join(found)}")
        return found[name]
