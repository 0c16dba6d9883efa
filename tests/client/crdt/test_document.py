"""What a document takes, holds and refuses; and that liars never split the honest."""

from __future__ import annotations

from enum import IntEnum
from itertools import permutations
from random import Random
from typing import Any

import msgspec
import pytest

from client.crdt.people import GENESIS, Members, document, signers
from dwcp.crdt import BadEdit, BadValue, Document, Received, Refused
from dwcp.crdt.held import HELD_BYTES_PER_AUTHOR_MAX, HELD_PER_AUTHOR_MAX
from dwcp.identity import Ed25519Signer
from dwcp.wire.documents import (
    AMOUNT_MAX,
    MAX_HEADS,
    Add,
    Assign,
    Delete,
    Discard,
    Edit,
    Increment,
    Insert,
    Make,
    Operation,
    OperationBody,
    Remove,
    operation_signing_bytes,
)

TEXT = ("text",)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


def sign(author: int, body: OperationBody | bytes, genesis: bytes = GENESIS) -> Operation:
    """An operation with any content, properly signed: what a lying author can make."""
    data = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
    signer = signers(8)[author]
    return Operation(signer.public_key, data, signer.sign(operation_signing_bytes(genesis, data)))


def forge(author: int, *edits: Edit, past: tuple[Operation, ...] = (), **changes: Any) -> Operation:
    """A well-formed operation after `past`, with fields changed."""
    fields: dict[str, Any] = {
        "document": "notes",
        "epoch": 0,
        "counter": 1,
        "lamport": 1 + max((lamport(operation) for operation in past), default=0),
        "previous": 0,
        "heads": tuple(operation.hash() for operation in past),
        "names": (),
        "edits": edits,
    }
    return sign(author, OperationBody(**(fields | changes)))


def lamport(operation: Operation) -> int:
    return msgspec.msgpack.decode(operation.body, type=OperationBody).lamport


def typed(replica: Document, author: int, text: str, position: int = 0) -> Operation:
    with replica.edit(signers(8)[author], epoch=0) as transaction:
        transaction.insert("text", position, text)
    assert transaction.operation is not None
    return transaction.operation


def assert_refused(replica: Document, operation: Operation, reason: str) -> None:
    before = (replica.heads, replica.view(), len(replica.graph), len(replica.held))
    counted = replica.refused[reason]
    assert replica.receive(operation) == Received("refused", (), reason)
    assert (replica.heads, replica.view(), len(replica.graph), len(replica.held)) == before
    assert replica.refused[reason] == counted + 1


