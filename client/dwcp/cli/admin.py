"""`dwcp admin` and `dwcp verify-chain`: orders with the admin key, and the chain of epochs.

No replica is trusted here: a record counts by the certificate that it carries, an epoch has begun
once a record says so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

import aiohttp
import click
import msgspec

from dwcp.cli import members
from dwcp.directory import EPOCHS_FILE, Trust, pinned, stored_records
from dwcp.epochs import STOLEN_KEYS, Anchor, RecordChain, sign_anchor
from dwcp.identity import Ed25519Signer, Ed25519Verifier, KeyFileError
from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord, Records
from dwcp.wire.records import (
    EpochRecord,
    Member,
    Protocol,
    SignedGenesis,
    check_genesis,
    scope_of,
)
from dwcp.wire.switch import AdminSwitch

EXIT_BROKEN: Final = 1
EXIT_NO_CLUSTER: Final = 3
EXIT_NO_ANSWER: Final = 4
ASK_S_MAX: Final = 5.0
AGAIN_S: Final = 0.3
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
MODES: Final[dict[str, Protocol]] = {"Internet": "pbft", "Datacenter": "raft"}
RELEASE: Final = "release"

_decode_genesis: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)
_decode_records: Callable[[bytes], Records] = decoder_of(Records)

_data = click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="The local cluster's directory.",
)


@click.group()
def admin() -> None:
    """Order something with the cluster's admin key."""


for _command in (members.add, members.remove, members.replace, members.rotate_key):
    admin.add_command(_command)


@admin.command()
@_data
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=30.0)
def refresh(data_dir: Path, timeout_s: float) -> None:
    """Begin another epoch with the same members and protocol."""
    record = _ordered(data_dir, timeout_s, lambda order: order, lambda _: True)
    click.echo(f"epoch {record.epoch} has begun")


@admin.command("force-mode")
@click.argument("mode", type=click.Choice([*MODES, RELEASE], case_sensitive=False))
@_data
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1), default=30.0)
def force_mode(mode: str, data_dir: Path, timeout_s: float) -> None:
    """Run Internet (PBFT) or Datacenter (Raft), and hold it until it is released."""
    protocol = MODES.get(mode)

    def change(order: AdminSwitch) -> AdminSwitch:
        if protocol is None:
            return msgspec.structs.replace(order, hold="release")
        return msgspec.structs.replace(order, protocol=protocol, hold="force")

    record = _ordered(data_dir, timeout_s, change, lambda record: record.forced == protocol)
    held = "nothing is held" if protocol is None else f"{mode} is held until it is released"
    click.echo(f"epoch {record.epoch} has begun with {record.protocol}; {held}")
    if protocol is not None and record.protocol != protocol:
        click.echo("Raft was given up at the same time: it comes back after a cool-down", err=True)


@admin.command()
@_data
def anchor(data_dir: Path) -> None:
    """Print the present record's hash, signed: whoever was away starts from it."""
    genesis, signer = genesis_of(data_dir), admin_key(data_dir)
    chain = asyncio.run(_newest(genesis, known_of(data_dir)))
    click.echo(msgspec.json.encode(sign_anchor(genesis, chain.current, signer)).decode())


@click.command("verify-chain")
@_data
@click.option("--anchor", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def verify_chain(data_dir: Path, file: Path | None, output: str) -> None:
    """Check every epoch record against the one before; no replica is trusted."""
    signed = signed_genesis(data_dir)
    genesis = signed.record
    chain = asyncio.run(_newest(genesis, known_of(data_dir)))
    if file is not None:
        try:
            shown = msgspec.json.decode(file.read_bytes(), type=Anchor)
        except msgspec.DecodeError as error:
            _fail(EXIT_BROKEN, f"{file} is no anchor: {error}")
        if (fault := chain.anchor_fault(shown)) is not None:
            _fail(EXIT_BROKEN, fault)
    else:
        click.echo(f"warning: {STOLEN_KEYS}", err=True)
    rows = [_row(record) for record in chain.records]
    if signed.origin is not None:
        rows[0] |= {"from": signed.origin.record.hex(), "entry": signed.origin.index}
        rows[0] |= {"loss": signed.origin.loss} if signed.origin.loss else {}
    if output == "json":
        click.echo(msgspec.json.encode(rows).decode())
        return
    for row in rows:
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))


def _row(record: EpochRecord) -> dict[str, object]:
    return {
        "epoch": record.epoch,
        "protocol": record.protocol,
        "held": record.forced or "-",
        "start": record.start_index,
        "leader": record.members[record.leader].name,
        "members": ",".join(member.name for member in record.members),
        "barred": ",".join(record.members[m].name for m in record.barred) or "-",
        "record": record.hash().hex(),
    }


Change = Callable[[AdminSwitch], AdminSwitch]
"""What an order says besides the present members and protocol."""
Fits = Callable[[EpochRecord], bool]
"""True for a later record that says what was ordered."""


