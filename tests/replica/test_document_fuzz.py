"""Mutated frames about documents, at a member's room and at a client: nothing is believed."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import msgspec
import pytest

from client.members import Members
from dwcp.client import Client
from dwcp.crdt import Document, Operation, Rules, make_receipt
from dwcp.crdt.authors import EpochAuthors
from dwcp.crdt.receipts import Voters
from dwcp.crdt.sync import SyncState, generate
from dwcp.doc import Doc
from dwcp.documents import Documents
from dwcp.wire.documents import Receipt
from dwcp.wire.gossip import (
    Claim,
    Denied,
    ImageAsk,
    ImagePart,
    Open,
    Taken,
    decode_client_gossip,
    decode_replica_gossip,
    encode_gossip,
)
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.node.documents import DocumentRoom
from dwcp_replica.node.signatures import SignatureGate
from replica.mutations import mutated
from replica.waiting import in_loop, until

FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "400"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))
MEMBERS = Members()


def genuine() -> Document:
    """A document with some edits of the cluster's client."""
    rules = Rules(MEMBERS.genesis.hash(), MEMBERS.verifier, EpochAuthors([MEMBERS.genesis]))
    document = Document("notes", rules)
    for text in ("one", "two ", "three" * 1000):
        with document.edit(MEMBERS.client, 0) as edit:
            edit.insert("body", 0, text)
            edit.set("title", text)
    return document


NOTES = genuine()
OPERATIONS = list(NOTES.operations())
HASHES = tuple(NOTES.graph.hashes)
SYNC = generate(NOTES, SyncState())
FULL = msgspec.structs.replace(SYNC, operations=tuple(OPERATIONS))  # type: ignore[type-var]
FROM_CLIENTS = {
    "Open": Open("notes"),
    "Claim": Claim("notes", HASHES),
    "Taken": Taken(70_000),
    "SyncMessage": FULL,
    "ImageAsk": ImageAsk("notes", HASHES[0], 0),
}
VOTERS = Voters(0, MEMBERS.scope, [signer.public_key for signer in MEMBERS.signers])
FROM_REPLICAS = {
    "SyncMessage": FULL,
    "Taken": Taken(70_000),
    "Receipt": make_receipt("notes", HASHES[0], 1, VOTERS, MEMBERS.signers[1]),
    "Denied": Denied("notes", "permission", "no"),
    "ImagePart": ImagePart("notes", HASHES[0], 0, 5, b"image"),
}


class Deaf:
    """A client's connection that takes whatever is said."""

    def __init__(self) -> None:
        self.receipts: list[Receipt] = []

    def wake(self) -> None:
        """Nothing is fetched."""

    def receipt(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)


def room_at(path: Path, threads: ThreadPoolExecutor) -> tuple[DocumentRoom, SignatureGate]:
    gate = SignatureGate(MEMBERS.verifier, threads)
    room = DocumentRoom(
        path=path, genesis=MEMBERS.genesis, records=[MEMBERS.genesis], me=0,
        signer=MEMBERS.signers[0], verifier=MEMBERS.verifier, gate=gate, metrics=ReplicaMetrics(),
    )  # fmt: skip
    return room, gate


def only_genuine(found: Document, extra: tuple[Operation, ...] = ()) -> bool:
    return set(found.graph.hashes) <= {*HASHES, *(one.hash() for one in extra)}


@pytest.mark.parametrize("kind", sorted(FROM_CLIENTS))
@in_loop
async def test_a_member_that_hears_mutated_frames_of_clients(tmp_path: Path, kind: str) -> None:
    """It goes on, believes nothing that was not signed, and still serves who speaks well."""
    with ThreadPoolExecutor(1) as threads:
        room, gate = room_at(tmp_path / "documents.db", threads)
        tasks = [asyncio.create_task(room.run()), asyncio.create_task(gate.run())]
        link, draw, heard = room.join(Deaf()), Random(SEED), 0
        frame = encode_gossip(FROM_CLIENTS[kind])  # type: ignore[arg-type]
        for _ in range(FRAMES):
            changed = mutated(frame, draw)
            try:
                message = decode_client_gossip(changed)
            except (msgspec.DecodeError, RecursionError):
                continue
            heard += 1
            room.client_says(link, message, len(changed))
            room.say(link)
            await asyncio.sleep(0)
        assert heard, "nothing decodes: the test shows nothing"
        well, sink = OPERATIONS, Deaf()
        mine = room.join(sink)
        room.client_says(mine, Open("notes"), 10)
        room.client_says(mine, FULL, len(frame))
        room.client_says(mine, Claim("notes", HASHES), 100)
        await until(lambda: len(sink.receipts) >= len(well), what="receipts")
        assert only_genuine(room.store.document("notes"))
        assert room.store.document("notes").view() == NOTES.view()
        assert not any(task.done() for task in tasks)
        room.leave(link)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        room.close()


@pytest.mark.parametrize("kind", sorted(FROM_REPLICAS))
@in_loop
async def test_a_client_that_hears_mutated_frames_of_members(kind: str) -> None:
    """One member's frames make no edit safe, and no document that nobody has written."""
    client = Client.connect(MEMBERS.genesis, MEMBERS.client)
    documents = Documents(client._hooks(), None, None)
    doc = documents._open["notes"] = Doc(documents, "notes")
    documents.talks.add(1)
    documents.outbox("notes").add(OPERATIONS[0])
    draw, heard = Random(SEED), 0
    frame = encode_gossip(FROM_REPLICAS[kind])  # type: ignore[arg-type]
    for _ in range(FRAMES):
        try:
            message = decode_replica_gossip(mutated(frame, draw))
        except (msgspec.DecodeError, RecursionError):
            continue
        heard += 1
        documents._on_message(1, message)
        documents.talks.say(1, heard)
    assert heard, "nothing decodes: the test shows nothing"
    assert doc.status == "local"
    assert only_genuine(doc.document)
    documents.talks.add(2)
    documents._on_message(2, FULL)
    assert doc.view() == NOTES.view()
