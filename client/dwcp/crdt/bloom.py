"""A Bloom filter over hashes: says "surely not" or "probably".

Operation hashes are already uniform, so the probes are taken from their bits, mixed with a salt:
an author who grinds an operation until it collides in one filter gains nothing in the next.
Double hashing as in Kirsch and Mitzenmacher 2008, "Less Hashing, Same Performance".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dwcp.wire.documents import MAX_FILTER_BYTES, Filter

BITS_PER_ENTRY: Final = 10
PROBES: Final = 7
"""With 10 bits for each entry: about one false "probably" in 100."""
ENTRIES_MAX: Final = MAX_FILTER_BYTES * 8 // BITS_PER_ENTRY
_MASK: Final = 2**64 - 1


def _steps(name: bytes, salt: int) -> tuple[int, int]:
    first = int.from_bytes(name[:8], "big") ^ salt
    second = int.from_bytes(name[8:16], "big") ^ (salt * 0x9E3779B97F4A7C15 & _MASK)
    return (first * 0xBF58476D1CE4E5B9) & _MASK, second | 1


def filter_of(names: Iterable[bytes], salt: int) -> Filter:
    """A filter that holds these hashes. More than ENTRIES_MAX of them are an error of ours."""
    held = list(names)
    assert len(held) <= ENTRIES_MAX, f"{len(held)} entries do not fit a filter"
    size = max(1, len(held) * BITS_PER_ENTRY)
    bits = bytearray((size + 7) // 8)
    size = len(bits) * 8
    for name in held:
        place, step = _steps(name, salt)
        for _ in range(PROBES):
            at = place % size
            bits[at >> 3] |= 1 << (at & 7)
            place += step
    return Filter(bytes(bits), PROBES, salt)


def may_hold(filter_: Filter, name: bytes) -> bool:
    """False only when the filter's maker did not have this hash."""
    size = len(filter_.bits) * 8
    if not size:
        return False
    place, step = _steps(name, filter_.salt)
    for _ in range(filter_.probes):
        at = place % size
        if not filter_.bits[at >> 3] >> (at & 7) & 1:
            return False
        place += step
    return True