class TestRefused:
    def test_a_forged_signature(self) -> None:
        good = forge(0, Assign(("a",), "lww", 1))
        other = forge(0, Assign(("a",), "lww", 2))
        assert_refused(document(), msgspec.structs.replace(good, sig=other.sig), "signature")

    def test_another_authors_name(self) -> None:
        good = forge(0, Assign(("a",), "lww", 1))
        stolen = msgspec.structs.replace(good, author=signers(8)[1].public_key)
        assert_refused(document(), stolen, "signature")

    def test_another_cluster(self) -> None:
        body = msgspec.msgpack.decode(forge(0, Make(("a",), "map")).body, type=OperationBody)
        assert_refused(document(), sign(0, body, genesis=b"o" * 32), "signature")

    def test_another_document(self) -> None:
        assert_refused(document(), forge(0, Make(("a",), "map"), document="other"), "document")

    def test_an_author_who_may_not_write(self) -> None:
        members = Members(barred={0: {signers(8)[3].public_key}})
        assert_refused(document(members=members), forge(3, Make(("a",), "map")), "author")

    @pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", b"\xff" * 40, b"\x98" * 2000])
    def test_malformed_bytes(self, data: bytes) -> None:
        assert_refused(document(), sign(0, data), "malformed")

    @pytest.mark.parametrize(
        "changes",
        [
            {"lamport": 5},
            {"lamport": 1},
            {"counter": 2},
            {"previous": 1},
            {"previous": 1, "counter": 2},
            {"previous": 2},
            {"epoch": 0},
        ],
    )
    def test_links_that_do_not_follow_from_the_past(self, changes: dict[str, int]) -> None:
        members = Members(newest=1)
        replica = document(members=members)
        first = forge(1, Assign(("a",), "lww", 1), epoch=1)
        assert replica.receive(first).outcome == "applied"
        bad = forge(0, Assign(("b",), "lww", 1), past=(first,), **({"epoch": 1} | changes))
        assert_refused(replica, bad, "links")

    @pytest.mark.parametrize(
        "edit",
        [
            Increment(("c",), "g-counter", 0),
            Increment(("c",), "g-counter", -3),
            Assign(("a",), "lww", 1, (7,)),
            Assign(("a",), "lww", 1, (-1,)),
            Discard(("a",), "or-set", 1, (2,)),
            Assign(("a",), "lww", float("nan")),
            Add(("a",), "or-set", float("inf")),
            Add(("a",), "or-set", 2**64 - 1),
            Assign(("a",), "lww", b"bytes"),
            Assign(("a",), "lww", {1: 2}),
            Insert(TEXT, "text", (-1, 0), right=True, content=""),
            Insert(TEXT, "text", (-1, 0), right=True, content=("a",)),
            Insert(TEXT, "list", (-1, 0), right=True, content="a"),
            Insert(TEXT, "list", (-1, 0), right=True, content=(b"x",)),
            Insert(TEXT, "text", (-1, 0), right=False, content="a"),
            Insert(TEXT, "text", (-1, 1), right=True, content="a"),
            Insert(TEXT, "text", (0, 0), right=True, content="a"),
            Insert(TEXT, "text", (1, 3), right=True, content="a"),
            Insert(("other",), "text", (1, 0), right=True, content="a"),
            Insert(TEXT, "list", (1, 0), right=True, content=("a",)),
            Insert(TEXT, "text", (9, 0), right=True, content="a"),
            Delete(TEXT, "text", ()),
            Delete(TEXT, "text", ((1, 0, 4),)),
            Delete(TEXT, "text", ((1, 3, 1),)),
            Delete(TEXT, "text", ((1, 0, 0),)),
            Delete(TEXT, "text", ((-1, 0, 1),)),
            Delete(TEXT, "text", ((0, 0, 1),)),
        ],
        ids=repr,
    )
    def test_edits_that_no_honest_author_makes(self, edit: Edit) -> None:
        replica = document()
        first = forge(1, Insert(TEXT, "text", (-1, 0), right=True, content="abc"))
        assert replica.receive(first).outcome == "applied"
        good = Assign(("also",), "lww", "fine")
        bad = forge(0, good, edit, past=(first,))
        assert replica.receive(forge(0, good, past=(first,))).outcome == "applied"
        assert_refused(replica, bad, "edit")

    def test_a_value_nested_too_deeply(self) -> None:
        for depth, reason in ((40, "edit"), (5000, "malformed")):
            data = msgspec.msgpack.encode(
                OperationBody("notes", 0, 1, 1, 0, (), (), (Assign(("a",), "lww", 77),))
            )
            deep = data.replace(b"\x4d", b"\x91" * depth + b"\x4d")
            assert_refused(document(), sign(0, deep), reason)

    @pytest.mark.parametrize("depth", [0, 1, 400, 900, 2000])
    def test_a_body_has_one_form(self, depth: int) -> None:
        """Unknown trailing parts are skipped by the decoder as deep as the stack allows, so that
        the same bytes could be taken here and refused elsewhere."""
        data = forge(0, Assign(("a",), "lww", 1)).body
        assert data[0] == 0x98
        longer = b"\x99" + data[1:] + b"\x91" * depth + b"\xc0"
        assert_refused(document(), sign(0, longer), "malformed")

    def test_numbers_and_keys_have_one_form_too(self) -> None:
        data = forge(0, Assign(("a",), "lww", 77)).body
        for other in (b"\xcc\x4d", b"\xd3" + bytes(7) + b"\x4d", b"\xca\x42\x9a\x00\x00"):
            assert_refused(document(), sign(0, data.replace(b"\x4d", other)), "malformed")
        twice = b"\x82\xa1k\x01\xa1k\x02"
        assert_refused(document(), sign(0, data.replace(b"\x4d", twice)), "malformed")

    def test_what_follows_a_refused_operation_is_never_applied(self) -> None:
        replica = document()
        bad = forge(0, Increment(("c",), "g-counter", -1))
        assert_refused(replica, bad, "edit")
        after = forge(1, Assign(("a",), "lww", 1), past=(bad,))
        assert replica.receive(after).outcome == "held"
        assert replica.view() == {}


