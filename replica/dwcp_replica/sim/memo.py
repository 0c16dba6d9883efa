"""Entry hashes computed once: in one process, every member asks for the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from dwcp.wire.peer import Header

_proper = Header.hash
_remembered = lru_cache(maxsize=8192)(_proper)


@contextmanager
def hashes_remembered() -> Iterator[None]:
    """Within this, equal headers are hashed once; the hash is a pure function of the header."""
    before = Header.hash
    Header.hash = _remembered  # type: ignore[method-assign]
    try:
        yield
    finally:
        Header.hash = before  # type: ignore[method-assign]
