"""What `dwcp up`, `down` and `status` refuse, without starting a replica."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dwcp.cli.cluster import down, status, up

HEAD = "apiVersion: dwcp.dev/v1alpha1\nkind: DWCPCluster\nmetadata:\n  name: demo\n"


def run_up(*arguments: str) -> Result:
    return CliRunner().invoke(up, list(arguments))


def test_a_bad_manifest_says_what_to_write_and_makes_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "demo.yaml"
    manifest.write_text(HEAD + "spec:\n  replicas: 5\n")
    result = run_up("-f", str(manifest), "--data", str(tmp_path / "d"))
    assert result.exit_code == 2
    assert result.stderr == f"Error: {manifest}:6: spec.replicas=5 is not 3f+1: use 4 or 7\n"
    assert not (tmp_path / "d").exists()


def test_a_missing_manifest(tmp_path: Path) -> None:
    result = run_up("-f", str(tmp_path / "no.yaml"), "--data", str(tmp_path / "d"))
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_up_without_a_manifest_needs_a_cluster(tmp_path: Path) -> None:
    result = run_up("--data", str(tmp_path / "d"))
    assert result.exit_code == 3
    assert "no such data directory" in result.stderr
    assert "dwcp up -f FILE" in result.stderr


def test_a_directory_that_holds_something_else(tmp_path: Path) -> None:
    manifest = tmp_path / "demo.yaml"
    manifest.write_text(HEAD + "spec: {}\n")
    result = run_up("-f", str(manifest), "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "holds something else" in result.stderr


@pytest.mark.parametrize("text", ["0s", "-1s", "soon", "1h"])
def test_bad_timeouts(text: str) -> None:
    result = run_up("--timeout", text)
    assert result.exit_code == 2
    assert "write 60s, 500ms or 2m" in result.stderr


@pytest.mark.parametrize("command", [down, status])
def test_no_such_directory(command: object, tmp_path: Path) -> None:
    assert command in (down, status)
    result = CliRunner().invoke(command, ["--data", str(tmp_path / "d")])  # type: ignore[arg-type]
    assert result.exit_code == 3
    assert "no such data directory" in result.stderr


@pytest.mark.parametrize("command", [down, status])
def test_not_a_data_directory(command: object, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["--data", str(tmp_path)])  # type: ignore[arg-type]
    assert result.exit_code == 3
    assert "is not a data directory of dwcp" in result.stderr


# --- Kubernetes --------------------------------------------------------------------------------

RESOURCE = {
    "metadata": {"name": "demo", "namespace": "prod"},
    "spec": {"replicas": 4},
    "status": {
        "mode": "Internet",
        "epoch": 0,
        "view": 7,
        "primary": "demo-2",
        "ready": "4/4",
        "members": [
            {
                "name": "demo-0",
                "id": 0,
                "role": "backup",
                "ready": True,
                "endpoint": "http://x",
                "suspicion": "silent",
            }
        ],
        "lastSwitch": {
            "before": "Datacenter",
            "after": "Internet",
            "reason": "network",
            "index": 70,
            "time": "2026-01-01T00:00:00Z",
            "roundTripUs": 120_000,
            "ofANewerOperator": 1,
        },
        "conditions": [
            {"type": "Available", "status": "True", "reason": "QuorumVotes", "message": "4 of 4"}
        ],
    },
}


class _Api(BaseHTTPRequestHandler):
    """Answers as an API server does for one resource."""

    def do_GET(self) -> None:
        known = self.path == "/apis/dwcp.dev/v1alpha1/namespaces/prod/dwcpclusters/demo"
        body = json.dumps(RESOURCE if known else {"kind": "Status", "code": 404}).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    path = tmp_path / "config"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "c",
                        "cluster": {"server": f"http://127.0.0.1:{server.server_port}"},
                    }
                ],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    monkeypatch.setenv("KUBECONFIG", str(path))
    yield path
    server.shutdown()
    thread.join(10)
    server.server_close()


def run_status(*arguments: str) -> Result:
    return CliRunner().invoke(status, list(arguments))


def test_status_of_a_resource(kubeconfig: Path) -> None:
    result = run_status("--cluster", "demo", "-n", "prod", "-o", "json")
    assert result.exit_code == 0, result.output
    tree = json.loads(result.stdout)
    assert (tree["cluster"], tree["namespace"], tree["view"]) == ("demo", "prod", 7)
    assert (tree["mode"], tree["epoch"], tree["primary"]) == ("Internet", 0, "demo-2")
    assert tree["members"][0]["pid"] is None
    table = run_status("--cluster", "demo", "-n", "prod").stdout
    assert "prod/demo  mode Internet  epoch 0  view 7  primary demo-2" in table
    assert "Available" in table


def test_who_is_suspected_and_the_last_decision_are_said(kubeconfig: Path) -> None:
    result = run_status("--cluster", "demo", "-n", "prod")
    assert result.exit_code == 0, result.output
    assert "demo-0: suspicion: silent" in result.stdout
    decided = "Datacenter to Internet at index 70 (network): round trip 120.00 ms"
    assert f"mode decided last: {decided}" in result.stdout


def test_a_resource_that_is_not_there(kubeconfig: Path) -> None:
    result = run_status("--cluster", "demo", "-n", "elsewhere")
    assert result.exit_code == 3
    assert "no DWCPCluster demo in namespace elsewhere" in result.stderr


def test_no_kubernetes_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    result = run_status("--cluster", "demo")
    assert result.exit_code == 3
    assert "no Kubernetes configuration" in result.stderr


def test_one_place_at_a_time(tmp_path: Path) -> None:
    result = run_status("--cluster", "demo", "--data", str(tmp_path))
    assert result.exit_code == 2
    assert "give one" in result.stderr
