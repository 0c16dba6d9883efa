"""A bbolt database, written once from sorted pairs: what etcd keeps its keys in.

A file of pages of 4096 bytes: two metas, an empty free list, and a B+ tree for each bucket, whose
roots stand in one leaf. A leaf that holds a large value runs on over the pages after it. Numbers
are little-endian. (bbolt's page.go, bucket.go and meta.go, format version 2.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import IO, Final

PAGE_BYTES: Final = 4096
_MAGIC: Final = 0xED0CDAED
_VERSION: Final = 2
_BRANCH, _LEAF, _META, _FREE_LIST = 0x01, 0x02, 0x04, 0x10
_BUCKET: Final = 0x01
"""Flag of a leaf's element whose value is a bucket."""
_HEADER: Final = struct.Struct("<QHHI")
_LEAF_ELEMENT: Final = struct.Struct("<IIII")
_BRANCH_ELEMENT: Final = struct.Struct("<IIQ")
_META_BODY: Final = struct.Struct("<IIIIQQQQQ")
_BUCKET_BODY: Final = struct.Struct("<QQ")
_ELEMENT_BYTES: Final = 16
_COUNT_MAX: Final = 0xFFFE

Pair = tuple[bytes, bytes]


def write_database(file: IO[bytes], buckets: Sequence[tuple[bytes, Iterable[Pair]]]) -> None:
    """Write buckets, sorted by name, each with its pairs, sorted by key and without repetition."""
    tree = _Writer(file)
    roots = [
        (name, _BUCKET_BODY.pack(tree.write_tree(pairs, flags=0), 0)) for name, pairs in buckets
    ]
    tree.finish(tree.write_tree(roots, flags=_BUCKET))


class _Writer:
    """Pages in order; the first three are left for the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._next = 3
        file.seek(self._next * PAGE_BYTES)

    def write_tree(self, pairs: Iterable[Pair], flags: int) -> int:
        """A B+ tree; the page of its root."""
        level: list[tuple[bytes, int]] = []
        leaf: list[Pair] = []
        used = _HEADER.size
        for key, value in pairs:
            size = _ELEMENT_BYTES + len(key) + len(value)
            if leaf and (used + size > PAGE_BYTES or len(leaf) >= _COUNT_MAX):
                level.append((leaf[0][0], self._leaf(leaf, flags)))
                leaf, used = [], _HEADER.size
            leaf.append((key, value))
            used += size
        if leaf or not level:
            level.append((leaf[0][0] if leaf else b"", self._leaf(leaf, flags)))
        while len(level) > 1:
            level = self._branches(level)
        return level[0][1]

    def finish(self, root: int) -> None:
        """Write the free list and the metas."""
        pages = self._next
        self._file.seek(2 * PAGE_BYTES)
        self._file.write(_HEADER.pack(2, _FREE_LIST, 0, 0).ljust(PAGE_BYTES, b"\0"))
        self._file.seek(0)
        for number in (0, 1):
            body = _META_BODY.pack(
                _MAGIC, _VERSION, PAGE_BYTES, 0, root, 0, 2, pages, number
            )  # the root, its sequence, the free list, the pages in use, the transaction
            meta = _HEADER.pack(number, _META, 0, 0) + body + struct.pack("<Q", _fnv64a(body))
            self._file.write(meta.ljust(PAGE_BYTES, b"\0"))

    def _branches(self, below: list[tuple[bytes, int]]) -> list[tuple[bytes, int]]:
        """The level above: as few pages as hold it."""
        level: list[tuple[bytes, int]] = []
        part: list[tuple[bytes, int]] = []
        used = _HEADER.size
        for key, page in below:
            size = _ELEMENT_BYTES + len(key)
            # a branch of one child would never end
            if len(part) > 1 and used + size > PAGE_BYTES:
                level.append((part[0][0], self._branch(part)))
                part, used = [], _HEADER.size
            part.append((key, page))
            used += size
        level.append((part[0][0], self._branch(part)))
        return level

    def _leaf(self, pairs: list[Pair], flags: int) -> int:
        elements, data = bytearray(), bytearray()
        for at, (key, value) in enumerate(pairs):
            place = (len(pairs) - at) * _ELEMENT_BYTES + len(data)
            elements += _LEAF_ELEMENT.pack(flags, place, len(key), len(value))
            data += key + value
        return self._page(_LEAF, len(pairs), elements + data)

    def _branch(self, children: list[tuple[bytes, int]]) -> int:
        elements, data = bytearray(), bytearray()
        for at, (key, page) in enumerate(children):
            place = (len(children) - at) * _ELEMENT_BYTES + len(data)
            elements += _BRANCH_ELEMENT.pack(place, len(key), page)
            data += key
        return self._page(_BRANCH, len(children), elements + data)

    def _page(self, kind: int, count: int, body: bytes | bytearray) -> int:
        number = self._next
        pages = -(-(_HEADER.size + len(body)) // PAGE_BYTES)
        data = _HEADER.pack(number, kind, count, pages - 1) + body
        self._file.write(data.ljust(pages * PAGE_BYTES, b"\0"))
        self._next += pages
        return number


def _fnv64a(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found
