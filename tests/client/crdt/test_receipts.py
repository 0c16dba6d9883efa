"""An operation is local until f+1 members signed that they hold it."""

from __future__ import annotations

import msgspec
import pytest

from client.crdt.people import GENESIS, Members, document, rules, signers
from dwcp.crdt import Outbox, OutboxFull, Store, StoreFull, Voters, make_receipt
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.documents import Operation, Receipt
from dwcp.wire.signing import Scope

MEMBERS = [Ed25519Signer(bytes([50 + n]) * 32) for n in range(7)]


def voters(count: int = 7, epoch: int = 4) -> Voters:
    keys = [member.public_key for member in MEMBERS[:count]]
    return Voters(epoch, Scope(GENESIS, bytes([epoch]) * 32), keys)


def edited(name: str = "notes") -> Operation:
    replica = document(name)
    with replica.edit(signers(8)[0], epoch=0) as transaction:
        transaction.set("key", 1)
    assert transaction.operation is not None
    return transaction.operation


def receipt(operation: Operation, signer: int, **changes: object) -> Receipt:
    good = make_receipt("notes", operation.hash(), signer, voters(), MEMBERS[signer])
    return msgspec.structs.replace(good, **changes)


def outbox() -> Outbox:
    return Outbox("notes", voters(), Ed25519Verifier())


def test_f_plus_one_receipts_make_it_safe() -> None:
    box, operation = outbox(), edited()
    box.add(operation)
    assert box.status(operation.hash()) == "local"
    assert [box.receive(receipt(operation, member)) for member in (5, 0, 2)] == [False, False, True]
    assert box.status(operation.hash()) == "safe"
    assert box.unsafe() == []
    assert not box.receive(receipt(operation, 3))
    assert box.refused == 0


def test_one_member_counts_once() -> None:
    box, operation = outbox(), edited()
    box.add(operation)
    for _ in range(5):
        assert not box.receive(receipt(operation, 1))
    assert box.status(operation.hash()) == "local"
    assert box.unsafe() == [operation]


@pytest.mark.parametrize(
    "changes", [{"sig": bytes(64)}, {"member": 6}, {"member": 7}, {"epoch": 5}, {"document": "x"}]
)
def test_receipts_that_do_not_hold(changes: dict[str, object]) -> None:
    box, operation = outbox(), edited()
    box.add(operation)
    for member in (0, 1):
        box.receive(receipt(operation, member))
    assert not box.receive(receipt(operation, 2, **changes))
    assert box.status(operation.hash()) == "local"
    assert box.refused == 1


def test_a_receipt_for_another_operation_does_not_count() -> None:
    box, operation, other = outbox(), edited(), edited("notes2")
    box.add(operation)
    assert not box.receive(receipt(other, 0))
    assert box.refused == 1
    assert box.status(other.hash()) == "unknown"


def test_another_epoch_counts_anew() -> None:
    box, operation = outbox(), edited()
    box.add(operation)
    for member in (0, 1):
        box.receive(receipt(operation, member))
    box.change_epoch(voters(epoch=5))
    assert not box.receive(receipt(operation, 2))
    for member in (0, 1, 2):
        fresh = make_receipt("notes", operation.hash(), member, voters(epoch=5), MEMBERS[member])
        box.receive(fresh)
    assert box.status(operation.hash()) == "safe"


def test_the_outbox_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dwcp.crdt.receipts.OUTBOX_MAX", 1)
    box = outbox()
    box.add(edited())
    with pytest.raises(OutboxFull, match="wait for receipts"):
        box.add(edited("other"))


class TestStore:
    def test_operations_find_their_documents(self) -> None:
        store = Store(rules())
        for name in ("b", "a"):
            assert store.receive(edited(name)).outcome == "applied"
        assert [found.name for found in store] == ["a", "b"]
        assert store.document("a").view() == {"key": 1}

    def test_what_is_refused_makes_no_document(self) -> None:
        store = Store(rules())
        bad = msgspec.structs.replace(edited("a"), sig=bytes(64))
        assert store.receive(bad).reason == "signature"
        assert store.receive(Operation(b"k" * 32, b"\xff", bytes(64))).reason == "malformed"
        assert store.refused_malformed == 1
        assert len(store) == 0

    def test_an_operation_of_a_future_epoch_makes_no_document(self) -> None:
        ahead, store = document(members=Members(newest=5)), Store(rules())
        with ahead.edit(signers(8)[0], epoch=5) as transaction:
            transaction.set("key", 1)
        assert transaction.operation is not None
        assert store.receive(transaction.operation).reason == "held-full"
        assert len(store) == 0

    def test_the_number_of_documents_is_bounded(self) -> None:
        store = Store(rules(), documents_max=1)
        store.receive(edited("a"))
        assert store.receive(edited("b")).reason == "store-full"
        with pytest.raises(StoreFull):
            store.document("c")
        assert "a" in store

    def test_a_dump_comes_back(self) -> None:
        store, other = Store(rules()), Store(rules())
        store.receive(edited("a"))
        other.restore(store.document("a").dump())
        assert other.document("a").view() == {"key": 1}
