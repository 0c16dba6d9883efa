from __future__ import annotations

from hashlib import sha256

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.wire.signing import digest
from dwcp_replica.store.digest import LEAF_RECORDS_MAX, StateDigest


def naive(records: dict[int, bytes]) -> bytes:
    """The same digest from scratch, by recursion over hexadecimal strings."""
    pairs = sorted(
        (sha256(msgspec.msgpack.encode(("r", key))).hexdigest(), sha256(value).digest())
        for key, value in records.items()
    )

    def node(part: list[tuple[str, bytes]], depth: int) -> bytes:
        if len(part) <= LEAF_RECORDS_MAX:
            return sha256(b"\x00" + b"".join(bytes.fromhex(p) + v for p, v in part)).digest()
        children = ([x for x in part if x[0][depth] == c] for c in "0123456789abcdef")
        return sha256(
            b"\x01" + b"".join(node(c, depth + 1) if c else bytes(32) for c in children)
        ).digest()

    return digest("state", node(pairs, 0))


STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 300), st.sampled_from([b"", b"x", b"y", None])),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_incremental_equals_from_scratch(steps: list[tuple[int, int, bytes | None]]) -> None:
    """Each step sets or removes a run of records, so that nodes split and merge."""
    tree, records = StateDigest(), dict[int, bytes]()
    for spacing, start, value in steps:
        for key in range(start, start + spacing * 20, max(spacing, 1)):
            tree.update(("r", key), value)
            if value is None:
                records.pop(key, None)
            else:
                records[key] = value
        if spacing == 0:
            assert tree.root() == naive(records)
    assert tree.root() == naive(records)
    assert len(tree) == len(records)


def test_order_of_arrival_and_departed_records_leave_no_trace() -> None:
    forward, backward = StateDigest(), StateDigest()
    for key in range(1000):
        forward.update(("r", key), b"v")
    for key in reversed(range(3000)):
        backward.update(("r", key), b"v")
    backward.root()
    for key in range(1000, 3000):
        backward.update(("r", key), None)
    assert forward.root() == backward.root() == naive(dict.fromkeys(range(1000), b"v"))


def test_any_changed_byte_shows() -> None:
    tree = StateDigest()
    for key in range(500):
        tree.update(("r", key), b"value-%d" % key)
    before = tree.root()
    for key in range(0, 500, 50):
        value = b"value-%d" % key
        for position in range(len(value)):
            changed = bytearray(value)
            changed[position] ^= 1
            tree.update(("r", key), bytes(changed))
            assert tree.root() != before
        tree.update(("r", key), value)
        assert tree.root() == before


def test_cost_follows_the_changes(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Hashes computed for ten changes do not grow with a hundred times the records."""
    from dwcp_replica.store import digest as module

    calls = 0

    def counted(data: bytes = b"") -> object:
        nonlocal calls
        calls += 1
        return sha256(data)

    monkeypatch.setattr(module, "sha256", counted)

    def cost(size: int) -> int:
        nonlocal calls
        tree = StateDigest()
        for key in range(size):
            tree.update(("r", key), b"v")
        tree.root()
        calls = 0
        for key in range(10):
            tree.update(("r", key), b"w")
        tree.root()
        return calls

    assert cost(100_000) <= cost(1000) + 3 * 10
