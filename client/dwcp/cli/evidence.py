"""`dwcp evidence`: proofs against members that lied, shown, kept in a file, checked offline.

A proof is two signatures, made under the record of one epoch; that record is proven by the chain of
records from genesis on, which a file of proofs carries with it, and an anchor by the admin key.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import msgspec

from dwcp.directory import EPOCHS_FILE, GENESIS_FILE, stored_records
from dwcp.epochs import STOLEN_KEYS, Anchor, RecordChain, read_records, records_file
from dwcp.identity import Ed25519Verifier
from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.peer import Evidence
from dwcp.wire.records import EpochRecord, Member, SignedGenesis, scope_of

EXIT_PROVES_NOTHING: Final = 1
EXIT_NO_CLUSTER: Final = 3
ASK_S_MAX: Final = 5.0
FORMAT: Final = "dwcp-evidence-1"

_decode_genesis = decoder_of(SignedGenesis)
_decode_proof = decoder_of(Evidence)


@click.group(invoke_without_command=True)
@click.option("--data", "data_dir", type=click.Path(path_type=Path), default=Path(".dwcp"))
@click.option("--export", type=click.Path(path_type=Path), help="Write the proofs to a file.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_context
def evidence(ctx: click.Context, data_dir: Path, export: Path | None, output: str) -> None:
    """Show which members are proven to have lied; `verify` checks an exported file offline."""
    ctx.obj = data_dir
    if ctx.invoked_subcommand is not None:
        return
    chain = RecordChain(_genesis(data_dir / GENESIS_FILE), Ed25519Verifier())
    _extend(chain, _stored_records(data_dir), str(data_dir / EPOCHS_FILE))
    shown = asyncio.run(_collect(chain))
    found = [proof for encoded in shown if (proof := _judge(chain, encoded)) is not None]
    checked = list({proof["member"]: proof for proof in found}.values())
    if export is not None:
        records = records_file(chain.certified)
        told = {"format": FORMAT, "records": base64.b64encode(records).decode(), "proofs": checked}
        export.write_text(json.dumps(told, indent=1) + "\n")
        click.echo(f"{len(checked)} proofs written to {export}", err=True)
    _show(checked, output)


@evidence.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--genesis", type=click.Path(path_type=Path), help="Default: DIR/genesis.msgpack.")
@click.option("--anchor", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def verify(
    data_dir: Path, file: Path, genesis: Path | None, anchor: Path | None, output: str
) -> None:
    """Check every proof in FILE, and the epoch records that it rests on; no cluster is asked."""
    chain = RecordChain(_genesis(genesis or data_dir / GENESIS_FILE), Ed25519Verifier())
    if genesis is None:
        _extend(chain, _stored_records(data_dir), str(data_dir / EPOCHS_FILE))
    shown, records = _read(file)
    _extend(chain, records, str(file))
    proofs = []
    for member, encoded in shown:
        proof = _judge(chain, encoded)
        if proof is None or proof["member"] != member:
            _fail(f"a proof in {file} does not convict {member}: do not act on it", 1)
        proofs.append(proof)
    if not proofs:
        _fail(f"{file} holds no proof", EXIT_PROVES_NOTHING)
    _check_anchor(chain, anchor, max(proof["epoch"] for proof in proofs))
    _show(proofs, output)


def _read(file: Path) -> tuple[list[tuple[object, object]], tuple[CertifiedRecord, ...]]:
    """The proofs in an exported file, with whom each convicts, and its epoch records."""
    try:
        told = json.loads(file.read_text())
        shown = [(proof["member"], proof["proof"]) for proof in told["proofs"]]
        encoded = base64.b64decode(told["records"], validate=True) if "records" in told else None
        return shown, () if encoded is None else read_records(encoded)
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        _fail(f"{file} is not a file that `dwcp evidence --export` wrote", EXIT_PROVES_NOTHING)


def _stored_records(data_dir: Path) -> tuple[CertifiedRecord, ...]:
    try:
        return stored_records(data_dir)
    except msgspec.DecodeError as error:
        _fail(f"{data_dir / EPOCHS_FILE} holds no epoch records: {error}", EXIT_NO_CLUSTER)


def _extend(chain: RecordChain, records: tuple[CertifiedRecord, ...], where: str) -> None:
    if (fault := chain.extend(records)) is not None:
        _fail(f"the epoch records in {where} do not hold: {fault}", EXIT_PROVES_NOTHING)


def _check_anchor(chain: RecordChain, file: Path | None, epoch: int) -> None:
    """See that the admin vouches for the records up to `epoch`, or warn that nobody does."""
    if file is None:
        if epoch:
            click.echo(f"warning: {STOLEN_KEYS}", err=True)
        return
    try:
        anchor = msgspec.json.decode(file.read_bytes(), type=Anchor)
    except msgspec.DecodeError as error:
        _fail(f"{file} is no anchor: {error}", EXIT_PROVES_NOTHING)
    if (fault := chain.anchor_fault(anchor)) is not None:
        _fail(fault, EXIT_PROVES_NOTHING)


def _show(proofs: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(proofs))
        return
    if not proofs:
        click.echo("no member is proven to have lied")
    for proof in proofs:
        click.echo(
            f"{proof['member']}: {proof['kind']} in epoch {proof['epoch']}, view "
            f"{proof['view']} at index {proof['index']}; verified"
        )


def _genesis(path: Path) -> EpochRecord:
    """The genesis record that the user trusts."""
    try:
        signed: SignedGenesis = _decode_genesis(path.read_bytes())
    except FileNotFoundError:
        _fail(f"no genesis at {path}: name the cluster's directory with --data", EXIT_NO_CLUSTER)
    except msgspec.DecodeError as error:
        _fail(f"{path} is not a genesis record: {error}", EXIT_NO_CLUSTER)
    return signed.record


def _judge(chain: RecordChain, encoded: object) -> dict[str, Any] | None:
    """What a proof shows, from its own bytes alone; None when it proves nothing."""
    from dwcp_replica.core.certificates import Membership
    from dwcp_replica.core.evidence import kind_of, proven_liar

    try:
        proof: Evidence = _decode_proof(base64.b64decode(str(encoded), validate=True))
    except (ValueError, msgspec.DecodeError):
        return None
    record = chain.record(proof.first.epoch)
    if record is None:
        return None
    membership = Membership(record, scope_of(chain.genesis, record), Ed25519Verifier())
    number = proven_liar(membership, proof)
    if number is None:
        return None
    return {
        "member": record.members[number].name,
        "kind": kind_of(proof),
        "epoch": record.epoch,
        "view": proof.first.term,
        "index": proof.first.index,
        "proof": str(encoded),
    }


async def _collect(chain: RecordChain) -> list[object]:
    """The proofs that members show; who does not answer is passed over, and any may lie.

    Takes the epoch records that they show into the chain, where they hold.
    """
    import aiohttp

    from dwcp.following import records_of

    async def ask(session: aiohttp.ClientSession, member: Member) -> list[object]:
        try:
            url = f"{member.client}/dwcp/v1/evidence"
            # unverified TLS: a proof is believed by the signatures in it
            async with session.get(url, ssl=False) as response:
                return [proof["proof"] for proof in await response.json()]
        except (
            aiohttp.ClientError, TimeoutError, ValueError, RecursionError, KeyError, TypeError,
        ):  # fmt: skip
            return []

    timeout = aiohttp.ClientTimeout(total=ASK_S_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for member in chain.current.members:
            # unverified TLS: a record is believed by the certificate in it
            chain.extend(await records_of(session, member, chain.current.epoch, trust=False))
        shown = await asyncio.gather(*(ask(session, m) for m in chain.current.members))
    return [proof for proofs in shown for proof in proofs]


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)
