"""One sandbox with the operator in it for all tests here, started when the first one asks.

    sudo env PYTHONPATH=tests .venv/bin/pytest -m kube tests/kube

DWCP_KUBE_KEEP=1 leaves it up for the next run. A sandbox that was up before stays up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kube import product, reliability
from kube.product import Cluster
from sandbox.cluster import Sandbox
from sandbox.shell import SandboxError


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    if os.geteuid() != 0:
        how = "needs root: sudo env PYTHONPATH=tests .venv/bin/pytest -m kube tests/kube"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{how}; in CI a skip is a failure")
        pytest.skip(how)
    found = Sandbox()
    was_up = found.layout.record.exists()
    product.up(found)
    yield found
    reliability.finish()
    if not was_up and os.environ.get("DWCP_KUBE_KEEP") != "1":
        product.down(found)


@pytest.fixture(scope="session")
def image(sandbox: Sandbox) -> str:
    return product.image_tag()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:  # type: ignore[misc]
    report = yield
    if report.failed and call.when != "teardown" and "sandbox" in getattr(item, "funcargs", {}):
        directory = Path(os.environ.get("DWCP_KUBE_LOGS", "/tmp/dwcp-kube-logs")) / item.name
        try:
            item.funcargs["sandbox"].logs_on_failure(directory)
            report.sections.append(("sandbox", f"logs are in {directory}"))
        except SandboxError as error:
            report.sections.append(("sandbox", f"no logs: {error}"))
    return report


@pytest.fixture(scope="module")
def namespace(request: pytest.FixtureRequest, sandbox: Sandbox) -> Iterator[str]:
    """A namespace of the test module's own, emptied at the end."""
    name = request.module.__name__.rsplit(".", 1)[-1].replace("_", "-")
    product.make_namespace(sandbox, name)
    yield name
    product.remove_namespace(sandbox, name)


Make = Callable[..., Cluster]


@pytest.fixture(scope="module")
def make(sandbox: Sandbox, namespace: str) -> Make:
    """Apply a DWCPCluster in the module's namespace."""

    def apply(name: str, **spec: object) -> Cluster:
        sandbox.recycle_volumes()
        sandbox.apply(
            {
                "apiVersion": "dwcp.dev/v1alpha1",
                "kind": "DWCPCluster",
                "metadata": {"name": name, "namespace": namespace},
                "spec": spec,
            }
        )
        return Cluster(sandbox, namespace, name)

    return apply
