"""What the predecessor's types did wrong, each as a test with the flaw's name."""

from __future__ import annotations

from itertools import permutations
from random import Random

from client.crdt.people import document, rules, signers
from dwcp.crdt import Document, MultiValue, Resolutions, Strategies, conflicts
from dwcp.crdt.sync import SyncState, decode, encode, generate, receive
from dwcp.wire.documents import Operation


def set_mv(replica: Document, author: int, value: str) -> None:
    with replica.edit(signers(8)[author], epoch=0) as transaction:
        transaction.set("register", value, "mv")


def exchange(*replicas: Document) -> None:
    for source in replicas:
        for operation in list(source.operations()):
            for target in replicas:
                target.receive(operation)


def again(replica: Document) -> Document:
    """Through bytes and back: where the predecessor lost things."""
    return Document.restore(replica.dump(), rules())


def test_mv_register_merged_with_itself_erased_its_values() -> None:
    a, b = document(), document()
    set_mv(a, 0, "x")
    set_mv(b, 1, "y")
    exchange(a, b)
    before = a.get("register", "mv")
    assert sorted(before) == ["x", "y"]
    exchange(a, a)
    for operation in list(again(a).operations()):
        a.receive(operation)
    assert a.get("register", "mv") == before


def test_or_set_remove_was_lost_in_a_round_trip_through_json() -> None:
    a = document()
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.add("set", "stays")
        transaction.add("set", "goes")
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.discard("set", "goes")
    b = again(a)
    assert b.get("set", "or-set") == ["stays"]
    exchange(a, b)
    assert a.get("set", "or-set") == b.get("set", "or-set") == ["stays"]
    late = document()
    for operation in reversed(list(b.operations())):
        late.receive(operation)
    assert late.get("set", "or-set") == ["stays"]


def test_or_set_addition_survives_a_concurrent_remove() -> None:
    a, b = document(), document()
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.add("set", "x")
    exchange(a, b)
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.discard("set", "x")
    with b.edit(signers(8)[1], epoch=0) as transaction:
        transaction.add("set", "x")
    exchange(a, b)
    assert a.get("set", "or-set") == b.get("set", "or-set") == ["x"]


def test_2p_set_removal_is_for_good() -> None:
    a, b = document(), document()
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.add("set", "x", "2p-set")
        transaction.add("set", "y", "2p-set")
    exchange(a, b)
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.discard("set", "x", "2p-set")
    with b.edit(signers(8)[1], epoch=0) as transaction:
        transaction.add("set", "x", "2p-set")
    exchange(a, b)
    assert a.get("set", "2p-set") == b.get("set", "2p-set") == ["y"]


def test_unmarshal_stole_the_node_id_so_that_5_and_1_and_1_were_6() -> None:
    a, b = document(), document()
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.increment("hits", 5, "g-counter")
    exchange(a, b)
    b = again(b)
    for replica, author in ((a, 0), (b, 1)):
        with replica.edit(signers(8)[author], epoch=0) as transaction:
            transaction.increment("hits", 1, "g-counter")
    exchange(a, b)
    exchange(a, b)
    assert again(a).get("hits", "g-counter") == b.get("hits", "g-counter") == 7


def test_list_text_diverged_in_500_of_500_random_runs() -> None:
    """500 runs of three authors on one text; a run that fails names its seed."""
    for seed in range(500):
        random = Random(seed)
        replicas = [document() for _ in range(3)]
        for _ in range(8):
            author = random.randrange(3)
            replica = replicas[author]
            length = len(replica.get("text", "text") or "")
            with replica.edit(signers(8)[author], epoch=0) as transaction:
                if length and random.random() < 0.4:
                    transaction.delete("text", random.randrange(length))
                else:
                    transaction.insert("text", random.randint(0, length), random.choice("abc"))
            if random.random() < 0.3:
                exchange(*random.sample(replicas, 2))
        exchange(*replicas)
        assert len({replica.get("text", "text") for replica in replicas}) == 1, f"seed {seed}"


def test_serialisation_by_percent_v_lost_types() -> None:
    """Every JSON type comes back as it went in, and 1, 1.0, "1" and true stay apart."""
    a = document()
    value = {"n": None, "t": True, "i": 1, "f": 1.0, "s": "1", "l": [1, [2]], "d": {"": {}}}
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.set("value", value)
        for member in (1, 1.0, "1", True, None):
            transaction.add("set", member)
    for copy in (again(a), document()):
        exchange(a, copy)
        shown = copy.get("value", "lww")
        assert shown == value
        assert [type(item) for item in shown.values()] == [type(item) for item in value.values()]
        assert len(copy.get("set", "or-set")) == 5


def test_crdt_sync_had_no_transport() -> None:
    """All types, as bytes over a wire, to a replica that has nothing."""
    a, b = document(), document()
    with a.edit(signers(8)[0], epoch=0) as transaction:
        transaction.insert("text", 0, "hello")
        transaction.insert("list", 0, [1, {"k": "v"}])
        transaction.increment("count", 2)
        transaction.add("set", "m")
        transaction.set("mv", 1, "mv")
        transaction.set(("map", "lww"), 2)
    states = SyncState(), SyncState()
    for _ in range(5):
        for source, target, state, other in ((a, b, *states), (b, a, *reversed(states))):
            message = generate(source, state)
            if message is not None:
                receive(target, other, decode(encode(message)))
    assert b.view() == a.view()
    assert set(b.view()) == {"text", "list", "count", "set", "mv", "map"}


def test_concurrent_meant_within_one_second() -> None:
    """No clock takes part: a conflict is there days later, and none within a millisecond."""
    a, b = document(), document()
    set_mv(a, 0, "first")
    exchange(a, b)
    set_mv(b, 1, "seen and replaced")
    assert list(conflicts(b)) == []
    set_mv(a, 0, "unseen")
    exchange(a, b)
    (conflict,) = conflicts(a)
    kept = Resolutions()
    day_ms = 86_400_000
    assert kept.resolve(conflict, 0) == kept.resolve(conflict, 30 * day_ms)
    assert kept.conflict_count == 1


def test_conflict_strategies_were_never_applied() -> None:
    a, b = document(), document()
    set_mv(a, 0, "x")
    set_mv(b, 1, "y")
    exchange(a, b)
    (conflict,) = conflicts(a)
    shown = Resolutions(Strategies(MultiValue())).resolve(conflict, 0)
    assert sorted(shown) == ["x", "y"]


def test_counters_delivered_in_any_order_and_twice() -> None:
    operations: list[Operation] = []
    for author, amount in ((0, 5), (1, 1), (2, 1)):
        source = document()
        with source.edit(signers(8)[author], epoch=0) as transaction:
            transaction.increment("hits", amount, "g-counter")
        operations += source.operations()
    for order in permutations(operations):
        replica = document()
        for operation in (*order, *order):
            replica.receive(operation)
        assert replica.get("hits", "g-counter") == 7
