"""The figures of latency.py as a table and a picture; the same rows always give the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

from dwcp_replica.sim.latency import ONE_WAY_MS, ORDERED_DELAYS, REGIONS, SIZES, Row, wide_area

_LEFT, _TOP, _BAR, _GAP, _GROUP = 150, 50, 12, 4, 24
_PIXELS_PER_MS = 1.2


def table(rows: Sequence[Row]) -> str:
    """Delays between regions, then time and message delays for each size and client."""
    lines = [
        f"| one way, ms | {' | '.join(REGIONS)} |",
        f"|---|{'---|' * len(REGIONS)}",
    ]
    for one in REGIONS:
        cells = " | ".join(str(wide_area(one, other)) for other in REGIONS)
        lines.append(f"| {one} | {cells} |")
    head = f"floor, ms | message delays (floor {ORDERED_DELAYS})"
    lines += [
        "",
        f"| replicas | client in | asked to answered, ms | {head} |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.n} | {row.client} | {row.measured_ms} | {row.floor_ms} | {row.delays:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def picture(rows: Sequence[Row]) -> str:
    """A bar for each row, with a mark where its floor is."""
    longest = max(max(row.measured_ms, row.floor_ms) for row in rows)
    width = _LEFT + int(longest * _PIXELS_PER_MS) + 120
    height = _TOP + len(rows) * (_BAR + _GAP) + len(SIZES) * _GROUP
    title = f"Asked to answered, in ms; a mark where {ORDERED_DELAYS} one-way delays end"
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
    said = f"{row.measured_ms} ms, {row.delays:.2f} delays"
    return [
        f'<text x="{_LEFT - 6}" y="{y + 10}" text-anchor="end">{row.client}</text>',
        f'<rect x="{_LEFT}" y="{y}" width="{end - _LEFT:.1f}" height="{_BAR}" fill="#4c78a8"/>',
        f'<path d="M{floor:.1f} {y - 2}v{_BAR + 4}" stroke="#e45756" stroke-width="2"/>',
        f'<text x="{max(end, floor) + 6:.1f}" y="{y + 10}">{said}</text>',
    ]


assert len(ONE_WAY_MS) == len(REGIONS) * (len(REGIONS) + 1) // 2, "a delay for every two regions"
