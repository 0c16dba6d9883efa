"""docs/reliability.md, written by the tests: what each thing that went wrong has cost.

`note` keeps a figure; with DWCP_RELIABILITY=write in the environment the page is written anew at
the session's end from what this run has seen and, for tests that did not run, what it said before.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from kube.load import Written
from kube.product import ROOT

PAGE = ROOT / "docs" / "reliability.md"
_MARK = "| what happened |"
_HEAD = """\
# What faults cost

<!-- Written by the tests on real Kubernetes: `make e2e-all`. Change the tests, not this page. -->

Each line is one run of one test in the sandbox ([tests/sandbox](../tests/sandbox/README.md)): a
whole Kubernetes, the cluster and its clients on one machine with two cores. A client in a pod
writes one key after the other through the verifying client; *lost* are writes that were
acknowledged and can not be read back afterwards, *pause* is the longest time between two
acknowledgements.

| what happened | writes | lost | pause | besides |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    what: str
    writes: str
    lost: str
    pause: str
    besides: str

    def line(self) -> str:
        return f"| {self.what} | {self.writes} | {self.lost} | {self.pause} | {self.besides} |"


_rows: dict[str, Row] = {}


def note(what: str, written: Written | None = None, besides: str = "") -> None:
    """Keep what a test has seen."""
    if written is None:
        _rows[what] = Row(what, "-", "-", "-", besides)
    else:
        pause = f"{written.pause_ms} ms"
        _rows[what] = Row(what, str(written.writes), str(written.lost), pause, besides)


def _before(path: Path) -> dict[str, Row]:
    """The rows of the page as it is."""
    if not path.exists():
        return {}
    body = path.read_text().partition(_MARK)[2].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in body if line]
    return {row[0]: Row(*row) for row in cells if len(row) == 5}


def render(rows: dict[str, Row]) -> str:
    """The page."""
    return _HEAD + "".join(f"{rows[what].line()}\n" for what in sorted(rows))


def finish() -> None:
    """Write the page, where that was asked for."""
    if _rows and os.environ.get("DWCP_RELIABILITY") == "write":
        PAGE.write_text(render(_before(PAGE) | _rows))
