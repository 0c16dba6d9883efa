"""`dwcp gateway`: etcd's API for those who can not verify replies themselves."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Final

import click

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
def gateway(
    data_dir: Path, listen: tuple[str, int], listen_grpc: tuple[str, int], advertise: str,
    timeout_s: float,
) -> None:  # fmt: skip
    """Serve etcd's v3 API, JSON and gRPC: what it answers, enough replicas have signed."""
    import uvloop

    from dwcp import errors

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(data_dir, listen, listen_grpc, advertise, int(timeout_s * 1000)))
    except errors.BadCluster as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_NO_CLUSTER)
    except OSError as error:
        both = " or ".join(f"{host}:{port}" for host, port in (listen, listen_grpc))
        click.echo(f"Error: can not listen on {both}: {error.strerror}", err=True)
        sys.exit(EXIT_ADDRESS)


async def _serve(
    data_dir: Path, listen: tuple[str, int], listen_grpc: tuple[str, int], advertise: str,
    timeout_ms: int,
) -> None:  # fmt: skip
    from aiohttp import web

    from dwcp.client import Client
    from dwcp.directory import CLIENT_KEY_FILE
    from dwcp.gateway.desk import Desk
    from dwcp.gateway.metrics import GatewayMetrics
    from dwcp.gateway.rpc import RpcServer
    from dwcp.gateway.server import Gateway
    from dwcp.identity import Ed25519Signer

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Client.from_directory(data_dir) as client:
        key = Ed25519Signer.load(data_dir / CLIENT_KEY_FILE).public_key
        desk, metrics = Desk(client, key, timeout_ms), GatewayMetrics()
        rpc = RpcServer(desk, metrics)
        runner = Gateway(desk, metrics).runner()
        await runner.setup()
        try:
            await web.TCPSite(runner, *listen).start()
            (host, port, *_) = runner.addresses[0]
            rpc_port = await rpc.start(*listen_grpc)
            desk.address = advertise or f"http://{listen_grpc[0]}:{rpc_port}"
            click.echo(f"etcd's JSON API on http://{host}:{port}/v3")
            click.echo(f"etcd's gRPC API on {listen_grpc[0]}:{rpc_port}")
            await stop.wait()
        finally:
            await rpc.stop()
            await runner.cleanup()