class TestHeld:
    def test_any_order_of_delivery_gives_one_state(self) -> None:
        author = document()
        operations = [typed(author, n % 2, f"{n}") for n in range(5)]
        for order in permutations(operations):
            replica = document()
            for operation in order:
                assert replica.receive(operation).outcome in {"applied", "held"}
            assert replica.heads == author.heads
            assert replica.view() == author.view()
            assert not len(replica.held)

    def test_twice_is_once(self) -> None:
        replica = document()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.increment("count", 5)
            transaction.insert("text", 0, "x")
        operation = transaction.operation
        assert operation is not None
        assert replica.receive(operation) == Received("known")
        assert replica.view() == {"count": 5, "text": "x"}

    def test_an_operation_of_a_future_epoch_waits_for_it(self) -> None:
        """Never refused for being early: the same bytes are valid on every replica, sooner or
        later."""
        members = Members(newest=0)
        replica = document(members=members)
        operation = forge(0, Assign(("a",), "lww", 1), epoch=3)
        assert replica.receive(operation).outcome == "held"
        assert replica.held.epochs() == [3]
        members.newest = 3
        assert replica.epoch_known(3) == (operation.hash(),)
        assert replica.view() == {"a": 1}

    def test_an_author_barred_in_that_epoch_is_refused_when_it_is_known(self) -> None:
        members = Members(newest=0, barred={3: {signers(8)[0].public_key}})
        replica = document(members=members)
        assert replica.receive(forge(0, Assign(("a",), "lww", 1), epoch=3)).outcome == "held"
        members.newest = 3
        assert replica.epoch_known(3) == ()
        assert replica.refused["author"] == 1
        assert not len(replica.held)

    def test_one_author_can_not_push_out_another(self) -> None:
        replica = document()
        missing = forge(2, Make(("m",), "map"))
        for n in range(HELD_PER_AUTHOR_MAX + 10):
            replica.receive(forge(0, Assign(("a",), "lww", n), past=(missing,)))
        assert replica.refused["held-full"] == 10
        honest = forge(1, Assign(("b",), "lww", 1), past=(missing,))
        assert replica.receive(honest).outcome == "held"
        replica.receive(missing)
        assert honest.hash() in replica.graph

    def test_strangers_of_future_epochs_share_one_place(self) -> None:
        """Keys cost nothing: a share for each of them would be no bound."""
        replica = document()
        for n in range(HELD_PER_AUTHOR_MAX + 20):
            body = OperationBody("notes", 9, 1, 1, 0, (), (), ())
            data = msgspec.msgpack.encode(body)
            stranger = Ed25519Signer(b"stranger" + n.to_bytes(24, "big"))
            message = operation_signing_bytes(GENESIS, data)
            replica.receive(Operation(stranger.public_key, data, stranger.sign(message)))
        assert len(replica.held) == HELD_PER_AUTHOR_MAX
        assert replica.refused["held-full"] == 20
        missing = forge(2, Make(("m",), "map"))
        honest = forge(1, Assign(("b",), "lww", 1), past=(missing,))
        assert replica.receive(honest).outcome == "held"

    def test_held_bytes_are_bounded(self) -> None:
        replica = document()
        missing = forge(2, Make(("m",), "map"))
        big = "x" * 500_000
        for n in range(12):
            replica.receive(forge(0, Assign(("a",), "lww", f"{n}{big}"), past=(missing,)))
        assert sum(len(o.body) for o in replica.held) <= HELD_BYTES_PER_AUTHOR_MAX
        assert replica.refused["held-full"] == 4

    def test_a_long_chain_delivered_backwards_needs_no_recursion(self) -> None:
        author = document()
        operations = [typed(author, 0, "x") for _ in range(HELD_PER_AUTHOR_MAX)]
        replica = document()
        for operation in reversed(operations):
            replica.receive(operation)
        assert replica.heads == author.heads


