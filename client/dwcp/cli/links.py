"""`dwcp links`: how far members are apart, and what that means, measured beside predicted.

Every row of the matrix is one member's word about its own links, signed with its key. The mode is
decided by the median of reports in the log, never by this.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import click
import msgspec
from msgspec import Struct

from dwcp.identity import Ed25519Verifier
from dwcp.wire.decoding import decoder_of, json_decoder_of
from dwcp.wire.records import EpochRecord, Member, Protocol, SignedGenesis, scope_of

EXIT_NO_CLUSTER: Final = 3
EXIT_NO_ANSWER: Final = 4
ASK_S_MAX: Final = 5.0
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024


class NetworkBody(Struct, frozen=True, rename="camel"):
    """A network in a member's status; microseconds, a share, bits per second."""

    rtt_us: int | None = None
    jitter_us: int | None = None
    loss: float | None = None
    rate_bps: int | None = None


class PeerBody(NetworkBody, frozen=True, rename="camel", kw_only=True):
    """One link in a member's status."""

    name: str


class ModesBody(Struct, frozen=True, rename="camel", kw_only=True):
    """What a member says of the mode."""

    decided: str
    forced: str | None
    asked: str | None
    network: NetworkBody
    commit_ms: float | None = None
    last_switch: dict[str, Any] | None = None


class StatusBody(Struct, frozen=True, rename="camel", kw_only=True):
    """What is read of a member's status here."""

    name: str
    mode: str
    protocol: Protocol
    primary: str | None
    peers: tuple[PeerBody, ...]
    modes: ModesBody | None


_decode_status: Callable[[bytes], StatusBody] = json_decoder_of(StatusBody)
_decode_genesis: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)


