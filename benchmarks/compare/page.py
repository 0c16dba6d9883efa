"""Figures to JSON, a picture, and docs/performance.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

from compare.loads import Figure
from dwcp_replica.sim.page import rewritten

WIDTH: Final = 640
BAR: Final = 16


def medians(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """One row for each system, load and number of clients: the median over the rounds."""
    rows = []
    for name, load, clients in dict.fromkeys((f.system, f.load, f.clients) for f in figures):
        same = [f for f in figures if (f.system, f.load, f.clients) == (name, load, clients)]
        row: dict[str, Any] = {"system": name, "load": load, "clients": clients}
        row["rounds"] = len(same)
        for field in ("ops_per_second", "p50_ms", "p99_ms", "cpu_s_per_1000",
                      "client_cpu_s_per_1000", "fsyncs_per_1000", "folded"):  # fmt: skip
            values = [value for f in same if (value := getattr(f, field)) is not None]
            row[field] = round(median(values), 3) if values else None
        row["errors"] = sum(f.errors for f in same)
        rows.append(row)
    return rows


def ratios(figures: Sequence[Figure], ours: str, theirs: str, clients: int) -> float | None:
    """The median over the rounds of one system's puts in a second over the other's."""

    def puts(name: str) -> list[float]:
        return [f.ops_per_second for f in figures
                if (f.system, f.load, f.clients) == (name, "puts", clients)]  # fmt: skip

    pairs = list(zip(puts(ours), puts(theirs), strict=False))
    return round(median(a / b for a, b in pairs if b), 2) if pairs else None


def marks(figures: Sequence[Figure]) -> list[str]:
    """The marks that were set before, and what was measured."""
    rows = medians(figures)

    def p99(name: str, clients: int) -> Any:
        return next((r["p99_ms"] for r in rows if (r["system"], r["load"], r["clients"])
                     == (name, "puts", clients)), None)  # fmt: skip

    lines = [("| clients | DWCP Datacenter / etcd (mark 1.2) | p99 of both, ms | "
             "DWCP Internet / CometBFT (mark 2) |"), "|---|---|---|---|"]  # fmt: skip
    for clients in sorted({f.clients for f in figures if f.load == "puts"}):
        etcd = ratios(figures, "DWCP Datacenter", "etcd", clients)
        comet = ratios(figures, "DWCP Internet", "CometBFT", clients)
        both = f"{p99('DWCP Datacenter', clients)} and {p99('etcd', clients)}"
        lines.append(f"| {clients} | {_or_dash(etcd)} | {both} | {_or_dash(comet)} |")
    return lines


def table(figures: Sequence[Figure]) -> list[str]:
    """All medians."""
    head = ["system", "load", "clients", "operations/s", "p50 ms", "p99 ms", "errors",
            "server CPU-s per 1,000", "client CPU-s per 1,000", "fsyncs per 1,000",
            "operations in an envelope or transaction"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in medians(figures):
        cells = [
            row["system"], row["load"], row["clients"], f"{row['ops_per_second']:,.0f}",
            row["p50_ms"], row["p99_ms"], row["errors"], row["cpu_s_per_1000"],
            row["client_cpu_s_per_1000"], row["fsyncs_per_1000"], row["folded"],
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(_or_dash, cells)) + " |")
    return lines


def picture(figures: Sequence[Figure]) -> str:
    """Puts in a second by system and number of clients, as an SVG."""
    rows = [row for row in medians(figures) if row["load"] == "puts"]
    most = max((row["ops_per_second"] for row in rows), default=1.0)
    height = 24 + BAR * len(rows)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 260}" height="{height}" '
            'font-family="sans-serif" font-size="11">'
        ),
        '<text x="4" y="14">puts in a second (256 bytes), median of the rounds</text>',
    ]
    for at, row in enumerate(sorted(rows, key=lambda r: (r["clients"], r["system"]))):
        y = 24 + BAR * at
        wide = row["ops_per_second"] / most * (WIDTH - 200)
        colour = "#2b6cb0" if row["system"].startswith("DWCP") else "#a0aec0"
        parts += [
            f'<text x="4" y="{y + 11}">{row["clients"]} clients, {row["system"]}</text>',
            f'<rect x="200" y="{y + 1}" width="{wide:.0f}" height="{BAR - 3}" fill="{colour}"/>',
            f'<text x="{205 + wide:.0f}" y="{y + 11}">{row["ops_per_second"]:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])


def write(folder: Path, figures: Sequence[Figure], about: dict[str, Any]) -> None:
    """Write performance.json, performance.svg and the tables of performance.md."""
    found = {"about": about, "figures": [figure.shown() for figure in figures]}
    (folder / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "performance.svg").write_text(picture(figures))
    page = folder / "performance.md"
    said = [f"{key}: {value}" for key, value in about.items() if key != "systems"]
    said += [f"{name}: {what}" for name, what in about["systems"].items()]
    lines = [*(f"- {one}" for one in said), "", *marks(figures), "", *table(figures)]
    page.write_text(rewritten(page.read_text(), "figures", "\n".join(lines)))


def _or_dash(value: object) -> str:
    return "" if value is None else str(value)
