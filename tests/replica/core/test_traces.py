from __future__ import annotations

from pathlib import Path

import pytest

from replica.core.conversation import replay

TRACES = Path(__file__).resolve().parents[2] / "traces"


@pytest.mark.parametrize("path", sorted(TRACES.glob("*.txt")), ids=lambda p: p.stem)
def test_trace(path: Path, rewrite: bool) -> None:
    got = replay(path.read_text())
    if rewrite:
        path.write_text(got)
    assert got == path.read_text(), f"repeat: pytest {Path(__file__).name} -k {path.stem}"
