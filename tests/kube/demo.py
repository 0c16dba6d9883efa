"""The main job on real Kubernetes, step by step, with the seconds each took.

    sudo env PYTHONPATH=tests .venv/bin/python -m kube.demo          # or: make kube-demo
    sudo env PYTHONPATH=tests .venv/bin/python -m kube.demo down     # or: make kube-down

The cluster stays up to be looked at.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kube import product, victims
from kube.product import ROOT, Cluster
from sandbox.cluster import Sandbox
from sandbox.shell import SandboxError, say

AVAILABLE_S_MAX = 20.0
VIEW_S_MAX = 5.0
KUBECTL = "sudo env PYTHONPATH=tests .venv/bin/python -m sandbox kubectl"


@dataclass
class Table:
    """What was shown, and how long it took."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    def step(self, what: str, act: Callable[[], object], limit_s: float | None = None) -> None:
        """Do one thing; with a limit, it must not take longer."""
        say(f"== {what}")
        began = time.monotonic()
        shown = act()
        took_s = time.monotonic() - began
        self.rows.append((what, took_s, str(shown or "")))
        if limit_s is not None and took_s > limit_s:
            raise SandboxError(f"{what}: took {took_s:.1f} s, and at most {limit_s:.0f} s are good")

    def print(self) -> None:
        """The table."""
        width = max(len(what) for what, _, _ in self.rows)
        print()
        for what, took_s, shown in self.rows:
            print(f"  {what:<{width}}  {took_s:6.1f} s  {shown}")
        print()


def demo(sandbox: Sandbox) -> None:
    """Everything from an empty machine to a cluster that has lost two primaries."""
    table, cluster = Table(), Cluster(sandbox, "default", "quickstart")
    table.step("Kubernetes, image, operator", lambda: product.up(sandbox))
    clear(cluster)
    table.step("apply until Available", lambda: apply(cluster), AVAILABLE_S_MAX)
    table.step("all members vote", lambda: ready(cluster))
    table.step("a client's pod", lambda: cluster.start_client(product.image_tag()))
    table.step("it writes and reads", lambda: write_and_read(cluster, "blue"))
    table.step("SIGKILL to the primary: new view", lambda: kill(cluster), VIEW_S_MAX)
    table.step("it writes and reads", lambda: write_and_read(cluster, "green"))
    table.step("the killed one is back", lambda: ready(cluster))
    table.step("the primary's pod deleted: new view", lambda: delete(cluster), VIEW_S_MAX)
    table.step("it writes and reads", lambda: write_and_read(cluster, "red"))
    table.step("back on its volume, caught up", lambda: ready(cluster))
    print(sandbox.kubectl("get", "dwcpclusters,pods,pvc"))
    events = ("events", "--for=dwcpcluster/quickstart")
    print(sandbox.kubectl(*events))
    table.print()
    print(f"It stays up. Look:  {KUBECTL} describe dwcpcluster quickstart")
    print("Remove everything:  make kube-down")


def clear(cluster: Cluster) -> None:
    """Remove what an earlier run left: the demo begins with an empty cluster."""
    if cluster.sandbox.get("dwcpclusters", cluster.where)["items"]:
        cluster.sandbox.kubectl("delete", "dwcpcluster,pod", "--all", cluster.where)
    cluster.sandbox.kubectl("delete", "pvc,secret", "--all", cluster.where)
    cluster.sandbox.recycle_volumes()


def apply(cluster: Cluster) -> str:
    """kubectl apply, kubectl wait."""
    cluster.sandbox.kubectl("apply", "-f", ROOT / "examples" / "quickstart.yaml")
    cluster.wait_available(60)
    return "condition=Available"


def ready(cluster: Cluster) -> str:
    """Until all members vote, without lag."""
    cluster.wait_all_ready(60)
    status = cluster.status()
    return f"{status['ready']} in view {status['view']}, primary {status['primary']}"


def write_and_read(cluster: Cluster, value: str) -> str:
    """Two commands in the client's pod."""
    cluster.put("colour", value)
    seen = cluster.get("colour")
    if seen != value:
        raise SandboxError(f"colour is {seen!r}, and {value!r} was written")
    return f"colour={seen}"


def kill(cluster: Cluster) -> str:
    """SIGKILL to the primary's process, then wait for another primary."""
    status = cluster.status()
    victims.replica(cluster.namespace, status["primary"]).kill()
    return until_led(cluster, status)


def delete(cluster: Cluster) -> str:
    """Delete the primary's pod, then wait for another primary."""
    status = cluster.status()
    cluster.sandbox.kubectl("delete", "pod", status["primary"], cluster.where, "--wait=false")
    return until_led(cluster, status)


def until_led(cluster: Cluster, before: dict[str, object]) -> str:
    """Until f+1 members agree on a later view."""
    view = before["view"]
    assert isinstance(view, int)
    cluster.sandbox.wait_until(lambda: cluster.lead_changed(view), 30)
    after = cluster.status()
    return f"view {view} ({before['primary']}) -> view {after['view']} ({after['primary']})"


def main() -> int:
    """`down` removes everything; otherwise the demo."""
    act = {(): demo, ("down",): product.down}.get(tuple(sys.argv[1:]))
    if act is None:
        print("usage: python -m kube.demo [down]", file=sys.stderr)
        return 2
    try:
        act(Sandbox())
    except SandboxError as error:
        print(f"kube-demo: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
