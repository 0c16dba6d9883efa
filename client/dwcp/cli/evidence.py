"""`dwcp evidence`: proofs against members that lied, shown, kept in a file, checked offline."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import msgspec

from dwcp.wire.decoding import decoder_of
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
    record = _genesis(data_dir / "genesis.msgpack")
    shown = asyncio.run(_collect(record))
    found = [proof for encoded in shown if (proof := _judge(record, encoded)) is not None]
    checked = list({proof["member"]: proof for proof in found}.values())
    if export is not None:
        export.write_text(json.dumps({"format": FORMAT, "proofs": checked}, indent=1) + "\n")
        click.echo(f"{len(checked)} proofs written to {export}", err=True)
    _show(checked, output)


@evidence.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--genesis", type=click.Path(path_type=Path), help="Default: DIR/genesis.msgpack.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def verify(data_dir: Path, file: Path, genesis: Path | None, output: str) -> None:
    """Check every proof in FILE against the genesis record; no cluster is asked."""
    record = _genesis(genesis or data_dir / "genesis.msgpack")
    try:
        shown = [
            (proof["member"], proof["proof"]) for proof in json.loads(file.read_text())["proofs"]
        ]
    except (ValueError, KeyError, TypeError):
        _fail(f"{file} is not a file that `dwcp evidence --export` wrote", EXIT_PROVES_NOTHING)
    proofs = []
    for member, encoded in shown:
        proof = _judge(record, encoded)
        if proof is None or proof["member"] != member:
            _fail(f"a proof in {file} does not convict {member}: do not act on it", 1)
        proofs.append(proof)
    if not proofs:
        _fail(f"{file} holds no proof", EXIT_PROVES_NOTHING)
    _show(proofs, output)


def _show(proofs: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(proofs))
        return
    if not proofs:
        click.echo("no member is proven to have lied")
    for proof in proofs:
        click.echo(
            f"{proof['member']}: {proof['kind']} in view {proof['view']} at index "
            f"{proof['index']}; verified"
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


def _judge(record: EpochRecord, encoded: object) -> dict[str, Any] | None:
    """What a proof shows, from its own bytes alone; None when it proves nothing."""
    from dwcp.identity import Ed25519Verifier
    from dwcp_replica.core.certificates import Membership
    from dwcp_replica.core.evidence import kind_of, proven_liar

    try:
        proof: Evidence = _decode_proof(base64.b64decode(str(encoded), validate=True))
    except (ValueError, msgspec.DecodeError):
        return None
    membership = Membership(record, scope_of(record, record), Ed25519Verifier())
    number = proven_liar(membership, proof)
    if number is None:
        return None
    return {
        "member": record.members[number].name,
        "kind": kind_of(proof),
        "view": proof.first.term,
        "index": proof.first.index,
        "proof": str(encoded),
    }


async def _collect(record: EpochRecord) -> list[object]:
    """The proofs that members show; who does not answer is passed over, and any may lie."""
    import aiohttp

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
        shown = await asyncio.gather(*(ask(session, m) for m in record.members))
    return [proof for proofs in shown for proof in proofs]


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)
