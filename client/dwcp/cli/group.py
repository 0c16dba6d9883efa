"""The command group: a table of commands, each loaded only when it runs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import click


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives, and its line in the list."""

    module: str
    attribute: str
    short_help: str


COMMANDS: Final = {
    "up": Lazy("dwcp.cli.cluster", "up", "Start a cluster on this machine, or bring it up again."),
    "down": Lazy("dwcp.cli.cluster", "down", "Stop the cluster on this machine; its data stays."),
    "restart": Lazy("dwcp.cli.cluster", "restart", "Restart the members, one at a time."),
    "scale": Lazy("dwcp.cli.members", "scale", "Change the number of members."),
    "status": Lazy("dwcp.cli.cluster", "status", "Show the cluster and every member."),
    "put": Lazy("dwcp.cli.data", "put", "Write a key."),
    "get": Lazy("dwcp.cli.data", "get", "Read a key, or all keys with a prefix."),
    "del": Lazy("dwcp.cli.data", "delete", "Delete a key, or all keys with a prefix."),
    "watch": Lazy("dwcp.cli.watch", "watch", "Print what happens to keys, as it happens."),
    "doc": Lazy("dwcp.cli.doc", "doc", "Read and edit documents that merge."),
    "lease": Lazy("dwcp.cli.lease", "lease", "Make, keep, list and end leases."),
    "bench": Lazy("dwcp.cli.bench", "bench", "Measure how fast a cluster answers."),
    "gateway": Lazy("dwcp.cli.gateway", "gateway", "Serve etcd's JSON API, verified."),
    "admin": Lazy(
        "dwcp.cli.admin", "admin", "Change members; begin another epoch; sign an anchor."
    ),
    "verify-chain": Lazy("dwcp.cli.admin", "verify_chain", "Check the chain of epoch records."),
    "backup": Lazy("dwcp.cli.backup", "backup", "Take backups and check them."),
    "recover": Lazy("dwcp.cli.recover", "recover", "Begin anew when a quorum is lost for good."),
    "evidence": Lazy("dwcp.cli.evidence", "evidence", "Show, export and check proofs of lies."),
    "links": Lazy("dwcp.cli.links", "links", "Show measured links, the mode, and predictions."),
    "predict": Lazy("dwcp.cli.predict", "predict", "Predict the latency of a cluster to be."),
    "demo": Lazy("dwcp.cli.demo", "demo", "Watch four replicas agree, one killed, one lying."),
    "sim": Lazy("dwcp.cli.sim", "sim", "Run the simulator, or replay a seed."),
}


class LazyGroup(click.Group):
    """Lists its commands from the table; one whose module is not installed is absent."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's interface
        """The commands that exist, in the table's order."""
        return [name for name, lazy in COMMANDS.items() if find_spec(lazy.module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None when there is none of that name."""
        if cmd_name not in self.list_commands(ctx):
            return None
        lazy = COMMANDS[cmd_name]
        command = getattr(import_module(lazy.module), lazy.attribute)
        assert isinstance(command, click.Command), f"{lazy} is not a command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without loading any command."""
        rows = [(name, COMMANDS[name].short_help) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dwcp")
def dwcp() -> None:
    """Small, precious state, kept alive across machines that may be slow, crashed or hostile."""
