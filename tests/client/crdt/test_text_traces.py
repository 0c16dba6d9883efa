"""Real editing sessions, replayed as signed operations, give the recorded text everywhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from client.crdt.people import document, signers
from dwcp.crdt import Document
from dwcp.wire.documents import Operation

PROJECT = Path(__file__).resolve().parents[3]
FOLDER = PROJECT.parent / "shared" / "conformance" / "text_traces"
GROUP = 100
"""Edits in one operation of a linear trace: about what an editor sends in some seconds."""

needed = pytest.mark.skipif(
    not FOLDER.exists(), reason="../shared/conformance/text_traces is absent"
)
slow = pytest.mark.slow


def load(name: str) -> Any:
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def edit(replica: Document, author: int, patches: list[list[Any]]) -> Operation:
    with replica.edit(signers(3)[author], epoch=0) as transaction:
        for position, deleted, inserted in patches:
            transaction.delete("text", position, deleted)
            transaction.insert("text", position, inserted)
    assert transaction.operation is not None
    return transaction.operation


@needed
@pytest.mark.parametrize(
    "name",
    [
        "clownschool_flat",
        "friendsforever_flat",
        "json-crdt-blog-post",
        pytest.param("automerge-paper", marks=slow),
        pytest.param("seph-blog1", marks=slow),
    ],
)
def test_linear_trace(name: str) -> None:
    trace = load(name)
    patches = trace["patches"]
    author, reader = document(), document()
    for start in range(0, len(patches), GROUP):
        operation = edit(author, 0, patches[start : start + GROUP])
        assert reader.receive(operation).outcome == "applied"
    assert author.get("text", "text") == trace["end_content"]
    assert reader.get("text", "text") == trace["end_content"]
    assert reader.heads == author.heads


class Agents:
    """One replica for each agent, which learns what each of its transactions builds on."""

    def __init__(self, trace: Any) -> None:
        self.txns = trace["txns"]
        self.operations: list[Operation] = []
        self.numbers: dict[bytes, int] = {}
        self.replicas = [document() for _ in range(trace["agents"])]

    def bring(self, replica: Document, parents: list[int]) -> None:
        """Give a replica the past of these transactions."""
        missing: set[int] = set()
        stack = list(parents)
        while stack:
            number = stack.pop()
            if number not in missing and self.operations[number].hash() not in replica.graph:
                missing.add(number)
                stack += self.txns[number]["parents"]
        for number in sorted(missing):
            assert replica.receive(self.operations[number]).outcome == "applied"

    def run(self) -> None:
        for txn in self.txns:
            replica = self.replicas[txn["agent"]]
            self.bring(replica, txn["parents"])
            self.operations.append(edit(replica, txn["agent"], txn["patches"]))


@needed
@slow
@pytest.mark.parametrize("name", ["clownschool_concurrent", "friendsforever_concurrent"])
def test_concurrent_trace(name: str) -> None:
    trace = load(name)
    agents = Agents(trace)
    agents.run()
    for replica in agents.replicas:
        for operation in agents.operations:
            replica.receive(operation)
        assert replica.get("text", "text") == trace["end_content"]
