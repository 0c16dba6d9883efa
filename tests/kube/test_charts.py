"""The charts: clean, valid for the API server, and with rights where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kube import product
from kube.conftest import Make
from kube.product import RELEASE, ROOT, SYSTEM, Cluster
from sandbox.cluster import Sandbox
from sandbox.shell import CommandError

pytestmark = [pytest.mark.kube, pytest.mark.timeout(600)]

CHARTS = ROOT / "charts"
SNAPSHOTS = Path(__file__).with_name("charts")
ACCOUNT = f"--as=system:serviceaccount:{SYSTEM}:{RELEASE}"


def test_helm_finds_nothing_to_say(sandbox: Sandbox) -> None:
    sandbox.helm("lint", "--strict", *sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")))


@pytest.mark.parametrize("path", sorted(SNAPSHOTS.glob("*.yaml")), ids=lambda p: p.stem)
def test_templates_render_as_reviewed(sandbox: Sandbox, path: Path, rewrite: bool) -> None:
    """The first line of a snapshot names the chart and what is set."""
    first = path.read_text().splitlines()[0]
    chart, *values = first.removeprefix("# ").split()
    words = ["template", "trial", CHARTS / chart, "-n=somewhere", *(f"--set={v}" for v in values)]
    made = f"{first}\n{sandbox.helm(*words)}"
    if rewrite:
        path.write_text(made)
    assert made == path.read_text(), "repeat with --rewrite, then read the diff"


@pytest.mark.parametrize(
    "values", [[], ['--set-json=namespaces=["a","b"]'], ["--set=image.digest="]], ids=str
)
def test_the_api_server_takes_what_the_chart_makes(sandbox: Sandbox, values: list[str]) -> None:
    for name in ("a", "b"):
        product.make_namespace(sandbox, name)
    text = sandbox.helm("template", "trial", CHARTS / "dwcp-operator", f"-n={SYSTEM}", *values)
    dry = ("apply", "--server-side", "--dry-run=server", "--filename=-")
    sandbox.kubectl(*dry, stdin=text)


@pytest.mark.parametrize(
    "bad", ["replicas=3", "volumeAccessMode=Any", "image.repository=", "unknown=1"]
)
def test_values_that_do_not_do_are_refused(sandbox: Sandbox, bad: str) -> None:
    with pytest.raises(CommandError, match=r"values don't meet|schema"):
        sandbox.helm("template", "trial", CHARTS / "dwcp-operator", f"--set={bad}")


@pytest.mark.parametrize("bad", ["replicas=5", "upgrade.rolback=true", "mode=Fast"])
def test_a_cluster_that_does_not_do_is_refused_before_it_is_sent(
    sandbox: Sandbox, bad: str
) -> None:
    with pytest.raises(CommandError, match=r"values don't meet|schema"):
        sandbox.helm("template", "trial", CHARTS / "dwcp-cluster", f"--set={bad}")


def may(sandbox: Sandbox, *words: str) -> bool:
    """kubectl says no by its exit code; that it can say yes is asked beside."""
    try:
        sandbox.kubectl("auth", "can-i", "--quiet", *words, ACCOUNT)
    except CommandError:
        return False
    return True


@pytest.mark.parametrize(
    "forbidden",
    [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("delete", "persistentvolumeclaims"),
        ("list", "configmaps"),
        ("delete", "serviceaccounts"),
        ("update", "dwcpclusters.dwcp.dev"),
        ("create", "pods", "--subresource=exec"),
        ("create", "roles.rbac.authorization.k8s.io"),
        ("get", "nodes"),
        ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ],
    ids=" ".join,
)
def test_the_operator_may_not_do_what_it_need_not(
    sandbox: Sandbox, forbidden: tuple[str, ...]
) -> None:
    assert may(sandbox, "create", "pods", "--namespace=default"), "the question is put right"
    assert not may(sandbox, *forbidden, "--namespace=default")


@pytest.fixture
def scoped(sandbox: Sandbox, image: str, namespace: str) -> Iterator[None]:
    product.install(sandbox, image, namespaces=[namespace])
    yield
    product.install(sandbox, image)


def test_with_namespaces_it_works_there_and_has_no_rights_elsewhere(
    sandbox: Sandbox, make: Make, namespace: str, scoped: None
) -> None:
    cluster = make("scoped")
    cluster.wait_available(60)
    assert may(sandbox, "create", "pods", f"--namespace={namespace}")
    assert not may(sandbox, "create", "pods", "--namespace=default")
    assert not may(sandbox, "list", "dwcpclusters.dwcp.dev", "--namespace=default")
    other = Cluster(sandbox, "default", "elsewhere")
    sandbox.apply(
        {
            "apiVersion": "dwcp.dev/v1alpha1",
            "kind": "DWCPCluster",
            "metadata": {"name": "elsewhere", "namespace": "default"},
            "spec": {},
        }
    )
    cluster.wait_all_ready()
    assert "status" not in other.raw()
    sandbox.kubectl("delete", "dwcpcluster", "elsewhere", "--namespace=default")
    sandbox.kubectl("delete", "dwcpcluster", "scoped", cluster.where)
