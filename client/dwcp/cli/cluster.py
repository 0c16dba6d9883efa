"""`dwcp up`, `dwcp down`, `dwcp status`: a cluster on this machine, or one on Kubernetes."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from dwcp_operator.local.layout import Layout, Lock
    from dwcp_operator.resources import ClusterStatus, DWCPCluster

EXIT_REFUSED: Final = 1
EXIT_BAD_MANIFEST: Final = 2
EXIT_NO_CLUSTER: Final = 3
_COLUMNS: Final = (
    "NAME",
    "ID",
    "ROLE",
    "MODE",
    "READY",
    "HEALTHY",
    "APPLIED",
    "LAG",
    "PID",
    "ENDPOINT",
)


class _Seconds(click.ParamType[float]):
    """A duration such as 60s, 500ms, 2m or a bare number of seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m)?", str(value))
        if match is None or float(match[1]) <= 0:
            self.fail(f"{value} is not a duration: write 60s, 500ms or 2m", param, ctx)
        return float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0}[match[2] or "s"]


_data_option = click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="The local cluster's directory.",
)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise click.exceptions.Exit(code)


# --- up --------------------------------------------------------------------------------------


@click.command()
@click.option(
    "-f",
    "--file",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The manifest (a DWCPCluster); not needed to bring a cluster up again.",
)
@_data_option
@click.option("--detach", is_flag=True, help="Leave the supervisor running in the background.")
@click.option(
    "--timeout",
    "timeout_s",
    type=_Seconds(),
    default="60s",
    show_default=True,
    help="How long the cluster may take until it is available.",
)
@click.option("--allow-test-strategies", is_flag=True, hidden=True)
def up(
    file: Path | None,
    data_dir: Path,
    *,
    detach: bool,
    timeout_s: float,
    allow_test_strategies: bool,
) -> None:
    """Start a cluster on this machine, or bring it up again.

    In the foreground it prints one line per event; Ctrl-C stops the members, and keeps the data.
    """
    from dwcp_operator.local.control import run_here
    from dwcp_operator.local.errors import LocalError

    layout, lock = _prepare(file, data_dir)
    if detach:
        _detach(layout, lock, timeout_s, allow_strategies=allow_test_strategies)
        return
    try:
        asyncio.run(
            run_here(
                layout,
                emit=_event,
                on_available=lambda status: _print_up(layout, status),
                timeout_s=timeout_s,
                allow_strategies=allow_test_strategies,
            )
        )
    except LocalError as error:
        _fail(str(error), EXIT_REFUSED)
    finally:
        lock.release()


def _prepare(file: Path | None, data_dir: Path) -> tuple[Layout, Lock]:
    from dwcp_operator.local.errors import LocalError
    from dwcp_operator.local.layout import prepare
    from dwcp_operator.local.ports import NoFreePortsError

    try:
        return prepare(data_dir, _manifest(file, data_dir))
    except (LocalError, NoFreePortsError) as error:
        _fail(str(error), EXIT_REFUSED)


def _manifest(file: Path | None, data_dir: Path) -> DWCPCluster:
    from dwcp_operator.local.errors import LocalError
    from dwcp_operator.local.layout import open_layout
    from dwcp_operator.manifest import ManifestError, load_manifest

    try:
        return load_manifest(file) if file is not None else open_layout(data_dir)[2]
    except ManifestError as error:
        _fail(str(error), EXIT_BAD_MANIFEST)
    except LocalError as error:
        _fail(str(error), EXIT_NO_CLUSTER)


def _detach(layout: Layout, lock: Lock, timeout_s: float, *, allow_strategies: bool) -> None:
    from dwcp_operator.local.control import start_detached, wait_available
    from dwcp_operator.local.errors import LocalError

    supervisor = start_detached(layout, lock, allow_strategies=allow_strategies)
    lock.release()
    try:
        status = wait_available(layout, supervisor, timeout_s)
    except LocalError as error:
        _fail(str(error), EXIT_REFUSED)
    except KeyboardInterrupt:
        supervisor.terminate()
        raise
    _print_up(layout, status)
    click.echo(f"The supervisor runs in the background (pid {supervisor.pid}).")


def _event(line: str) -> None:
    from datetime import datetime

    click.echo(f"{datetime.now().astimezone():%H:%M:%S}  {line}")


def _print_up(layout: Layout, status: ClusterStatus) -> None:
    from dwcp_operator.local.control import members_tree

    click.echo(_table(members_tree(status, layout)))
    data = _shown(layout.root)
    click.echo(f"Available. Try: dwcp put --data {data} colour blue; dwcp get --data {data} colour")


def _shown(path: Path) -> Path:
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


# --- down ------------------------------------------------------------------------------------


@click.command()
@_data_option
def down(data_dir: Path) -> None:
    """Stop the cluster on this machine; its data stays."""
    from dwcp_operator.local.control import down as stop

    layout = _open(data_dir)
    stopped = stop(layout)
    for sentence in stopped:
        click.echo(sentence)
    if not stopped:
        click.echo(f"nothing runs in {data_dir}")
    else:
        click.echo(f"The data stays: bring it up again with `dwcp up --data {data_dir}`.")


