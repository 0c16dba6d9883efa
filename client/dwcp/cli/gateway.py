"""`dwcp gateway`: etcd's API for those who can not verify replies themselves."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from dwcp.certificates import TlsFiles

EXIT_NO_CLUSTER: Final = 3
EXIT_ADDRESS: Final = 4


class _Address(click.ParamType[tuple[str, int]]):
    name = "HOST:PORT"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Host and port; an IPv6 address stands in brackets."""
        host, colon, port = str(value).rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65536):
            self.fail(f"{value!r} is not HOST:PORT, such as 127.0.0.1:2379", param, ctx)
        return host.removeprefix("[").removesuffix("]"), int(port)


_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True)
class Options:
    """How the gateway was started."""

    data_dir: Path
    listen: tuple[str, int]
    listen_grpc: tuple[str, int]
    advertise: str
    timeout_ms: int
    tls: TlsFiles | None
    probes: tuple[str, int] | None


@click.command()
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="Directory with genesis.msgpack and client.key.",
)
@click.option(
    "--listen",
    type=_Address(),
    default="127.0.0.1:2379",
    show_default=True,
    help="Where to listen. Whoever reaches it acts as the client: keep it on a loopback.",
)
@click.option(
    "--grpc",
    "listen_grpc",
    type=_Address(),
    default="127.0.0.1:2389",
    show_default=True,
    help="Where to listen for gRPC, as etcdctl speaks it.",
)
@click.option(
    "--advertise",
    metavar="URL",
    default="",
    help="Where users reach the gRPC port; without it, the address it listens on.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0.001, max=600),
    default=7.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a request may take.",
)
@click.option("--tls-certificate", type=_FILE, help="Speak TLS with this certificate, PEM.")
@click.option("--tls-key", type=_FILE, help="The key of that certificate, PEM.")
@click.option(
    "--tls-client-authority",
    type=_FILE,
    help="Let in only who shows a certificate that this authority vouches for, PEM.",
)
@click.option(
    "--probes",
    type=_Address(),
    help="Where to answer /livez, /readyz and /metrics, in plain HTTP and to everybody.",
)
def gateway(
    data_dir: Path, listen: tuple[str, int], listen_grpc: tuple[str, int], advertise: str,
    timeout_s: float, tls_certificate: Path | None, tls_key: Path | None,
    tls_client_authority: Path | None, probes: tuple[str, int] | None,
) -> None:  # fmt: skip
    """Serve etcd's v3 API, JSON and gRPC: what it answers, enough replicas have signed."""
    import uvloop

    from dwcp import errors

    files = _tls_files(tls_certificate, tls_key, tls_client_authority)
    options = Options(
        data_dir, listen, listen_grpc, advertise, int(timeout_s * 1000), files, probes
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(options))
    except errors.BadCluster as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_NO_CLUSTER)
    except OSError as error:
        both = " or ".join(f"{host}:{port}" for host, port in (listen, listen_grpc))
        click.echo(f"Error: can not listen on {both}: {error.strerror}", err=True)
        sys.exit(EXIT_ADDRESS)


def _tls_files(
    certificate: Path | None, key: Path | None, authority: Path | None
) -> TlsFiles | None:
    """What the gateway shows its users; refused here when it can not be used."""
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("TLS needs both --tls-certificate and --tls-key")
    from dwcp.certificates import TlsFiles

    files = TlsFiles(certificate, key, authority)
    try:
        files.context()
    except OSError as error:
        raise click.UsageError(f"{certificate} and {key} can not be used: {error}") from None
    return files


async def _serve(options: Options) -> None:
    from aiohttp import web

    from dwcp.certificates import renewing_context
    from dwcp.client import Client
    from dwcp.directory import CLIENT_KEY_FILE
    from dwcp.gateway.desk import Desk
    from dwcp.gateway.health import probes_runner
    from dwcp.gateway.metrics import GatewayMetrics
    from dwcp.gateway.rpc import RpcServer
    from dwcp.gateway.server import Gateway
    from dwcp.identity import Ed25519Signer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    files, scheme = options.tls, "http" if options.tls is None else "https"
    context = None if files is None else renewing_context(files)
    async with Client.from_directory(options.data_dir, documents=False) as client:
        key = Ed25519Signer.load(options.data_dir / CLIENT_KEY_FILE).public_key
        desk, metrics = Desk(client, key, options.timeout_ms), GatewayMetrics()
        rpc = RpcServer(desk, metrics)
        runner, probes = Gateway(desk, metrics).runner(), probes_runner(desk, metrics)
        await runner.setup()
        await probes.setup()
        try:
            await web.TCPSite(runner, *options.listen, ssl_context=context).start()
            (host, port, *_) = runner.addresses[0]
            rpc_host = options.listen_grpc[0]
            rpc_port = await rpc.start(*options.listen_grpc, files)
            if options.probes is not None:
                await web.TCPSite(probes, *options.probes).start()
            desk.address = options.advertise or f"{scheme}://{rpc_host}:{rpc_port}"
            click.echo(f"etcd's JSON API on {scheme}://{host}:{port}/v3")
            click.echo(f"etcd's gRPC API on {rpc_host}:{rpc_port}")
            await stop.wait()
        finally:
            await rpc.stop()
            await runner.cleanup()
            await probes.cleanup()
