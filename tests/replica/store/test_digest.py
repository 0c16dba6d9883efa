from __future__ import annotations

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp.wire.signing import digest
from dwcp_replica.core import trie as module
from dwcp_replica.core.trie import LEAF_RECORDS_MAX, node_hash
from dwcp_replica.store import digest as keeper
from dwcp_replica.store.digest import Trie
from dwcp_replica.store.layout import event_key
from dwcp_replica.store.records import MemoryNodes


def key_of(number: int) -> bytes:
    return b"r%d" % number


def naive(records: dict[int, bytes]) -> bytes:
    """The same digest from scratch, by recursion over hexadecimal strings."""
    pairs = sorted(
        (sha256(key_of(number)).hexdigest(), sha256(value).digest())
        for number, value in records.items()
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
    nodes = MemoryNodes()
    tree, records = Trie(nodes), dict[int, bytes]()
    for spacing, start, value in steps:
        run = range(start, start + spacing * 20, max(spacing, 1))
        tree.update({key_of(number): value for number in run})
        for number in run:
            if value is None:
                records.pop(number, None)
            else:
                records[number] = value
        if spacing == 0:
            assert tree.root() == naive(records)
    assert tree.root() == naive(records)
    assert len(tree) == len(records)
    again = MemoryNodes()
    Trie(again).update({key_of(number): value for number, value in records.items()})
    held = {place: node for place, node in nodes.held.items() if node != b"\x00"}
    assert held == {place: node for place, node in again.held.items() if node != b"\x00"}


def test_order_of_arrival_and_departed_records_leave_no_trace() -> None:
    forward, backward = Trie(MemoryNodes()), Trie(MemoryNodes())
    for number in range(1000):
        forward.update({key_of(number): b"v"})
    for number in reversed(range(3000)):
        backward.update({key_of(number): b"v"})
    for number in range(1000, 3000):
        backward.update({key_of(number): None})
    assert forward.root() == backward.root() == naive(dict.fromkeys(range(1000), b"v"))


def test_any_changed_byte_shows() -> None:
    tree = Trie(MemoryNodes())
    tree.update({key_of(number): b"value-%d" % number for number in range(500)})
    before = tree.root()
    for number in range(0, 500, 50):
        value = b"value-%d" % number
        for position in range(len(value)):
            changed = bytearray(value)
            changed[position] ^= 1
            tree.update({key_of(number): bytes(changed)})
            assert tree.root() != before
        tree.update({key_of(number): value})
        assert tree.root() == before


def test_a_parent_names_its_children_by_their_own_hashes() -> None:
    nodes = MemoryNodes()
    Trie(nodes).update({key_of(number): b"v" for number in range(2000)})
    inner = [place for place, node in nodes.held.items() if not module.is_leaf(node)]
    assert len(inner) > 1
    for place in inner:
        for nibble, hash_ in enumerate(module.child_hashes(nodes.held[place])):
            child = nodes.held.get(module.child_place(place, nibble))
            assert (module.ABSENT if child is None else node_hash(child)) == hash_


def test_events_that_follow_each_other_share_leaves() -> None:
    """A run of events changes an eighth as many leaves, and never makes one that is too full."""
    nodes = MemoryNodes()
    tree = Trie(nodes)
    tree.update({event_key(revision): b"e" for revision in range(1, 20_001)})
    held = dict(nodes.held)
    tree.update({event_key(revision): b"f" for revision in range(10_000, 10_256)})
    changed = [place for place, node in nodes.held.items() if held[place] != node]
    assert sum(module.is_leaf(nodes.held[place]) for place in changed) <= 256 // 8 + 1
    tree.update({event_key(7, place): b"t" for place in range(1, 3000)})
    tree.update({event_key(7, 2**24 + place): b"t" for place in range(300)})
    assert len(tree) == 20_000 + 2999 + 300
    assert max(map(len, nodes.held)) < 12, "no deep chains"
    by_path = {module.path_of(event_key(r, s)) for r in range(1, 300) for s in (0, 1, 7, 8, 300)}
    assert len(by_path) == 299 * 5


def test_cost_follows_the_changes(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Hashes computed for ten changes do not grow with a hundred times the records."""
    calls = 0

    def counted(data: bytes = b"") -> object:
        nonlocal calls
        calls += 1
        return sha256(data)

    monkeypatch.setattr(module, "sha256", counted)
    monkeypatch.setattr(keeper, "sha256", counted)

    def cost(size: int) -> int:
        nonlocal calls
        tree = Trie(MemoryNodes())
        tree.update({key_of(number): b"v" for number in range(size)})
        calls = 0
        tree.update({key_of(number): b"w" for number in range(10)})
        tree.root()
        return calls

    assert cost(100_000) <= cost(1000) + 3 * 10