@click.command()
@_data_option
@click.option(
    "--timeout",
    "timeout_s",
    type=_Seconds(),
    default="120s",
    show_default=True,
    help="How long all of it may take.",
)
def restart(data_dir: Path, *, timeout_s: float) -> None:
    """Restart the members on this machine, after an upgrade of dwcp for instance.

    One at a time, when the others' signed answers show a quorum without it; the primary comes last
    and hands over first.
    """
    from dwcp_operator.local.control import members_tree
    from dwcp_operator.local.control import restart as roll
    from dwcp_operator.local.errors import LocalError

    layout = _open(data_dir)
    try:
        status = roll(layout, timeout_s)
    except LocalError as error:
        _fail(str(error), EXIT_REFUSED)
    click.echo(_table(members_tree(status, layout)))
    click.echo(f"All {status.replicas} members were restarted; view {status.view}.")


def _open(data_dir: Path) -> Layout:
    from dwcp_operator.local.errors import LocalError
    from dwcp_operator.local.layout import open_layout
    from dwcp_operator.manifest import ManifestError

    try:
        return open_layout(data_dir)[0]
    except (LocalError, ManifestError) as error:
        _fail(str(error), EXIT_NO_CLUSTER)


# --- status ----------------------------------------------------------------------------------


@click.command()
@_data_option
@click.option("--cluster", metavar="NAME", help="A cluster on Kubernetes, instead of --data.")
@click.option("-n", "--namespace", default="default", show_default=True, help="Its namespace.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="table to read, json to process.",
)
@click.pass_context
def status(
    context: click.Context, data_dir: Path, cluster: str | None, namespace: str, output: str
) -> None:
    """Show the cluster and every member.

    View, primary and mode are shown when f+1 members' signed reports agree on them.
    """
    data_given = context.get_parameter_source("data_dir") is click.core.ParameterSource.COMMANDLINE
    if cluster is not None and data_given:
        raise click.UsageError("--cluster looks at Kubernetes and --data at this machine: give one")
    tree = _remote_tree(cluster, namespace) if cluster is not None else _local_tree(data_dir)
    if output == "json":
        click.echo(json.dumps(tree, indent=2))
        return
    shown = {k: tree.get(k) for k in ("mode", "epoch", "view", "primary")}
    where = "  ".join(f"{k} {'-' if v is None else v}" for k, v in shown.items())
    click.echo(f"{tree['namespace']}/{tree['cluster']}  {where}\n")
    click.echo(_table(tree["members"]) + "\n")
    for member in tree["members"]:
        for what in ("illness", "suspicion"):
            if member.get(what):
                click.echo(f"{member['name']}: {what}: {member[what]}")
    if switch := tree.get("lastSwitch"):
        click.echo(_switch(switch) + "\n")
    if tree.get("learners"):
        click.echo(f"no members, not yet or not any more: {', '.join(tree['learners'])}\n")
    for condition in tree["conditions"]:
        click.echo(
            f"{condition['type']:<15}{condition['status']:<9}{condition['reason']}: "
            f"{condition['message']}"
        )


def _switch(tree: Mapping[str, Any]) -> str:
    from dwcp_operator.modes import ModeSwitchStatus

    known = {field.alias for field in ModeSwitchStatus.model_fields.values()}
    said = {key: value for key, value in tree.items() if key in known}  # an operator may be newer
    return f"mode decided last: {ModeSwitchStatus.model_validate(said).sentence()}"


def _local_tree(data_dir: Path) -> dict[str, Any]:
    from dwcp_operator.local.control import look, status_tree
    from dwcp_operator.local.errors import LocalError

    layout = _open(data_dir)
    try:
        return status_tree(asyncio.run(look(layout)))
    except LocalError as error:
        _fail(str(error), EXIT_REFUSED)


def _remote_tree(cluster: str, namespace: str) -> dict[str, Any]:
    """The status of a resource on Kubernetes, in the same shape as a local one's."""
    import urllib3
    from kubernetes import client, config

    from dwcp_operator.resources import GROUP, KIND, PLURAL, VERSION

    try:
        api = client.CustomObjectsApi(client.ApiClient(_kubernetes_configuration()))
        found: Any = api.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, cluster)
    except config.ConfigException as error:
        _fail(f"no Kubernetes configuration ({error}): set KUBECONFIG", EXIT_NO_CLUSTER)
    except client.ApiException as error:
        if error.status == 404:
            _fail(
                f"no {KIND} {cluster} in namespace {namespace}: see `kubectl get dwcp -A`",
                EXIT_NO_CLUSTER,
            )
        _fail(f"Kubernetes answered {error.status} {error.reason}", EXIT_REFUSED)
    except urllib3.exceptions.HTTPError as error:
        _fail(f"Kubernetes does not answer: {error}; is KUBECONFIG right?", EXIT_REFUSED)
    said = found.get("status", {})
    members = [{"pid": None, "appliedIndex": None, **m} for m in said.get("members", [])]
    return {
        "cluster": cluster,
        "namespace": namespace,
        **{k: said.get(k) for k in ("mode", "epoch", "view", "primary")},
        "conditions": [],
        **said,
        "members": members,
    }


def _kubernetes_configuration() -> Any:
    """As kubectl finds it: KUBECONFIG, the home directory, or the pod this runs in."""
    from kubernetes import client, config

    files = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    configuration = client.Configuration()
    configuration.retries = False
    if any(Path(file).exists() for file in files.split(os.pathsep)):
        config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=files, client_configuration=configuration
        )
    else:
        config.load_incluster_config(  # type: ignore[no-untyped-call]
            client_configuration=configuration
        )
    return configuration


def _table(members: Sequence[Mapping[str, Any]]) -> str:
    keys = (
        "name",
        "id",
        "role",
        "mode",
        "ready",
        "healthy",
        "appliedIndex",
        "lag",
        "pid",
        "endpoint",
    )
    rows = [_COLUMNS, *(tuple(_cell(m.get(key)) for key in keys) for m in members)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
