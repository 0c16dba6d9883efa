"""Starts the operator: `python -m dwcp_operator`, configured by environment variables."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import get_args

import click

from dwcp_operator.act import logs
from dwcp_operator.act.execute import Settings
from dwcp_operator.build.pod import PodSettings
from dwcp_operator.build.storage import AccessMode
from dwcp_operator.main import Options, run

EXIT_REFUSED = 78
"""The arguments can not be used (sysexits EX_CONFIG)."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--image", envvar="DWCP_IMAGE", required=True, help="Image of members.")
@click.option(
    "--image-pull-policy",
    envvar="DWCP_IMAGE_PULL_POLICY",
    type=click.Choice(["Always", "IfNotPresent", "Never"]),
    help="Pull policy of members; Kubernetes decides when absent.",
)
@click.option(
    "--namespaces",
    envvar="DWCP_NAMESPACES",
    default="",
    help="Comma-separated namespaces to watch; all when empty.",
)
@click.option(
    "--volume-access-mode",
    envvar="DWCP_VOLUME_ACCESS_MODE",
    type=click.Choice(get_args(AccessMode)),
    default="ReadWriteOnce",
    help="Access mode of new volumes; ReadWriteOncePod where the driver has it.",
)
@click.option("--identity", envvar="DWCP_IDENTITY", required=True, help="Names this process.")
@click.option("--lease-namespace", envvar="DWCP_LEASE_NAMESPACE", required=True)
@click.option("--http-host", envvar="DWCP_HTTP_HOST", default="0.0.0.0")  # noqa: S104 - probes
@click.option("--http-port", envvar="DWCP_HTTP_PORT", default=8080)
def _command(
    image: str, image_pull_policy: str | None, namespaces: str, volume_access_mode: AccessMode,
    identity: str, lease_namespace: str, http_host: str, http_port: int,
) -> int:  # fmt: skip
    """Run the operator of DWCP clusters on Kubernetes."""
    logs.configure()
    options = Options(
        identity=identity,
        lease_namespace=lease_namespace,
        namespaces=tuple(n.strip() for n in namespaces.split(",") if n.strip()),
        http_host=http_host,
        http_port=http_port,
        settings=Settings(PodSettings(image, image_pull_policy), volume_access_mode),
    )
    return asyncio.run(run(options))


def main() -> None:
    """Run the command line and end the process."""
    if not __debug__:
        sys.exit("dwcp_operator relies on its assertions: start it without -O")
    try:
        code = _command.main(prog_name="python -m dwcp_operator", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = EXIT_REFUSED
    sys.stderr.flush()
    # Threads that still watch are not waited for: another operator may have the lease already.
    os._exit(int(code))


if __name__ == "__main__":
    main()
