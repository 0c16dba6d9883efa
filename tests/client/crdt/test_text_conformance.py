"""Concurrent editing sessions that nobody here wrote: Fugue's text after every merge.

Every session runs twice: on bare sequences, and on documents with signed operations. In `cases`
one agent also edits on two branches at once; there every transaction is an author of its own,
ranked by (agent, first sequence number), as that collection says.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from client.crdt.people import document, signers
from dwcp.crdt import Document
from dwcp.identity import Ed25519Signer
from dwcp.wire.documents import Operation

PROJECT = Path(__file__).resolve().parents[3]
FOLDER = PROJECT.parent / "shared" / "conformance" / "text_crdt_fugue"
Case = dict[str, Any]


def load(name: str) -> list[Case]:
    path = FOLDER / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def normal(case: Case) -> Case:
    """One form for both files: txns with parents as txn positions, ops, author ranks."""
    txns = case["txns"]
    if "span" in txns[0]:
        owner = {n: at for at, txn in enumerate(txns) for n in range(*txn["span"])}
        for txn in txns:
            txn["parents"] = [owner[n] for n in txn["parents"]]
        names = sorted({(txn["agent"], txn["seq_start"]) for txn in txns})
        ranks = [names.index((txn["agent"], txn["seq_start"])) for txn in txns]
        return {"id": case["id"], "txns": txns, "ranks": ranks, "end": case["end_content"]}
    names = sorted({txn["agent"] for txn in txns})
    ranks = [names.index(txn["agent"]) for txn in txns]
    for txn in txns:
        txn["ops"] = [txn["op"]]
    return {"id": case["id"], "txns": txns, "ranks": ranks, "end": case["end_content"]}


CASES = [normal(case) for case in (*load("cases"), *load("ordered_agents"))]
needed = pytest.mark.skipif(not CASES, reason="../shared/conformance/text_crdt_fugue is absent")


def text_of(replica: Document) -> str:
    return replica.get("text", "text") or ""


class Replicas:
    """A replica at the version of each transaction, reused while it only moves forward."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.operations: list[Operation] = []
        self.uses = Counter(parent for txn in case["txns"] for parent in txn["parents"])
        self.at: dict[int, Document] = {}

    def before(self, parents: list[int]) -> Document:
        """A replica that holds exactly the past of these transactions."""
        for parent in parents:
            self.uses[parent] -= 1
        if len(parents) == 1 and not self.uses[parents[0]] and parents[0] in self.at:
            return self.at.pop(parents[0])
        replica = document()
        for number in sorted(self.past(parents)):
            assert replica.receive(self.operations[number]).outcome == "applied"
        return replica

    def past(self, parents: list[int]) -> set[int]:
        seen: set[int] = set()
        stack = list(parents)
        while stack:
            number = stack.pop()
            if number not in seen:
                seen.add(number)
                stack += self.case["txns"][number]["parents"]
        return seen

    def run(self) -> str:
        authors = signers(max(self.case["ranks"]) + 1)
        for number, txn in enumerate(self.case["txns"]):
            replica = self.before(txn["parents"])
            self.operations.append(edit(replica, authors[self.case["ranks"][number]], txn["ops"]))
            if "content_after" in txn:
                assert text_of(replica) == txn["content_after"], f"{self.case['id']} txn {number}"
            self.at[number] = replica
        merged = document()
        for operation in reversed(self.operations):  # the worst order: everything is held
            assert merged.receive(operation).outcome != "refused"
        assert len(merged.graph) == len(self.operations)
        return text_of(merged)


def edit(replica: Document, author: Ed25519Signer, ops: list[list[Any]]) -> Operation:
    with replica.edit(author, epoch=0) as transaction:
        transaction.make("text", "text")
        for position, deleted, inserted in ops:
            transaction.delete("text", position, deleted)
            transaction.insert("text", position, inserted)
    assert transaction.operation is not None
    return transaction.operation


def run_all(cases: list[Case]) -> None:
    for case in cases:
        assert Replicas(case).run() == case["end"], case["id"]


@needed
def test_one_case_in_thirty_ends_with_the_recorded_text() -> None:
    run_all(CASES[::32])


@needed
@pytest.mark.slow
def test_all_cases_end_with_the_recorded_text(capsys: pytest.CaptureFixture[str]) -> None:
    run_all(CASES)
    with capsys.disabled():
        print(f"\ntext_crdt_fugue: {len(CASES)} of {len(CASES)} cases pass")
    assert len(CASES) >= 700


@needed
def test_the_case_that_tells_fugue_from_fuguemax_is_among_them() -> None:
    (case,) = [case for case in CASES if case["id"] == "egwalker/0621"]
    assert Replicas(case).run() == case["end"]


@needed
def test_a_false_expectation_is_noticed() -> None:
    false = CASES[0] | {"end": CASES[0]["end"] + "x"}
    with pytest.raises(AssertionError):
        run_all([false])
