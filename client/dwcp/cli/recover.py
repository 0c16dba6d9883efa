"""`dwcp recover`: a cluster that lost its quorum for good begins anew from what is left.

epochs.md has no rule by which fewer than a quorum could decide the next epoch, and there can be
none: whoever is away may have decided otherwise. So the old chain of records ends. The survivor
that can prove most gives a backup; a new cluster begins from it, whose genesis names the old
chain's last record, the entry, and what may be lost, in words that the admin's key signs.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import click
import yaml

from dwcp.cli import taking
from dwcp.cli.admin import admin_key, follow, genesis_of, known_of
from dwcp.epochs import RecordChain
from dwcp.identity import Ed25519Signer
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.quorum import quorum
from dwcp.wire.records import EpochRecord

EXIT_REFUSED: Final = 1
EXIT_NO_ANSWER: Final = 4
_KEYS: Final = ("admin.key", "client.key", "clients")
_directory = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True, slots=True)
class Left:
    """What survivors show: who they are, and the backup that goes furthest."""

    members: tuple[str, ...]
    gone: tuple[str, ...]
    best: taking.Taken

    def loss(self) -> str:
        """What may be lost, in one sentence."""
        return (
            f"quorum lost: of {', '.join(self.gone)} nothing is known, and "
            f"{', '.join(self.members)} can prove entries up to {self.best.origin.index}; "
            "whatever was acknowledged above it is lost"
        )


@click.command()
@click.option("--data", "data_dir", type=_directory, default=Path(".dwcp"), metavar="DIR",
              show_default="./.dwcp", help="The cluster that lost its quorum.")  # fmt: skip
@click.option("--to", "new_dir", type=_directory, required=True, metavar="DIR",
              help="A new directory, for the cluster that goes on.")  # fmt: skip
@click.option("--lose-above", type=click.IntRange(min=0), metavar="INDEX",
              help="Confirm that what stands above this entry may be lost.")  # fmt: skip
def recover(data_dir: Path, new_dir: Path, lose_above: int | None) -> None:
    """Begin anew from what survivors can prove, when a quorum is lost for good.

    Without --lose-above it only says what would be lost. It prepares the new directory, with the
    same keys; `dwcp up` starts it. Members that are lost must never come back.
    """
    genesis, admin = genesis_of(data_dir), admin_key(data_dir)
    if new_dir.exists() and any(new_dir.iterdir()):
        _fail(EXIT_REFUSED, f"{new_dir} is not empty: name a new directory with --to")
    new_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        left = asyncio.run(_survivors(genesis, known_of(data_dir), admin, new_dir))
    except taking.NotTakenError as error:
        new_dir.rmdir()
        _fail(EXIT_NO_ANSWER, str(error))
    index = left.best.origin.index
    if lose_above != index:
        left.best.path.unlink()
        new_dir.rmdir()
        _fail(
            EXIT_REFUSED,
            f"{left.loss()}. Nothing was changed. To accept that, run it again with "
            f"--lose-above {index}",
        )
    _prepare(data_dir, new_dir, left)
    click.echo(f"recovered up to entry {index}: start it with `dwcp up --data {new_dir} "
               f"-f {new_dir / 'manifest.yaml'}`")  # fmt: skip


async def _survivors(
    genesis: EpochRecord, known: Sequence[CertifiedRecord], admin: Ed25519Signer, directory: Path
) -> Left:
    """Take a backup of every member that answers, keep the one that goes furthest.

    Raises NotTakenError, also when a quorum answers.
    """
    permit = taking.make_permit(genesis, admin)
    best: taking.Taken | None = None
    said, present = [], []
    async with aiohttp.ClientSession() as http:
        chain = await follow(http, genesis, known)
        for member in chain.current.members:
            path = directory / f"{member.name}{taking.SUFFIX}"
            try:
                taken = await taking.take(http, genesis, member, permit, path)
            except taking.NotTakenError as error:
                said.append(str(error))
                continue
            present.append(member.name)
            best = _further(best, taken)
    if best is None:
        raise taking.NotTakenError("no survivor gave a backup that holds: " + "; ".join(said))
    _refuse_quorum(chain, present, best)
    gone = tuple(m.name for m in chain.current.members if m.name not in present)
    return Left(tuple(present), gone, best)


def _further(best: taking.Taken | None, taken: taking.Taken) -> taking.Taken:
    """The one of two that goes further; the other's file is removed."""
    if best is None:
        return taken
    better, worse = (taken, best) if taken.origin.index > best.origin.index else (best, taken)
    worse.path.unlink()
    return better


def _refuse_quorum(chain: RecordChain, present: list[str], best: taking.Taken) -> None:
    record = chain.current
    n = len(record.members)
    if len(present) >= quorum(n, record.trust):
        best.path.unlink()
        raise taking.NotTakenError(
            f"{len(present)} of {n} members answer, which is a quorum: nothing has to be lost. "
            "Replace what is broken, or take a backup with `dwcp backup create`"
        )


def _prepare(data_dir: Path, new_dir: Path, left: Left) -> None:
    """Keys, backup and manifest of the cluster that goes on."""
    for name in _KEYS:
        source = data_dir / name
        if source.is_dir():
            shutil.copytree(source, new_dir / name)
        elif source.exists():
            shutil.copy2(source, new_dir / name)
    # before a cluster is there, its directory may hold keys and a manifest only
    backup = new_dir.with_name(f"{new_dir.name}{taking.SUFFIX}")
    left.best.path.replace(backup)
    tree: dict[str, Any] = yaml.safe_load((data_dir / "manifest.yaml").read_text())
    tree["spec"]["bootstrap"] = {
        "backup": {
            "file": str(backup.absolute()),
            "genesisHash": left.best.origin.genesis.hex(),
            "acceptedLoss": left.loss(),
        }
    }
    (new_dir / "manifest.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    raise SystemExit(code)
