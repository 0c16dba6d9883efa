"""Starts one replica: `python -m dwcp_replica --data DIR --name NAME ...`."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, get_args

import click
import uvloop

from dwcp.certificates import TlsFiles
from dwcp_replica.node.config import (
    EXIT_FAULT,
    EXIT_REFUSED,
    LOG_BYTES_MIN,
    USUAL,
    Address,
    Feature,
    NodeConfig,
)
from dwcp_replica.node.hooks import HookMaker
from dwcp_replica.node.log import LogFormat, configure
from dwcp_replica.node.machines import MachineNameError, load_machine
from dwcp_replica.node.process import ReplicaProcess

SWITCH_INTERVAL_S: Final = 0.0005
"""How long a thread that has verified or synced waits for the event loop's to make room."""

_log = logging.getLogger("dwcp_replica")


class _AddressType(click.ParamType[Address]):
    name = "host:port"

    def convert(
        self, value: str | Address, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        try:
            return value if isinstance(value, Address) else Address.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _token(path: Path | None) -> bytes | None:
    """The one-time token: the file's content without white space around it."""
    if path is None:
        return None
    token = path.read_bytes().strip()
    if not token:
        raise click.UsageError(f"--token-file {path} is empty")
    return token


def _check_machine(name: str | None) -> None:
    """Refuse a name that leads to no state machine before anything is opened."""
    try:
        load_machine(name)
    except MachineNameError as error:
        raise click.UsageError(f"--machine: {error}") from error


def _features(text: str) -> frozenset[Feature]:
    """Which parts of mode detection are on."""
    try:
        return Feature.parse(text)
    except ValueError as error:
        raise click.UsageError(f"--features: {error}") from error


def _cuts() -> Path | None:
    """The file of cut links; only tests may name one."""
    path = os.environ.get("DWCP_TEST_CUTS")
    return None if path is None else Path(path)


def _hook_maker(strategy: str | None) -> HookMaker | None:
    """The hooks of a named way to lie; only tests may ask for one."""
    if strategy is None:
        return None
    if os.environ.get("DWCP_ALLOW_TEST_STRATEGIES") != "1":
        raise click.UsageError(
            "--test-strategy makes a replica lie: it is refused unless "
            "DWCP_ALLOW_TEST_STRATEGIES=1 is set"
        )
    from dwcp_replica.sim.strategies import STRATEGIES, strategy_hooks

    if strategy not in STRATEGIES:
        known = ", ".join(sorted(STRATEGIES))
        raise click.UsageError(f"there is no test strategy {strategy!r}: use one of {known}")
    return partial(strategy_hooks, strategy)


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _tls_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """The certificate for clients and its key; both or none."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("--client-tls-certificate and --client-tls-key belong together")
    files = TlsFiles(certificate, key)
    try:
        files.context()
    except (OSError, ssl.SSLError) as error:
        raise click.UsageError(f"{certificate} and {key} can not be used: {error}") from None
    return files


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Member's volume.")
@click.option("--name", required=True, help="Name of this member; never reused.")
@click.option("--cluster", required=True, help="Name of the cluster.")
@click.option("--namespace", required=True, help="Namespace of the cluster.")
@click.option("--client-listen", type=_AddressType(), required=True, help="HOST:PORT for clients.")
@click.option("--peer-listen", type=_AddressType(), required=True, help="HOST:PORT for members.")
@click.option(
    "--token-file",
    type=_FILE,
    help="One-time token that ties this member to whoever started it.",
)
@click.option("--client-tls", is_flag=True, help="TLS for clients, with the member's certificate.")
@click.option("--client-tls-certificate", type=_FILE, help="Another certificate, PEM.")
@click.option("--client-tls-key", type=_FILE, help="The key of that certificate, PEM.")
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default="json")
@click.option("--machine", help="MODULE:CLASS of a state machine of one's own.")
@click.option(
    "--log-bytes",
    type=click.IntRange(min=1),
    default=LOG_BYTES_MIN,
    help="Log kept before a snapshot is made and it is cut.",
)
@click.option("--restore", metavar="SOURCE", help="Path or URL of the backup to begin from.")
@click.option("--features", default=",".join(sorted(USUAL)), help="Parts of mode detection.")
@click.option("--test-strategy", hidden=True)
def _command(
    data: Path, name: str, cluster: str, namespace: str, client_listen: Address,
    peer_listen: Address, token_file: Path | None, log_format: LogFormat,
    machine: str | None, log_bytes: int, restore: str | None, test_strategy: str | None,
    features: str, client_tls_certificate: Path | None, client_tls_key: Path | None, *,
    client_tls: bool,
) -> int:  # fmt: skip
    """Run one replica of a DWCP cluster."""
    config = NodeConfig(
        data=data,
        name=name,
        cluster=cluster,
        namespace=namespace,
        client_listen=client_listen,
        peer_listen=peer_listen,
        token=_token(token_file),
        client_tls=client_tls,
        client_tls_files=_tls_files(client_tls_certificate, client_tls_key),
        stay_on_refusal=os.environ.get("DWCP_STAY_ON_REFUSAL") == "1",
        cuts=_cuts(),
        machine=machine or os.environ.get("DWCP_MACHINE"),
        log_bytes=log_bytes,
        restore=restore,
        features=_features(features),
    )
    _check_machine(config.machine)
    make_hooks = _hook_maker(test_strategy)
    configure(name, log_format)
    if test_strategy is not None:
        _log.warning("test-strategy", extra={"strategy": test_strategy})
    return _run(config, make_hooks)


def _run(config: NodeConfig, make_hooks: HookMaker | None) -> int:
    """Run the event loop; a fault anywhere in it ends the process with its story."""
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    if os.environ.get("DWCP_NO_UVLOOP") == "1":
        _log.warning("uvloop-off", extra={"detail": "DWCP_NO_UVLOOP=1: plain asyncio, slower"})
        loop_factory = asyncio.new_event_loop
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(_live(config, make_hooks))
    except BaseExceptionGroup as faults:
        causes = "; ".join(f"{type(e).__name__}: {e}" for e in _leaves(faults))
        _log.critical("fault", exc_info=faults, extra={"detail": causes})
        return EXIT_FAULT


async def _live(config: NodeConfig, make_hooks: HookMaker | None) -> int:
    return await ReplicaProcess(config, make_hooks).run()


def _leaves(faults: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for fault in faults.exceptions:
        found += _leaves(fault) if isinstance(fault, BaseExceptionGroup) else [fault]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    if not __debug__:
        sys.stderr.write("dwcp_replica relies on its assertions: start it without -O\n")
        return EXIT_REFUSED
    try:
        code = _command.main(arguments, prog_name="python -m dwcp_replica", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return EXIT_REFUSED
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
