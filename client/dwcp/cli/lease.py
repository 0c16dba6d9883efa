"""`dwcp lease`: leases of a cluster, printed as etcdctl does."""

from __future__ import annotations

from pathlib import Path

import click

from dwcp.cli.data import EXIT_HELP, LEASE_ID, lease_text, options, print_json, with_client
from dwcp.client import Client
from dwcp.results import Header, LeaseResult, LeasesResult, LeaseStanding


@click.group()
def lease() -> None:
    """Make, keep, list and end leases. A lease's keys go with it."""


@lease.command(epilog=EXIT_HELP)
@click.argument("ttl_s", metavar="SECONDS", type=click.IntRange(min=1))
@options
def grant(ttl_s: int, *, data_dir: Path, output: str, timeout_s: float) -> None:
    """Make a lease of SECONDS."""

    async def run(client: Client) -> LeaseResult:
        return await client.lease_grant(ttl_s)

    done = with_client(data_dir, timeout_s, run)
    if output == "json":
        print_json(done.header, {"id": done.id, "ttl": done.ttl_s})
    else:
        click.echo(f"lease {lease_text(done.id)} granted with TTL({done.ttl_s}s)")


@lease.command(epilog=EXIT_HELP)
@click.argument("lease_id", metavar="ID", type=LEASE_ID)
@options
def revoke(lease_id: int, *, data_dir: Path, output: str, timeout_s: float) -> None:
    """End a lease and delete its keys."""

    async def run(client: Client) -> Header:
        return await client.lease_revoke(lease_id)

    header = with_client(data_dir, timeout_s, run)
    if output == "json":
        print_json(header, {})
    else:
        click.echo(f"lease {lease_text(lease_id)} revoked")


@lease.command(name="keep-alive", epilog=EXIT_HELP)
@click.argument("lease_id", metavar="ID", type=LEASE_ID)
@options
def keep_alive(lease_id: int, *, data_dir: Path, output: str, timeout_s: float) -> None:
    """Give a lease its whole time again, once."""

    async def run(client: Client) -> LeaseResult:
        return await client.lease_keep_alive(lease_id)

    done = with_client(data_dir, timeout_s, run)
    if output == "json":
        print_json(done.header, {"id": done.id, "ttl": done.ttl_s})
    elif done.ttl_s:
        click.echo(f"lease {lease_text(lease_id)} keepalived with TTL({done.ttl_s})")
    else:
        click.echo(f"lease {lease_text(lease_id)} expired or revoked.")


@lease.command(epilog=EXIT_HELP)
@click.argument("lease_id", metavar="ID", type=LEASE_ID)
@click.option("--keys", is_flag=True, help="Print its keys too.")
@options
def timetolive(lease_id: int, *, keys: bool, data_dir: Path, output: str, timeout_s: float) -> None:
    """Print how long a lease still has."""

    async def run(client: Client) -> LeaseStanding:
        return await client.lease_time_to_live(lease_id, keys=keys)

    found = with_client(data_dir, timeout_s, run)
    name = lease_text(lease_id)
    if output == "json":
        fields = {"id": found.id, "ttl": found.ttl_s, "granted-ttl": found.granted_ttl_s}
        print_json(found.header, fields)
    elif found.ttl_s < 0:
        click.echo(f"lease {name} already expired")
    else:
        line = f"lease {name} granted with TTL({found.granted_ttl_s}s), remaining({found.ttl_s}s)"
        attached = [key.decode(errors="backslashreplace") for key in found.keys]
        click.echo(f"{line}, attached keys([{' '.join(attached)}])" if keys else line)


@lease.command(name="list", epilog=EXIT_HELP)
@options
def list_(*, data_dir: Path, output: str, timeout_s: float) -> None:
    """Print the ids of all leases."""

    async def run(client: Client) -> LeasesResult:
        return await client.leases()

    found = with_client(data_dir, timeout_s, run)
    if output == "json":
        print_json(found.header, {"leases": [{"id": lease_id} for lease_id in found.ids]})
    else:
        click.echo(f"found {len(found.ids)} leases")
        for lease_id in found.ids:
            click.echo(lease_text(lease_id))
