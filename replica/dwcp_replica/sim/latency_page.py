"""The figures of latency.py as a table and a picture; the same rows always give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from dwcp_replica.sim.latency import (
    DELAYS,
    FAST_READ,
    ONE_WAY_MS,
    ORDERED,
    ORDERED_BESIDE_FAST,
    REGIONS,
    SIZES,
    Row,
    wide_area,
)

_LEFT, _TOP, _BAR, _GAP, _GROUP = 270, 50, 12, 4, 24
_PIXELS_PER_MS = 1.2
_COLOURS = {ORDERED: "#4c78a8", FAST_READ: "#72b7b2"}


def table(rows: Sequence[Row]) -> str:
    """Delays between regions, then time and message delays for each size and client."""
    lines = [
        f"| one way, ms | {' | '.join(REGIONS)} |",
        f"|---|{'---|' * len(REGIONS)}",
    ]
    for one in REGIONS:
        cells = " | ".join(str(wide_area(one, other)) for other in REGIONS)
        lines.append(f"| {one} | {cells} |")
    heads = [f"{kind}: ms (floor), delays of {least}" for kind, least in DELAYS.items()]
    lines += [
        "",
        f"| replicas | client in | {' | '.join(heads)} |",
        f"|---|---|{'---|' * len(heads)}",
    ]
    lines += [
        f"| {n} | {client} | {' | '.join(_cell(row) for row in group)} |"
        for (n, client), group in _grouped(rows).items()
    ]
    return "\n".join(lines)


def _cell(row: Row) -> str:
    return f"{row.measured_ms} ({row.floor_ms}), {row.delays:.2f}"


def _grouped(rows: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    found: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.n, row.client), []).append(row)
    return found


def picture(rows: Sequence[Row]) -> str:
    """A bar for each row, with a mark where its floor is."""
    rows = [row for row in rows if row.kind != ORDERED_BESIDE_FAST]
    longest = max(max(row.measured_ms, row.floor_ms) for row in rows)
    width = _LEFT + int(longest * _PIXELS_PER_MS) + 120
    height = _TOP + len(rows) * (_BAR + _GAP) + len(SIZES) * _GROUP
    title = "Asked to answered, in ms; a mark where the least number of one-way delays ends"
    box = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="13">{title}</text>',
    ]
    y = _TOP
    for n in SIZES:
        parts.append(f'<text x="8" y="{y + 10}" font-weight="bold">{n} replicas</text>')
        for row in rows:
            if row.n == n:
                parts += _bar(row, y)
                y += _BAR + _GAP
        y += _GROUP
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Row, y: int) -> list[str]:
    end = _LEFT + row.measured_ms * _PIXELS_PER_MS
    floor = _LEFT + row.floor_ms * _PIXELS_PER_MS
    box = f'x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}"'
    said = f"{row.measured_ms} ms, {row.delays:.2f} delays"
    return [
        f'<text x="{_LEFT - 6}" y="{y + 10}" text-anchor="end">{row.client}, {row.kind}</text>',
        f'<rect {box} fill="{_COLOURS[row.kind]}"/>',
        f'<path d="M{floor:.1f} {y - 2}v{_BAR + 4}" stroke="#e45756" stroke-width="2"/>',
        f'<text x="{max(end, floor) + 6:.1f}" y="{y + 10}">{said}</text>',
    ]


assert len(ONE_WAY_MS) == len(REGIONS) * (len(REGIONS) + 1) // 2, "a delay for every two regions"