@click.command()
@click.option(
    "--data",
    "data_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".dwcp"),
    show_default="./.dwcp",
    metavar="DIR",
    help="The local cluster's directory.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def links(data_dir: Path, output: str) -> None:
    """Show the measured links, the mode, and what every leader would cost.

    Round trips are in milliseconds; - is not known. Rows are from, columns are to.
    """
    genesis = _genesis(data_dir)
    said = asyncio.run(_ask_all(genesis.record))
    if not said:
        _fail(EXIT_NO_ANSWER, "no member answers: check `dwcp status`")
    if output == "json":
        click.echo(json.dumps(tree(genesis.record, said)))
        return
    for line in (*_matrix(genesis.record, said), "", *_mode(said), "", *_predicted(genesis, said)):
        click.echo(line)


def tree(record: EpochRecord, said: dict[str, StatusBody]) -> dict[str, Any]:
    """The links, what was decided, and the predictions, for programs."""
    return {
        "links": {
            name: {peer.name: msgspec.to_builtins(_numbers(peer)) for peer in status.peers}
            for name, status in said.items()
        },
        "modes": {name: msgspec.to_builtins(status.modes) for name, status in said.items()},
        "predictions": predictions(record, said),
    }


def delays_ms(record: EpochRecord, said: dict[str, StatusBody]) -> list[list[float]] | None:
    """Half of each round trip, by number; None where a link is not known from either end."""
    names = [member.name for member in record.members]
    rtt_us = {
        (name, peer.name): peer.rtt_us
        for name, status in said.items()
        for peer in status.peers
        if peer.rtt_us is not None
    }
    matrix = []
    for one in names:
        row = []
        for other in names:
            either = rtt_us.get((one, other), rtt_us.get((other, one)))
            if one != other and either is None:
                return None
            row.append(0.0 if either is None or one == other else either / 2000)
        matrix.append(row)
    return matrix


def predictions(record: EpochRecord, said: dict[str, StatusBody]) -> list[dict[str, Any]]:
    """What a commit would cost under every protocol and leader, the quickest first.

    The leader that runs has its measured commit time beside it, where members know one.
    """
    from dwcp_replica.core.modes.predict import Protocol as Driver
    from dwcp_replica.core.modes.predict import ranking

    matrix = delays_ms(record, said)
    if matrix is None:
        return []
    protocols: tuple[Driver, ...] = ("raft",) if record.trust == "Crash" else ("pbft", "raft")
    runs = {(status.protocol, status.primary) for status in said.values()}
    measured = sorted(
        status.modes.commit_ms
        for status in said.values()
        if status.modes is not None and status.modes.commit_ms is not None
    )
    found = []
    for protocol in protocols:
        for one in ranking(protocol, matrix, trust=record.trust):
            name = record.members[one.leader].name
            beside = (protocol, name) in runs and bool(measured)
            found.append(
                {
                    "protocol": protocol,
                    "leader": name,
                    "predicted_ms": round(one.commit_ms, 3),
                    "measured_ms": measured[(len(measured) - 1) // 2] if beside else None,
                }
            )
    return found


# --- words ---------------------------------------------------------------------------------------


def _matrix(record: EpochRecord, said: dict[str, StatusBody]) -> list[str]:
    names = [member.name for member in record.members]
    lines = [" " * 16 + "".join(f"{name:>16}" for name in names)]
    for name in names:
        status = said.get(name)
        found = {} if status is None else {peer.name: peer for peer in status.peers}
        cells = "".join(f"{_cell(found.get(other)):>16}" for other in names)
        lines.append(f"{name:<16}{cells}")
    return lines


def _cell(peer: PeerBody | None) -> str:
    if peer is None or peer.rtt_us is None:
        return "-"
    rate = "" if peer.rate_bps is None else f" {peer.rate_bps / 1e9:.1f}G"
    return f"{peer.rtt_us / 1000:.2f}{rate}"


def _mode(said: dict[str, StatusBody]) -> list[str]:
    lines = []
    for name, status in sorted(said.items()):
        modes = status.modes
        if modes is None:
            continue
        extra = "" if modes.forced is None else f", held at {modes.forced}"
        extra += "" if modes.asked is None else f", the network asks for {modes.asked}"
        rtt_us = modes.network.rtt_us
        median = "unknown" if rtt_us is None else f"{rtt_us / 1000:.2f} ms"
        lines.append(
            f"{name}: {status.mode} runs, {modes.decided} decided{extra}; "
            f"median round trip {median}"
        )
    return lines


def _predicted(genesis: SignedGenesis, said: dict[str, StatusBody]) -> list[str]:
    found = predictions(genesis.record, said)
    if not found:
        return ["No prediction: some link is not measured yet."]
    lines = [f"{'protocol':<10}{'leader':<16}{'predicted ms':>14}{'measured ms':>14}"]
    for row in found:
        measured = "" if row["measured_ms"] is None else f"{row['measured_ms']:.2f}"
        lines.append(
            f"{row['protocol']:<10}{row['leader']:<16}{row['predicted_ms']:>14.2f}{measured:>14}"
        )
    return lines


def _numbers(peer: PeerBody) -> NetworkBody:
    return NetworkBody(peer.rtt_us, peer.jitter_us, peer.loss, peer.rate_bps)


# --- asking --------------------------------------------------------------------------------------


async def _ask_all(record: EpochRecord) -> dict[str, StatusBody]:
    timeout = aiohttp.ClientTimeout(total=ASK_S_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        found = await asyncio.gather(*(_ask(http, record, m) for m in record.members))
    return {status.name: status for status in found if status is not None}


async def _ask(
    http: aiohttp.ClientSession, record: EpochRecord, member: Member
) -> StatusBody | None:
    """A member's status, its signature checked with a fresh nonce; None where it does not hold."""
    nonce = secrets.token_bytes(32)
    url = f"{member.client}/dwcp/v1/status?nonce={nonce.hex()}"
    try:
        # the answer is believed by its signature, whatever certificate it came over
        async with http.get(url, ssl=False) as response:
            body = await response.content.read(ANSWER_BYTES_MAX)
            signature = base64.b64decode(response.headers.get("DWCP-Signature", ""))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    message = scope_of(record, record).signing_bytes("status", nonce + body)
    if not Ed25519Verifier.check(member.identity, message, signature):
        return None
    try:
        return _decode_status(body)
    except msgspec.DecodeError:
        return None


def _genesis(data_dir: Path) -> SignedGenesis:
    try:
        return _decode_genesis((data_dir / "genesis.msgpack").read_bytes())
    except FileNotFoundError:
        _fail(EXIT_NO_CLUSTER, f"{data_dir} holds no cluster: bring one up with `dwcp up`")
    except msgspec.DecodeError as error:
        _fail(EXIT_NO_CLUSTER, f"{data_dir}/genesis.msgpack is damaged: {error}")


def _fail(code: int, sentence: str) -> NoReturn:
    click.echo(f"Error: {sentence}", err=True)
    raise click.exceptions.Exit(code)