class TestEquivocation:
    """Two operations under one counter: both count, everywhere alike (Kleppmann 2022)."""

    def test_both_count_in_any_order(self) -> None:
        first = forge(0, Insert(TEXT, "text", (-1, 0), right=True, content="yes"))
        second = forge(0, Insert(TEXT, "text", (-1, 0), right=True, content="no"))
        third = forge(0, Increment(("c",), "g-counter", 2))
        after = forge(1, Delete(TEXT, "text", ((1, 1, 2),)), past=(first, second))
        views = []
        for order in permutations((first, second, third, after)):
            replica = document()
            for operation in order:
                replica.receive(operation)
            views.append((replica.heads, replica.view()))
            assert len(replica.graph.equivocations) == 1
            ((key, hashes),) = replica.graph.equivocations.items()
            assert key == (signers(8)[0].public_key, 1)
            assert set(hashes) == {first.hash(), second.hash(), third.hash()}
        assert all(view == views[0] for view in views)

    def test_elements_of_two_faced_operations_never_share_a_name(self) -> None:
        """By (author, counter) the two "a"s would be one element: an edit on one would hit
        the other on some replicas only."""
        faces = [
            forge(0, Insert(TEXT, "text", (-1, 0), right=True, content=c)) for c in ("aaa", "bbb")
        ]
        seen_first, seen_second = document(), document()
        seen_first.receive(faces[0])
        seen_second.receive(faces[1])
        edits = [typed(seen_first, 1, "1", 1), typed(seen_second, 2, "2", 2)]
        for replica in (seen_first, seen_second):
            for operation in (*faces, *edits):
                replica.receive(operation)
        assert seen_first.view() == seen_second.view()
        text = seen_first.view()["text"]
        assert "a1aa" in text
        assert "bb2b" in text

    def test_a_crowd_of_heads_is_joined(self) -> None:
        replica = document()
        for n in range(MAX_HEADS + 5):
            replica.receive(forge(0, Assign(("a",), "lww", n)))
        with replica.edit(signers(8)[1], epoch=0) as transaction:
            transaction.set("a", "decided")
        assert len(replica.heads) == 1
        other = document()
        for operation in replica.operations():
            assert other.receive(operation).outcome == "applied"
        assert other.view() == {"a": "decided"} == replica.view()


