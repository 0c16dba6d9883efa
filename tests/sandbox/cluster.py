"""A sandbox as a Python object: what tests and the command line use once it is up."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sandbox import binaries, diagnostics, dns, network, node, pki, record, storage
from sandbox.layout import Layout, Node, default_cache, default_state
from sandbox.processes import Processes
from sandbox.shell import SandboxError, run, wait_until, write_file

TOKEN_DURATION = "24h"


class Sandbox:
    """The sandbox in a state directory; making the object does nothing to the machine."""

    def __init__(self, state_dir: Path | None = None, cache_dir: Path | None = None) -> None:
        self.layout = Layout((state_dir or default_state()).resolve())
        self.cache = (cache_dir or default_cache()).resolve()
        self.processes = Processes(self.layout.processes, self.layout.logs)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; it works inside the namespace, see `enter`."""
        return self.layout.kubeconfig

    @property
    def enter(self) -> list[str]:
        """Words to put before a command to run it inside the network namespace."""
        return self.layout.enter

    @property
    def programs(self) -> Path:
        """The directory of kubectl, helm, kubeconform and the components.

        That with which the sandbox was started, or would be.
        """
        found = record.read(self.layout)
        return binaries.directory(self.cache) if found is None else Path(found.programs)

    @property
    def nodes(self) -> list[Node]:
        """The nodes, stopped ones too; SandboxError when there is no sandbox."""
        return self.layout.nodes(record.require_nodes(self.layout))

    def environment(self) -> dict[str, str]:
        """Variables with which kubectl, helm and client libraries find the sandbox."""
        home = self.layout.state / "helm"
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "NO_PROXY": "*",
            "no_proxy": "*",
            "HELM_CACHE_HOME": str(home / "cache"),
            "HELM_CONFIG_HOME": str(home / "config"),
            "HELM_DATA_HOME": str(home / "data"),
        }

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """Run kubectl as administrator and return its output; CommandError when it fails."""
        return self._tool("kubectl", *words, stdin=stdin, timeout_s=timeout_s)

    def helm(self, *words: str | Path, timeout_s: float = 120.0) -> str:
        """Run helm as administrator and return its output; CommandError when it fails."""
        return self._tool("helm", *words, stdin=None, timeout_s=timeout_s)

    def _tool(self, name: str, *words: str | Path, stdin: str | None, timeout_s: float) -> str:
        record.require_nodes(self.layout)
        command = [*self.enter, self.programs / name, *words]
        return run(command, stdin=stdin, env=self.environment(), timeout_s=timeout_s)

    def get(self, *words: str) -> Any:
        """`kubectl get WORDS` as parsed JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def apply(self, manifest: Any) -> None:
        """Apply an object or a List, given as Python data, on the server's side."""
        text = json.dumps(manifest)
        self.kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=text)

    def wait(self, *words: str, timeout_s: float = 60.0) -> None:
        """`kubectl wait WORDS`, as in wait("pod/x", "--for=condition=Ready", "-n", "y")."""
        self.kubectl("wait", *words, f"--timeout={timeout_s:.0f}s", timeout_s=timeout_s + 10)

    def wait_until(self, missing: Callable[[], str], timeout_s: float = 60.0) -> None:
        """Return when `missing()` is empty; it says what is still missing. Bounded."""
        wait_until(missing, timeout_s=timeout_s)

    def connect(self, host: str, port: int) -> socket.socket:
        """A TCP connection from inside the namespace: a Service's, pod's or node's address."""
        return network.connect(self.layout, host, port)

    def resolve(self, name: str) -> list[str]:
        """The IPv4 addresses that cluster DNS gives for `name`."""
        return dns.resolve(self.layout, name)

    def load_image(self, archive: Path) -> None:
        """Import an OCI archive into every node that runs."""
        if not archive.exists():
            raise SandboxError(f"there is no {archive}: `build-image` prints the path of one")
        running = [n for n in self.nodes if self.processes.alive(node.process_names(n)[0])]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda n: node.load_image(n, archive), running))

    def stop_node(self, name: str) -> None:
        """Take the power from a node: its kubelet, containerd and pods end at once."""
        found = self.layout.node_named(name, len(self.nodes))
        node.power_off(self.layout, found, self.processes)

    def start_node(self, name: str, timeout_s: float = 60.0) -> None:
        """Start a stopped node again and wait until it is Ready."""
        found = self.layout.node_named(name, len(self.nodes))
        node.start_runtime(self.layout, found, self.processes)
        node.start_kubelet(self.layout, found, self.programs, self.processes)
        self.wait_until(lambda: self.unready([found]), timeout_s)

    def unready(self, nodes: list[Node]) -> str:
        """The names of `nodes` whose Ready condition is not True; empty when all are."""
        ready = {
            item["metadata"]["name"]
            for item in self.get("nodes")["items"]
            for condition in item.get("status", {}).get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }
        waiting = [n.name for n in nodes if n.name not in ready]
        return f"Ready of {', '.join(waiting)}" if waiting else ""

    def recycle_volumes(self) -> int:
        """Wipe and make anew the volumes whose claims are gone; return how many these were."""
        names = storage.spent(self.get("pv", f"--selector={storage.LABEL}")["items"])
        if not names:
            return 0
        self.kubectl("delete", "pv", *names)
        volumes = [storage.parse_volume_name(self.layout, name) for name in names]
        for owner, number in volumes:
            storage.wipe(owner, number)
        items = [storage.volume(owner, number) for owner, number in volumes]
        self.apply({"apiVersion": "v1", "kind": "List", "items": items})
        return len(names)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig with the rights of a service account, good for 24 hours."""
        words = ["token", name, f"--namespace={namespace}", f"--duration={TOKEN_DURATION}"]
        token = self.kubectl("create", *words).strip()
        path = self.layout.pki / "service-accounts" / f"{namespace}.{name}.kubeconfig"
        write_file(path, pki.token_kubeconfig(self.layout, token), mode=0o600)
        return path

    def logs_on_failure(self, destination: Path) -> Path:
        """Gather what explains a failure in the directory `destination`, and return it."""
        diagnostics.gather(self, destination)
        return destination
