"""Each type as a state machine: any delivery, duplication, loss and restart; equal heads mean
equal state, and the state means what the oracle says.

DWCP_CRDT_EXAMPLES=10000 pytest tests/client/crdt/test_types.py runs the long form (`make long`).
A failure prints the steps; @reproduce_failure, printed with it, replays them.
"""

from __future__ import annotations

import os
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from client.crdt.oracle import Oracle
from client.crdt.people import document, rules, signers
from dwcp.crdt import Document, Transaction
from dwcp.crdt.sync import SyncState, generate, receive
from dwcp.wire.documents import Kind, Operation

EXAMPLES = os.environ.get("DWCP_CRDT_EXAMPLES")
SETTINGS = settings(
    max_examples=int(EXAMPLES or 20),
    stateful_step_count=30,
    deadline=None,
    derandomize=EXAMPLES is None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
PATH = ("top", "object")
SMALL = st.integers(0, 63)


class Actors(RuleBasedStateMachine):
    """Four to seven replicas, each with an author of its own."""

    kind: ClassVar[Kind]

    @initialize(count=st.integers(4, 7))
    def begin(self, count: int) -> None:
        self.replicas = [document() for _ in range(count)]
        self.operations: list[Operation] = []

    def pick(self, choice: int) -> int:
        return choice % len(self.replicas)

    @rule(actor=SMALL, changes=st.lists(st.tuples(SMALL, SMALL), min_size=1, max_size=5))
    def edit(self, actor: int, changes: list[tuple[int, int]]) -> None:
        """Changes in operations of their own; with an even actor, the last two share one."""
        number = self.pick(actor)
        replica = self.replicas[number]
        groups = [[change] for change in changes[:-2]] if actor % 2 == 0 else []
        groups += [changes[-2:]] if actor % 2 == 0 else [[change] for change in changes]
        for group in groups:
            with replica.edit(signers(8)[number], epoch=0) as transaction:
                for choice, where in group:
                    self.change(transaction, replica, choice, where)
            if transaction.operation is not None:
                self.operations.append(transaction.operation)

    @rule(actor=SMALL)
    def remove_the_key(self, actor: int) -> None:
        if actor % 3:
            return
        number = self.pick(actor)
        with self.replicas[number].edit(signers(8)[number], epoch=0) as transaction:
            transaction.remove(PATH if actor % 2 else PATH[:1])
        assert transaction.operation is not None
        self.operations.append(transaction.operation)

    @rule(actor=SMALL, which=st.integers(0, 10_000))
    def deliver_one(self, actor: int, which: int) -> None:
        """Any operation, known or not, its past there or not."""
        if self.operations:
            operation = self.operations[which % len(self.operations)]
            received = self.replicas[self.pick(actor)].receive(operation)
            assert received.outcome != "refused", received.reason

    @rule(sender=SMALL, reader=SMALL, seed=SMALL)
    def deliver_some(self, sender: int, reader: int, seed: int) -> None:
        random = Random(seed)
        sent = list(self.replicas[self.pick(sender)].operations())
        random.shuffle(sent)
        for operation in sent:
            if random.random() < 0.7:
                self.replicas[self.pick(reader)].receive(operation)

    @rule(one=SMALL, two=SMALL, seed=SMALL)
    def anti_entropy(self, one: int, two: int, seed: int) -> None:
        """A connection that breaks at a random message."""
        pair = [self.replicas[self.pick(one)], self.replicas[self.pick(two)]]
        states = [SyncState(), SyncState()]
        if pair[0] is pair[1]:
            return
        for _ in range(seed % 6):
            for side in (0, 1):
                message = generate(pair[side], states[side])
                if message is not None:
                    receive(pair[1 - side], states[1 - side], message)

    @rule(actor=SMALL)
    def restart(self, actor: int) -> None:
        number = self.pick(actor)
        before = self.replicas[number]
        after = Document.restore(before.dump(), rules())
        assert (after.heads, after.view(), len(after.held)) == (
            before.heads,
            before.view(),
            len(before.held),
        )
        self.replicas[number] = after

    @invariant()
    def equal_heads_mean_equal_state(self) -> None:
        seen: dict[tuple[bytes, ...], Any] = {}
        for replica in self.replicas:
            view = replica.view()
            assert seen.setdefault(tuple(replica.heads), view) == view

    def teardown(self) -> None:
        if not hasattr(self, "operations"):
            return
        random = Random(len(self.operations))
        for replica in self.replicas:
            random.shuffle(self.operations)
            for operation in self.operations:
                replica.receive(operation)
            assert len(replica.graph) == len(self.operations)
        self.equal_heads_mean_equal_state()
        assert len({tuple(replica.heads) for replica in self.replicas}) == 1
        self.compare(Oracle(self.operations), self.replicas[0].get(PATH, self.kind))

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        raise NotImplementedError

    def compare(self, oracle: Oracle, got: Any) -> None:
        raise NotImplementedError


class LwwRegister(Actors):
    kind = "lww"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        edit.set(PATH, [choice, where], "lww")

    def compare(self, oracle: Oracle, got: Any) -> None:
        wanted = oracle.register(PATH)
        assert got == (wanted[-1] if wanted else None)


class MvRegister(Actors):
    kind = "mv"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        edit.set(PATH, choice % 4, "mv")

    def compare(self, oracle: Oracle, got: Any) -> None:
        assert got == oracle.register(PATH)


class GCounter(Actors):
    kind = "g-counter"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        edit.increment(PATH, choice + 1, "g-counter")

    def compare(self, oracle: Oracle, got: Any) -> None:
        assert got == oracle.counter(PATH)


class PnCounter(Actors):
    kind = "pn-counter"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        edit.increment(PATH, choice - 30, "pn-counter")

    def compare(self, oracle: Oracle, got: Any) -> None:
        assert got == oracle.counter(PATH)


class GSet(Actors):
    kind = "g-set"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        edit.add(PATH, choice % 6, "g-set")

    def compare(self, oracle: Oracle, got: Any) -> None:
        assert got == oracle.members(PATH, "g-set")


class TwoPhaseSet(Actors):
    kind = "2p-set"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        if where % 3:
            edit.add(PATH, choice % 5, "2p-set")
        else:
            edit.discard(PATH, choice % 5, "2p-set")

    def compare(self, oracle: Oracle, got: Any) -> None:
        assert got == oracle.members(PATH, "2p-set")


class OrSet(Actors):
    kind = "or-set"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        values = [0, 1, 1.0, "1", None, True, {"k": [1]}]
        if where % 2:
            edit.add(PATH, values[choice % 7])
        else:
            edit.discard(PATH, values[choice % 7])
            edit.add(PATH, values[where % 7])

    def compare(self, oracle: Oracle, got: Any) -> None:
        assert got == oracle.members(PATH, "or-set")


class List(Actors):
    kind = "list"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        length = len(replica.get(PATH, "list") or [])
        if choice % 3 and length:
            edit.delete(PATH, where % length, min(2, length - where % length), kind="list")
        edit.insert(PATH, where % (length - 1) if length > 2 else 0, [choice, {"a": where}])

    def compare(self, oracle: Oracle, got: Any) -> None:
        present = got is not None
        assert present == bool(oracle.live(PATH, *oracle.adding))


class Text(Actors):
    kind = "text"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        length = len(replica.get(PATH, "text") or "")
        if choice % 3 == 0 and length:
            count = min(1 + choice % 4, length - where % length)
            edit.delete(PATH, where % length, count)
            length -= count
        edit.insert(PATH, where % (length + 1), "abcdefgh"[choice % 8] * (1 + choice % 3))

    def compare(self, oracle: Oracle, got: Any) -> None:
        present = got is not None
        assert present == bool(oracle.live(PATH, *oracle.adding))


class OrMap(Actors):
    """Every kind nested in maps, with removals at every level."""

    kind = "map"

    def change(self, edit: Transaction, replica: Document, choice: int, where: int) -> None:
        match choice % 6:
            case 0:
                edit.set((*PATH, "register"), where, "mv")
            case 1:
                edit.increment((*PATH, "inner", "count"), where)
            case 2:
                edit.add((*PATH, "inner", "set"), where % 4)
            case 3:
                edit.insert((*PATH, "text"), 0, "xyz"[where % 3])
            case 4:
                edit.remove((*PATH, "inner"))
            case _:
                edit.remove((*PATH, ["register", "text", "nothing"][where % 3]))

    def compare(self, oracle: Oracle, got: Any) -> None:
        shown = got or {}
        inner = shown.get("inner", {})
        assert shown.get("register") == oracle.register((*PATH, "register"))
        assert inner.get("count") == oracle.counter((*PATH, "inner", "count"))
        assert inner.get("set") == oracle.members((*PATH, "inner", "set"), "or-set")


MACHINES = [
    LwwRegister, MvRegister, GCounter, PnCounter, GSet, TwoPhaseSet, OrSet, List, Text, OrMap,
]  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.kind)
@pytest.mark.timeout(36_000 if EXAMPLES else 120)
def test_machine(machine: type[Actors]) -> None:
    run_state_machine_as_test(machine, settings=SETTINGS)