class TestEditing:
    def edit_and_fail(self, replica: Document) -> None:
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.insert("text", 0, "goes")
            transaction.delete("text", 0, 100)

    def test_an_exception_leaves_the_document_as_it_was(self) -> None:
        replica = document()
        typed(replica, 0, "stays")
        before = (replica.heads, replica.view())
        with pytest.raises(BadEdit):
            self.edit_and_fail(replica)
        assert (replica.heads, replica.view()) == before
        typed(replica, 0, "more ")
        assert replica.view() == {"text": "more stays"}

    def test_more_than_one_operation_can_hold(self) -> None:
        replica = document()
        typed(replica, 0, "stays")
        with (
            pytest.raises(BadEdit, match="use several"),
            replica.edit(signers(8)[0], epoch=0) as transaction,
        ):
            transaction.insert("text", 0, "x" * 1_100_000)
        assert replica.view() == {"text": "stays"}
        assert len(replica.graph) == 1

    def test_thousands_of_keystrokes_are_deleted_at_once(self) -> None:
        replica, other = document(), document()
        for _ in range(5000):
            other.receive(typed(replica, 0, "x"))
        with replica.edit(signers(8)[1], epoch=0) as transaction:
            transaction.delete("text", 0, 5000)
        assert transaction.operation is not None
        assert other.receive(transaction.operation).outcome == "applied"
        assert other.view() == {"text": ""}

    def test_a_transaction_that_has_ended_takes_no_edits(self) -> None:
        replica = document()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.set("a", 1)
        for late in (
            lambda: transaction.set("a", 2),
            lambda: transaction.insert("text", 0, "x"),
            lambda: transaction.delete("text", 0, 0),
        ):
            with pytest.raises(AssertionError, match="has ended"):
                late()
        assert replica.view() == {"a": 1}

    def test_no_edits_no_operation(self) -> None:
        replica = document()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            pass
        assert transaction.operation is None
        assert replica.heads == []

    @pytest.mark.parametrize(
        "value",
        [float("nan"), 2**63, {1: 1}, b"x", "\ud800", {"\ud800": 1}, object(), {1, 2}, DEEP],
    )
    def test_values_that_are_not_json(self, value: object) -> None:
        replica = document()
        with pytest.raises(BadValue), replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.set("a", value)
        with pytest.raises(BadValue), replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.insert("list", 0, [value])
        with pytest.raises(BadValue), replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.discard("set", value)
        assert replica.view() == {}

    def test_amounts_that_do_not_fit(self) -> None:
        replica = document()
        with pytest.raises(BadEdit), replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.increment("c", AMOUNT_MAX + 1)
        with pytest.raises(BadEdit), replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.increment("c", 0, kind="g-counter")
        assert replica.view() == {}

    def test_a_key_that_may_not_write(self) -> None:
        replica = document(members=Members(barred={0: {signers(8)[5].public_key}}))
        with pytest.raises(Refused), replica.edit(signers(8)[5], epoch=0):
            pass

    def test_an_epoch_that_is_over(self) -> None:
        replica = document(members=Members(newest=2))
        with replica.edit(signers(8)[0], epoch=2) as transaction:
            transaction.set("a", 1)
        with pytest.raises(Refused, match="use 2"), replica.edit(signers(8)[0], epoch=1):
            pass

    def test_a_run_typed_letter_by_letter_is_one_insertion(self) -> None:
        replica = document()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            for position, letter in enumerate("letter by letter"):
                transaction.insert("text", position, letter)
            for position in reversed(range(6, 16)):
                transaction.delete("text", position)
        assert transaction.operation is not None
        body = msgspec.msgpack.decode(transaction.operation.body, type=OperationBody)
        assert [type(edit) for edit in body.edits] == [Insert, Delete]
        assert replica.view() == {"text": "letter"}

    def test_subclasses_of_json_types_are_stored_as_json(self) -> None:
        class Level(IntEnum):
            HIGH = 3

        class Name(str):
            __slots__ = ()

            def __str__(self) -> str:
                return "shown otherwise"

        replica = document()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.set("a", {Name("key"): (Level.HIGH, Name("text"))})
        assert replica.view() == {"a": {"key": [3, "text"]}}
        assert type(replica.view()["a"]["key"][0]) is int

    def test_what_the_caller_keeps_is_not_what_the_document_holds(self) -> None:
        replica = document()
        value = {"list": [1]}
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.set("a", value)
        value["list"].append(2)
        replica.view()["a"]["list"].append(3)
        assert replica.view() == {"a": {"list": [1]}}


