"""The network of a sandbox: a namespace that nothing can leave, with a bridge for the nodes.

All nodes share the namespace, each with an address of its own on the node bridge and a bridge of
its own for its pods, so a pod reaches a pod of another node by plain forwarding. Destinations
outside are unreachable at once, rather than after a timeout.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sandbox.layout import (
    CONTROL_ADDRESS,
    NODE_BRIDGE,
    NODE_NETWORK,
    SERVICE_NETWORK,
    Layout,
    Node,
)
from sandbox.shell import CommandError, SandboxError, run

CLONE_NEWNET = 0x40000000  # <sched.h>; os.setns exists only from Python 3.12
T = TypeVar("T")

# Forwarding joins the bridges; without bridge-nf-call, an answer between two pods of one node
# would pass the bridge below the rules that undo the Service's address translation.
SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/bridge/bridge-nf-call-iptables": "1",
}


def ip_batch(nodes: Sequence[Node]) -> str:
    """The `ip -batch` script that sets up the namespace; every line may be repeated safely."""
    prefix = NODE_NETWORK.prefixlen
    addresses = [CONTROL_ADDRESS, *(node.address for node in nodes)]
    return "\n".join(
        [
            "link set lo up",
            *(f"address replace {a}/{prefix} dev {NODE_BRIDGE}" for a in addresses),
            f"link set {NODE_BRIDGE} up",
            # A connection to a Service needs a route before its address is translated.
            f"route replace {SERVICE_NETWORK} dev {NODE_BRIDGE}",
            "route replace unreachable default",
            "",
        ]
    )


def create(layout: Layout, nodes: Sequence[Node]) -> None:
    """Make the namespace, the node bridge and the nodes' addresses, or complete them."""
    if not layout.namespace_file.exists():
        run(["ip", "netns", "add", layout.name])
    try:
        run(["ip", "-n", layout.name, "link", "show", NODE_BRIDGE])
    except CommandError:
        run(["ip", "-n", layout.name, "link", "add", NODE_BRIDGE, "type", "bridge"])
    run(["ip", "-n", layout.name, "-batch", "-"], stdin=ip_batch(nodes))
    inside(layout, _set_sysctls)


def _set_sysctls() -> None:
    for name, value in SYSCTLS.items():
        path = Path("/proc/sys") / name  # a thread sees its own namespace's there
        if not path.exists():
            raise SandboxError(f"the kernel has no {name}: try `modprobe br_netfilter`")
        path.write_text(value)


def remove(layout: Layout) -> None:
    """Remove the namespace; interfaces, routes and rules in it go with its last process."""
    if layout.namespace_file.exists():
        run(["ip", "netns", "delete", layout.name])


def strangers(layout: Layout) -> list[int]:
    """The ids of processes inside the namespace."""
    if not layout.namespace_file.exists():
        return []
    return [int(word) for word in run(["ip", "netns", "pids", layout.name]).split()]


def inside(layout: Layout, action: Callable[[], T]) -> T:
    """Call `action` on a thread that is inside the namespace, and return what it returns.

    Only that thread enters. A socket that it makes stays in the namespace, and works from
    any thread.
    """

    def enter_and_call() -> T:
        with layout.namespace_file.open("rb") as file:
            _setns(file.fileno())
        return action()

    with ThreadPoolExecutor(max_workers=1) as once:
        return once.submit(enter_and_call).result()


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def connect(layout: Layout, host: str, port: int, timeout_s: float = 5.0) -> socket.socket:
    """A TCP connection from inside the namespace, for example to a Service's or pod's address."""
    return inside(layout, lambda: socket.create_connection((host, port), timeout_s))
