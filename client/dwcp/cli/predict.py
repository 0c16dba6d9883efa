"""`dwcp predict`: what a cluster that does not exist yet would cost, from a file of sites."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

import click
import msgspec
from msgspec import Meta, Struct

if TYPE_CHECKING:
    from dwcp_replica.core.modes.predict import Prediction

EXIT_BAD_SITES: Final = 2
Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Site = Annotated[str, Meta(min_length=1, max_length=63)]


class Sites(Struct, forbid_unknown_fields=True):
    """Where members and a client would stand, and how far the sites are apart.

    members: the site of each member. one_way_ms: delays by site and site, given once for both
    directions or once for each. within_ms: between two machines of one site. persist_ms and
    handle_ms: what a synced write and the handling of a message cost a replica.
    """

    members: Annotated[list[Site], Meta(min_length=1, max_length=100)]
    one_way_ms: dict[Site, dict[Site, Milliseconds]] = {}
    client: Site | None = None
    trust: Literal["Byzantine", "Crash"] = "Byzantine"
    within_ms: Milliseconds = 0.25
    persist_ms: Milliseconds = 0.0
    handle_ms: Milliseconds = 0.0

    def delay_ms(self, one: str, other: str) -> float:
        """From one site to another. Raises KeyError when the file does not say it."""
        if one == other:
            return self.within_ms
        there = self.one_way_ms.get(one, {}).get(other)
        return self.one_way_ms[other][one] if there is None else there


@click.command()
@click.option(
    "-f", "--file", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Sites."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.option(
    "--measure", is_flag=True, help="Beside it: the real engine over such links, simulated."
)
def predict(file: Path, output: str, *, measure: bool) -> None:
    """Predict the latency of every protocol and every leader, from a file of sites.

    See examples/sites.yaml. Delays are one-way, in milliseconds.
    """
    sites = _load(file)
    if measure and sites.client is None:
        _fail(f"{file}: what is measured is a client's answer: write client: and its site")
    found = _predictions(file, sites)
    rows = [_row(sites, p, _measured(sites, p) if measure else None) for p in found]
    if output == "json":
        click.echo(json.dumps({"trust": sites.trust, "predictions": rows}))
        return
    heads = ("answer ms" if sites.client is not None else "", "measured ms" if measure else "")
    click.echo(
        f"{'protocol':<10}{'leader':>7}  {'site':<16}{'commit ms':>10}"
        f"{heads[0]:>12}{heads[1]:>13}".rstrip()
    )
    for row in rows:
        tail = "".join(
            "" if row[key] is None else f"{row[key]:>{width}.1f}"
            for key, width in (("answer_ms", 12), ("measured_ms", 13))
        )
        click.echo(
            f"{row['protocol']:<10}{row['leader']:>7}  {row['site']:<16}"
            f"{row['commit_ms']:>10.1f}{tail}"
        )


def _measured(sites: Sites, prediction: Prediction) -> float:
    """What the engine takes in the simulator, its members turned so that the leader is first."""
    from dwcp_replica.sim.calibration import simulated_ms

    at, client = prediction.leader, sites.client
    assert client is not None, "checked"
    members = sites.members[at:] + sites.members[:at]
    matrix = [
        [0.0 if i == j else sites.delay_ms(a, b) for j, b in enumerate(members)]
        for i, a in enumerate(members)
    ]
    client_ms = [sites.delay_ms(client, site) for site in members]
    sync_ms = round(sites.persist_ms)
    return simulated_ms(prediction.protocol, matrix, client_ms, sync_ms=sync_ms, jitter=0.0)


def _load(file: Path) -> Sites:
    try:
        return msgspec.yaml.decode(file.read_bytes(), type=Sites)
    except OSError as error:
        _fail(f"{file}: {error.strerror}: name a file of sites, as examples/sites.yaml is")
    except msgspec.DecodeError as error:
        _fail(f"{file}: {error}: see examples/sites.yaml")


def _predictions(file: Path, sites: Sites) -> list[Prediction]:
    """Every protocol that this trust allows, the quickest leader first."""
    from dwcp_replica.core.modes.predict import Costs, Protocol, ranking

    members = sites.members
    if sites.trust == "Byzantine" and (len(members) < 4 or (len(members) - 1) % 3):
        low = max(4, (len(members) - 1) // 3 * 3 + 1)
        _fail(f"{file}: {len(members)} members are not 3f+1: use {low} or {low + 3}")
    try:
        matrix = [
            [0.0 if i == j else sites.delay_ms(a, b) for j, b in enumerate(members)]
            for i, a in enumerate(members)
        ]
        client = sites.client
        client_ms = None if client is None else [sites.delay_ms(client, site) for site in members]
    except KeyError:
        _fail(f"{file}: {_unknown_pair(sites)}: write it under one_way_ms")
    costs = Costs(sites.persist_ms, sites.handle_ms)
    protocols: tuple[Protocol, ...] = ("raft",) if sites.trust == "Crash" else ("pbft", "raft")
    return [
        prediction
        for protocol in protocols
        for prediction in ranking(
            protocol, matrix, trust=sites.trust, costs=costs, client_ms=client_ms
        )
    ]


def _unknown_pair(sites: Sites) -> str:
    named = [*sites.members, *([] if sites.client is None else [sites.client])]
    for one in named:
        for other in sites.members:
            try:
                sites.delay_ms(one, other)
            except KeyError:
                return f"the delay between {one} and {other} is missing"
    raise AssertionError("every delay is known")


def _row(sites: Sites, prediction: Prediction, measured_ms: float | None) -> dict[str, Any]:
    return {
        "protocol": prediction.protocol,
        "leader": prediction.leader,
        "site": sites.members[prediction.leader],
        "commit_ms": round(prediction.commit_ms, 3),
        "answer_ms": None if prediction.answer_ms is None else round(prediction.answer_ms, 3),
        "measured_ms": measured_ms,
    }


def _fail(sentence: str) -> NoReturn:
    click.echo(f"dwcp: {sentence}", err=True)
    sys.exit(EXIT_BAD_SITES)