class TestRemove:
    def pair(self) -> tuple[Document, Document]:
        a, b = document(), document()
        with a.edit(signers(8)[0], epoch=0) as transaction:
            transaction.insert(("page", "body"), 0, "old")
            transaction.increment(("page", "views"), 3)
            transaction.add(("page", "tags"), "t")
            transaction.set(("page", "title"), "T")
        for operation in a.operations():
            b.receive(operation)
        return a, b

    def exchange(self, a: Document, b: Document) -> None:
        for source, target in ((a, b), (b, a)):
            for operation in list(source.operations()):
                target.receive(operation)
        assert a.view() == b.view()
        assert a.heads == b.heads

    def test_a_removed_key_is_gone_with_all_below_it(self) -> None:
        a, b = self.pair()
        with a.edit(signers(8)[0], epoch=0) as transaction:
            transaction.remove("page")
        assert a.view() == {}
        self.exchange(a, b)
        assert a.view() == {}

    def test_concurrent_additions_survive(self) -> None:
        a, b = self.pair()
        with a.edit(signers(8)[0], epoch=0) as transaction:
            transaction.remove("page")
        with b.edit(signers(8)[1], epoch=0) as transaction:
            transaction.insert(("page", "body"), 3, " new")
            transaction.increment(("page", "views"), 4)
        self.exchange(a, b)
        assert a.view() == {"page": {"body": " new", "views": 4}}

    def test_a_concurrent_deletion_does_not_bring_it_back(self) -> None:
        a, b = self.pair()
        with a.edit(signers(8)[0], epoch=0) as transaction:
            transaction.remove("page")
        with b.edit(signers(8)[1], epoch=0) as transaction:
            transaction.delete(("page", "body"), 0, 1)
            transaction.discard(("page", "tags"), "t")
        self.exchange(a, b)
        assert a.view() == {}

    def test_two_concurrent_removals_drop_what_either_saw(self) -> None:
        a, b = self.pair()
        for replica, author in ((a, 0), (b, 1)):
            with replica.edit(signers(8)[author], epoch=0) as transaction:
                transaction.increment(("page", "views"), 10)
                transaction.remove("page")
        self.exchange(a, b)
        assert a.view() == {}

    def test_it_can_be_made_again(self) -> None:
        a, b = self.pair()
        with a.edit(signers(8)[0], epoch=0) as transaction:
            transaction.remove("page")
            transaction.insert(("page", "body"), 0, "anew")
        self.exchange(a, b)
        assert b.view() == {"page": {"body": "anew"}}

    def test_an_empty_map_is_shown_when_it_was_made(self) -> None:
        replica = document()
        with replica.edit(signers(8)[0], epoch=0) as transaction:
            transaction.make("empty", "map")
            transaction.make(("full", "text"), "text")
        assert replica.view() == {"empty": {}, "full": {"text": ""}}


def test_any_bytes_from_a_signing_liar_leave_the_document_whole() -> None:
    """Mutated bodies, signed properly: refused, held or applied alike by every replica."""
    random = Random(20)
    source = document()
    operations = [typed(source, n % 3, "abc") for n in range(4)]
    with source.edit(signers(8)[0], epoch=0) as transaction:
        transaction.set(("m", "k"), {"a": [1, None]})
        transaction.add("s", "v")
        transaction.delete("text", 1, 5)
        transaction.remove(("m", "k"))
    assert transaction.operation is not None
    operations.append(transaction.operation)
    mutants = []
    for _ in range(1000):
        operation = random.choice(operations)
        data = bytearray(operation.body)
        for _ in range(random.randint(1, 3)):
            data[random.randrange(len(data))] = random.randrange(256)
        mutants.append(sign(random.randrange(3), bytes(data)))
    a, b = document(), document()
    everything = operations + mutants
    for replica in (a, b):
        random.shuffle(everything)
        for operation in everything:
            replica.receive(operation)
    assert len(a.graph) > len(operations), "some mutants are valid, or this shows nothing"
    assert a.heads == b.heads
    assert a.view() == b.view()


def test_keys_are_checked_by_the_wire() -> None:
    for path in ((), ("k" * 257,), ("k",) * 33):
        assert_refused(document(), forge(0, Remove(path)), "malformed")
