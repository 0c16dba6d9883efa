"""Cut links between members on one machine, for tests of partitions (DWCP_TEST_CUTS: the file).

A file says whom each member does not reach: {"a": ["c", "d"], "c": ["a"], ...}. It is read again
and again, so that a test cuts and mends while the processes run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

import msgspec

LOOK_S: Final = 0.1

_log = logging.getLogger(__name__)


def cuts_of(path: Path, name: str) -> frozenset[str]:
    """Whom this member does not reach now; nobody while there is no readable file."""
    try:
        said = msgspec.json.decode(path.read_bytes(), type=dict[str, list[str]])
    except (OSError, msgspec.DecodeError):
        return frozenset()
    return frozenset(said.get(name, ()))


async def follow_cuts(path: Path, name: str, cut: Callable[[Collection[str]], None]) -> None:
    """Cut and mend as the file says, until cancelled."""
    before: frozenset[str] = frozenset()
    while True:
        now = cuts_of(path, name)
        if now != before:
            _log.warning("links-cut", extra={"to": sorted(now)})
            cut(now)
            before = now
        await asyncio.sleep(LOOK_S)
