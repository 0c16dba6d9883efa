"""`up`: every step looks first, so that it completes a half-made sandbox and passes a whole one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox import (
    binaries,
    cgroups,
    control_plane,
    dns,
    network,
    node,
    packages,
    pki,
    record,
    storage,
    teardown,
)
from sandbox.cluster import Sandbox
from sandbox.images import COMPONENT_IMAGES, Images
from sandbox.layout import API_SERVICE_ADDRESS, DNS_DOMAIN, NODES_MAX, VOLUMES_MAX, Node
from sandbox.processes import boot_id
from sandbox.shell import CommandError, SandboxError, say, step, wait_until, write_file

DNS_REPLICAS_MAX = 2
ASKED_EACH = 4
API_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 90.0
PROBE_NAME = f"kubernetes.default.svc.{DNS_DOMAIN}"


def up(sandbox: Sandbox, nodes: int, volumes: int, archives: Sequence[Path]) -> None:
    """Bring the sandbox up with `nodes` nodes and `volumes` volumes per node and access mode.

    A sandbox that is up and healthy is left as it is. One of another boot, other programs or
    more nodes is taken down first. `archives` are imported into every node.
    """
    started = time.monotonic()
    _check(nodes, volumes, archives)
    packages.require_root()
    packages.extend_path()
    packages.ensure()
    packages.ensure_kernel()
    programs = binaries.ensure(sandbox.cache)
    images = Images(sandbox.cache).components(programs)
    with record.locked(sandbox.layout):
        _clear_stale(sandbox, nodes, volumes)
        if _healthy(sandbox, nodes):
            say(f"{nodes} nodes are up")
        else:
            _start(sandbox, record_for(sandbox, nodes, volumes), [*images])
        for archive in archives:
            with step(f"load {archive.name}"):
                sandbox.load_image(archive)
    say(f"up after {time.monotonic() - started:.1f} s; kubeconfig {sandbox.kubeconfig}")


def _check(nodes: int, volumes: int, archives: Sequence[Path]) -> None:
    if not 1 <= nodes <= NODES_MAX:
        raise SandboxError(f"--nodes {nodes}: use 1 to {NODES_MAX}")
    if not 0 <= 2 * volumes <= VOLUMES_MAX:
        raise SandboxError(f"--volumes {volumes}: use 0 to {VOLUMES_MAX // 2}")
    for archive in archives:
        if not archive.is_file():
            raise SandboxError(f"--image-tar {archive}: there is no such file")


def _clear_stale(sandbox: Sandbox, nodes: int, volumes: int) -> None:
    """Take down what can not be completed to what is wanted."""
    found = record.read(sandbox.layout)
    if found is None:
        reason = "of which only a part is left" if teardown.leftovers(sandbox.layout) else ""
    elif found.boot != boot_id():
        reason = "of an earlier boot"
    elif found.programs != str(binaries.directory(sandbox.cache)):
        reason = "with other programs"
    elif found.nodes > nodes:
        reason = f"with {found.nodes} nodes"
    elif found.volumes != volumes:
        reason = "with another number of volumes"
    else:
        reason = ""
    if reason:
        say(f"taking down a sandbox {reason}")
        teardown.clear(sandbox.layout, sandbox.processes)


def record_for(sandbox: Sandbox, nodes: int, volumes: int) -> record.Record:
    """The record with what is wanted; how the machine was before is kept from an earlier one."""
    found = record.read(sandbox.layout)
    if found is None:
        tunables, absent = record.machine_before()
    else:
        tunables, absent = found.tunables, found.absent
    programs = str(binaries.directory(sandbox.cache))
    return record.Record(nodes, volumes, programs, tunables=tunables, absent=absent)


def _healthy(sandbox: Sandbox, nodes: int) -> bool:
    """Whether everything runs and answers: then there is nothing to do."""
    found = record.read(sandbox.layout)
    if found is None or found.nodes != nodes:
        return False
    wanted = sandbox.layout.nodes(nodes)
    names = [*control_plane.ORDER, *(name for n in wanted for name in node.process_names(n))]
    if not all(sandbox.processes.alive(name) for name in names):
        return False
    try:
        return not sandbox.unready(wanted) and not _dns_missing(sandbox)
    except CommandError:
        return False


def _start(sandbox: Sandbox, wanted: record.Record, images: Sequence[Path]) -> None:
    layout = sandbox.layout
    nodes = layout.nodes(wanted.nodes)
    record.write(layout, wanted)
    write_file(layout.resolv_conf, "# no name servers: pods have cluster DNS, or none\n")
    with step("network namespace and certificates"):
        network.create(layout, nodes)
        pki.create(layout, nodes)
        storage.make_directories(nodes, wanted.volumes)
        cgroups.create(_control_group(sandbox))
    outage = _stop_watchers(sandbox, nodes)
    with ThreadPoolExecutor(max_workers=len(nodes)) as pool:
        runtimes = [pool.submit(_start_runtime, sandbox, n, images) for n in nodes]
        with step("API server"):
            _start_components(sandbox, ("etcd", "kube-apiserver"))
            wait_until(lambda: _api_missing(sandbox), timeout_s=API_TIMEOUT_S)
        _start_components(sandbox, control_plane.ORDER[2:])
        with step("containerd and the sandbox's images"):
            for runtime in runtimes:
                runtime.result()
    for n in nodes:
        node.start_kubelet(layout, n, sandbox.programs, sandbox.processes)
    with step("volumes and cluster DNS objects"):
        sandbox.apply(storage.manifest(nodes, wanted.volumes))
        sandbox.apply(dns.manifest(min(DNS_REPLICAS_MAX, wanted.nodes)))
    with step(f"{wanted.nodes} nodes Ready"):
        wait_until(lambda: _nodes_missing(sandbox, nodes), timeout_s=READY_TIMEOUT_S)
    if outage:
        sandbox.kubectl("delete", "pod", f"--selector={dns.SELECTOR}", f"-n={dns.NAMESPACE}")
    with step("cluster DNS answers"):
        wait_until(lambda: _dns_missing(sandbox), timeout_s=READY_TIMEOUT_S)
    with step("cluster DNS learns new names"):
        _wait_for_news(sandbox)


def _stop_watchers(sandbox: Sandbox, nodes: list[Node]) -> bool:
    """Whether the API server was away: then what watched it ends, to be started anew.

    Its clients wait ever longer before they watch again, and go by what they knew: a node would
    stay NotReady and a new name unknown for two minutes. A fresh kubelet stops no pod.
    """
    alive = sandbox.processes.alive
    watchers = [*control_plane.ORDER[2:], *(node.process_names(n)[1] for n in nodes)]
    outage = not alive("kube-apiserver") and any(alive(name) for name in watchers)
    if outage:
        for name in watchers:
            sandbox.processes.stop(name, grace_s=2.0)
    return outage


def _control_group(sandbox: Sandbox) -> str:
    return f"{sandbox.layout.name}/control-plane"


def _start_components(sandbox: Sandbox, names: Sequence[str]) -> None:
    for name in names:
        program, *arguments = control_plane.COMMANDS[name](sandbox.layout)
        command: list[str | Path] = [*sandbox.enter, sandbox.programs / program, *arguments]
        sandbox.processes.start(name, command, _control_group(sandbox))


def _start_runtime(sandbox: Sandbox, target: Node, images: Sequence[Path]) -> None:
    node.start_runtime(sandbox.layout, target, sandbox.processes)
    if not node.image_names(target) >= COMPONENT_IMAGES.keys():
        for image in images:
            node.load_image(target, image)


def _api_missing(sandbox: Sandbox) -> str:
    sandbox.processes.require("etcd", "kube-apiserver")
    try:
        sandbox.kubectl("get", "--raw", "/readyz", timeout_s=5.0)
    except CommandError as error:
        return f"readiness of the API server: {error.output or error}"
    return ""


def _nodes_missing(sandbox: Sandbox, nodes: list[Node]) -> str:
    names = [name for n in nodes for name in node.process_names(n)]
    sandbox.processes.require(*control_plane.ORDER, *names)
    return sandbox.unready(nodes)


def _wait_for_news(sandbox: Sandbox) -> None:
    """Until cluster DNS knows a Service made now.

    CoreDNS answers from what it knew until its watch has begun.
    """
    name = f"dns-probe-{secrets.token_hex(4)}"
    sandbox.apply(dns.probe(name))
    try:
        wait_until(lambda: _name_missing(sandbox, name), timeout_s=READY_TIMEOUT_S)
    finally:
        sandbox.kubectl("delete", "service", name, f"--namespace={dns.NAMESPACE}")


def _name_missing(sandbox: Sandbox, service: str) -> str:
    name = f"{service}.{dns.NAMESPACE}.svc.{DNS_DOMAIN}"
    for _ in range(ASKED_EACH * DNS_REPLICAS_MAX):  # any of its pods may answer
        try:
            if not sandbox.resolve(name):
                return f"{name} is not known yet"
        except SandboxError as error:
            return str(error)
    return ""


def _dns_missing(sandbox: Sandbox) -> str:
    """Cluster DNS must know the API server's Service; this also proves kube-proxy's rules."""
    wanted = sandbox.get("deployment", "coredns", f"--namespace={dns.NAMESPACE}")
    ready = wanted.get("status", {}).get("readyReplicas", 0)
    if ready < wanted["spec"]["replicas"]:
        return f"pods of CoreDNS: {ready} of {wanted['spec']['replicas']} are ready"
    try:
        addresses = sandbox.resolve(PROBE_NAME)
    except SandboxError as error:
        return str(error)
    if addresses != [API_SERVICE_ADDRESS]:
        return f"{PROBE_NAME} resolves to {addresses}, not to {API_SERVICE_ADDRESS}"
    return ""