def _ordered(data_dir: Path, timeout_s: float, change: Change, fits: Fits) -> EpochRecord:
    """The record of the epoch that begins with this order."""
    genesis, signer = genesis_of(data_dir), admin_key(data_dir)
    record = asyncio.run(order_epoch(genesis, signer, timeout_s, change, fits, known_of(data_dir)))
    if record is None:
        _fail(EXIT_NO_ANSWER, f"no epoch began within {timeout_s:g} s: check `dwcp status`")
    return record


async def order_epoch(
    genesis: EpochRecord,
    signer: Ed25519Signer,
    timeout_s: float,
    change: Change,
    fits: Fits,
    known: Sequence[CertifiedRecord] = (),
) -> EpochRecord | None:
    """Order it for whatever epoch is present, until a later one has begun that fits."""
    ends_s = time.monotonic() + timeout_s
    async with aiohttp.ClientSession() as http:
        chain = await follow(http, genesis, known)
        before = chain.current.epoch
        while time.monotonic() < ends_s:
            record = chain.current
            same = AdminSwitch(record.epoch, record.protocol, record.members, bytes(64))
            unsigned = change(same)
            sig = signer.sign(unsigned.signing_bytes(scope_of(genesis, record)))
            body = msgspec.msgpack.encode(msgspec.structs.replace(unsigned, sig=sig))
            for member in record.members:
                await _call(http, "POST", member, "orders", body)
            await asyncio.sleep(AGAIN_S)
            chain = await follow(http, genesis, chain.certified)
            if chain.current.epoch > before and fits(chain.current):
                return chain.current
    return None


async def _newest(genesis: EpochRecord, known: Sequence[CertifiedRecord]) -> RecordChain:
    async with aiohttp.ClientSession() as http:
        return await follow(http, genesis, known)


def known_of(data_dir: Path) -> tuple[CertifiedRecord, ...]:
    """The records that were seen before: who began the cluster may all be gone."""
    try:
        return stored_records(data_dir)
    except (msgspec.DecodeError, OSError) as error:
        click.echo(f"warning: {data_dir / EPOCHS_FILE} can not be read: {error}", err=True)
        return ()


async def follow(
    http: aiohttp.ClientSession, genesis: EpochRecord, known: Sequence[CertifiedRecord] = (),
    trust: Trust = pinned,
) -> RecordChain:  # fmt: skip
    """All records that any member shows, each checked against the one before.

    Members of genesis are asked, of the newest of the records that are `known`, and of those that
    they lead to.
    """
    chain = RecordChain(genesis, Ed25519Verifier())
    if (fault := chain.extend(known)) is not None:
        click.echo(f"warning: the records that were kept do not hold: {fault}", err=True)
    answered, asked = False, set[bytes]()
    while True:
        everybody = (*chain.current.members, *genesis.members)
        member = next((m for m in everybody if m.identity not in asked), None)
        if member is None:
            break
        asked.add(member.identity)
        while True:
            path = f"epochs?from={chain.current.epoch}"
            body = await _call(http, "GET", member, path, trust=trust)
            if body is None:
                break
            answered = True
            before = chain.current.epoch
            try:
                fault = chain.extend(_decode_records(body).records)
            except msgspec.DecodeError as error:
                fault = f"not the MessagePack of records: {error}"
            if fault is not None:
                click.echo(f"warning: {member.name} shows what does not hold: {fault}", err=True)
            if fault is not None or chain.current.epoch == before:
                break
    if not answered:
        _fail(EXIT_NO_ANSWER, "no member answers: is the cluster up?")
    return chain


async def _call(
    http: aiohttp.ClientSession, method: str, member: Member, path: str,
    body: bytes | None = None, trust: Trust = pinned,
) -> bytes | None:  # fmt: skip
    """The body of a member's good answer, or None."""
    url = f"{member.client.rstrip('/')}/dwcp/v1/{path}"
    try:
        async with (
            asyncio.timeout(ASK_S_MAX),
            http.request(method, url, data=body, ssl=trust(member)) as response,
        ):
            return await response.content.read(ANSWER_BYTES_MAX) if response.ok else None
    except (aiohttp.ClientError, TimeoutError):
        return None


def genesis_of(data_dir: Path) -> EpochRecord:
    """The genesis in a cluster's directory, checked; ends the command when there is none."""
    return signed_genesis(data_dir).record


def signed_genesis(data_dir: Path) -> SignedGenesis:
    """As `genesis_of`, with its signatures and its origin."""
    try:
        signed = _decode_genesis((data_dir / "genesis.msgpack").read_bytes())
    except OSError:
        _fail(EXIT_NO_CLUSTER, f"no cluster in {data_dir}: name its directory with --data")
    except msgspec.DecodeError as error:
        _fail(EXIT_NO_CLUSTER, f"the genesis in {data_dir} can not be read: {error}")
    if (problem := check_genesis(signed, Ed25519Verifier())) is not None:
        _fail(EXIT_BROKEN, problem)
    return signed


def admin_key(data_dir: Path) -> Ed25519Signer:
    """The admin's key in a cluster's directory; ends the command when there is none."""
    try:
        return Ed25519Signer.load(data_dir / "admin.key")
    except KeyFileError as error:
        _fail(EXIT_NO_CLUSTER, str(error))


def _fail(code: int, message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    raise SystemExit(code)
