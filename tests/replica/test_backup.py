"""A backup of running replicas: taken, checked, damaged in every way, and begun from."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.backup import (
    BackupDamagedError,
    BackupEnd,
    BackupEntries,
    BackupHead,
    BackupPart,
    BackupRecords,
    Permit,
    framed,
    parts_of,
)
from dwcp.wire.operations import RangeRequest, RangeResponse
from dwcp.wire.records import Origin, SignedGenesis
from dwcp_replica.store.backup import BackupFaultError, Importer
from dwcp_replica.store.records import MemoryRecords
from replica.harness import Place, RawClient, Tasks
from replica.waiting import in_loop

pytestmark = pytest.mark.timeout(60)


def permit(admin: Ed25519Signer, genesis: SignedGenesis, *, lasts_ms: int = 60_000) -> str:
    unsigned = Permit(int(time.time() * 1000) + lasts_ms, bytes(64))
    sig = admin.sign(unsigned.signing_bytes(genesis.record.hash()))
    signed = msgspec.msgpack.encode(msgspec.structs.replace(unsigned, sig=sig))
    return base64.b64encode(signed).decode()


async def take(cluster: Tasks, place: Place, admin: Ed25519Signer | None = None) -> bytes:
    genesis = cluster.running[place.name].genesis()
    assert genesis is not None
    shown = permit(admin or cluster.operator.admin, genesis)
    code, body, _ = await cluster.http.call("GET", f"{place.url}/dwcp/v1/backup", DWCP_Permit=shown)
    assert code == 200, body
    return body


def imported(data: bytes) -> Importer:
    importer = Importer(MemoryRecords(), Ed25519Verifier())
    for part in parts_of([data]):
        importer.take(part)
    assert importer.origin is not None
    return importer


async def write(cluster: Tasks, client: RawClient, first: int, count: int) -> None:
    for number in range(first, first + count):
        client.agreed(await cluster.http.post_all(cluster.places, client.put(b"k%03d" % number)))


async def keys(cluster: Tasks, client: RawClient) -> list[bytes]:
    envelope = client.envelope(RangeRequest(b"k", b"l"))
    (found,) = client.agreed(await cluster.http.post_all(cluster.places, envelope))
    assert isinstance(found, RangeResponse)
    return [kv.key for kv in found.kvs]


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes, SignedGenesis]:
    """Backups of one cluster: before its first checkpoint, and between two later ones."""

    async def run() -> tuple[bytes, bytes, SignedGenesis]:
        async with Tasks(tmp_path_factory.mktemp("source")) as cluster:
            client = await cluster.bootstrap()
            await write(cluster, client, 0, 3)
            young = await take(cluster, cluster.places[2])
            await write(cluster, client, 3, 22)
            old = await take(cluster, cluster.places[1])
            genesis = cluster.running[cluster.places[0].name].genesis()
            assert genesis is not None
            return young, old, genesis

    return asyncio.run(run())


Taken = tuple[bytes, bytes, SignedGenesis]


def test_a_backup_proves_everything_that_was_acknowledged(taken: Taken) -> None:
    young, old, genesis = taken
    for data, revision, has_checkpoint in ((young, 4, False), (old, 26, True)):
        parts = list(parts_of([data]))
        assert isinstance(parts[0], BackupHead)
        assert (parts[0].checkpoint is not None) == has_checkpoint
        found = imported(data)
        assert found.revision == revision
        assert found.origin is not None
        assert found.origin.genesis == genesis.record.hash()
        assert (found.count > 0) == has_checkpoint


def test_pieces_may_have_any_size(taken: Taken) -> None:
    pieces = (taken[1][at : at + 7] for at in range(0, len(taken[1]), 7))
    assert list(parts_of(pieces)) == list(parts_of([taken[1]]))


def changed(data: bytes, change: Callable[[BackupPart], BackupPart | None]) -> bytes:
    parts = (change(part) for part in parts_of([data]))
    return b"".join(framed(part) for part in parts if part is not None)


def _without_votes(part: BackupPart) -> BackupPart:
    if isinstance(part, BackupHead) and part.checkpoint is not None:
        fewer = msgspec.structs.replace(part.checkpoint, votes=part.checkpoint.votes[:2])
        return msgspec.structs.replace(part, checkpoint=fewer)
    return part


def _other_value(part: BackupPart) -> BackupPart:
    if isinstance(part, BackupRecords) and part.pairs:
        (key, value), *others = part.pairs
        return BackupRecords(((key, value + b"!"), *others))
    return part


def _missing_record(part: BackupPart) -> BackupPart:
    return BackupRecords(part.pairs[1:]) if isinstance(part, BackupRecords) else part


def _other_body(part: BackupPart) -> BackupPart:
    if isinstance(part, BackupEntries):
        (entry,) = part.entries
        return BackupEntries((msgspec.structs.replace(entry, body=entry.body + b"\0"),))
    return part


def _uncertified(part: BackupPart) -> BackupPart:
    return BackupEnd(None) if isinstance(part, BackupEnd) else part


def _unsigned_genesis(part: BackupPart) -> BackupPart:
    if isinstance(part, BackupHead):
        fewer = msgspec.structs.replace(part.genesis, member_sigs=(b"",) * 4)
        return msgspec.structs.replace(part, genesis=fewer)
    return part


def _no_entries(part: BackupPart) -> BackupPart | None:
    return None if isinstance(part, BackupEntries) else part


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without_votes, "no quorum of members has certified"),
        (_other_value, "state is not the one that was certified"),
        (_missing_record, "state is not the one that was certified"),
        (_other_body, "not what its header says"),
        (_uncertified, "nothing proves that entry"),
        (_unsigned_genesis, "not all members have signed"),
        (_no_entries, "nothing proves that entry"),
    ],
    ids=lambda v: v.__name__ if callable(v) else "",
)
def test_what_a_backup_does_not_prove_is_refused(
    taken: Taken, change: Callable[[BackupPart], BackupPart | None], sentence: str
) -> None:
    with pytest.raises(BackupFaultError, match=sentence):
        imported(changed(taken[1], change))


def test_every_bit_counts(taken: Taken) -> None:
    """A flipped bit anywhere is found, or changes nothing of what is proved."""
    data = taken[1]
    for at in range(0, len(data), max(1, len(data) // 60)):
        other = bytearray(data)
        other[at] ^= 1
        try:
            found = imported(bytes(other))
        except (BackupFaultError, BackupDamagedError):
            continue
        assert found.origin == imported(data).origin


def test_a_cut_backup_is_told_from_a_whole_one(taken: Taken) -> None:
    for cut in (0, 3, 100, len(taken[1]) - 1):
        with pytest.raises(BackupDamagedError, match="cut short"):
            list(parts_of([taken[1][:cut]]))
    with pytest.raises(BackupDamagedError, match="follows the backup's end"):
        list(parts_of([taken[1], b"\0"]))


def from_backup(directory: Path, source: Path, origin: Origin) -> Tasks:
    cluster = Tasks(directory)
    cluster.places = [replace(place, restore=str(source)) for place in cluster.places]
    cluster.operator.origin = origin
    return cluster


@in_loop
async def test_a_new_cluster_begins_from_a_backup_and_goes_on(taken: Taken, tmp_path: Path) -> None:
    source = tmp_path / "old.dwcpbackup"
    source.write_bytes(taken[1])
    origin = imported(taken[1]).origin
    assert origin is not None
    (tmp_path / "new").mkdir()
    async with from_backup(tmp_path / "new", source, origin) as cluster:
        client = await cluster.bootstrap()
        assert await keys(cluster, client) == [b"k%03d" % n for n in range(25)]
        source.unlink()  # it is read once
        begun = imported(await take(cluster, cluster.places[2]))  # no checkpoint yet
        assert begun.origin is not None
        assert begun.origin.genesis == client.records.genesis.hash()
        assert begun.revision == 26
        await write(cluster, client, 25, 15)
        place = cluster.places[0]
        await cluster.stop(place)
        cluster.start(place, token=False)
        await cluster.http.all_ready([place])
        assert len(await keys(cluster, client)) == 40
        again = imported(await take(cluster, cluster.places[3]))
        assert again.origin is not None
        assert again.origin.genesis == client.records.genesis.hash()
        assert again.revision == 41


@in_loop
async def test_another_backup_than_the_genesis_names_is_not_taken(
    taken: Taken, tmp_path: Path
) -> None:
    source = tmp_path / "young.dwcpbackup"
    source.write_bytes(taken[0])
    origin = imported(taken[1]).origin
    assert origin is not None
    (tmp_path / "new").mkdir()
    async with from_backup(tmp_path / "new", source, origin) as cluster:
        http, operator = cluster.http, cluster.operator
        for place in cluster.places:
            await http.eventually(lambda p=place: http.is_up(p), what=place.name)
        genesis = await operator.collect(
            cluster.places, await operator.make_genesis(cluster.places)
        )
        for place in cluster.places:
            await operator.offer(place, genesis)

        async def told() -> bool:
            status = await http.status(cluster.places[0])
            return "this cluster begins from entry" in (status["reason"] or "")

        await http.eventually(told, what="why the backup is not taken")
        source.write_bytes(taken[1])  # it is looked at again
        await http.all_ready(cluster.places)


@in_loop
async def test_without_a_permit_of_the_admin_nothing_is_shown(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        await cluster.bootstrap()
        place, admin = cluster.places[0], cluster.operator.admin
        genesis = cluster.running[place.name].genesis()
        assert genesis is not None
        url = f"{place.url}/dwcp/v1/backup"
        for shown, word in (
            ("", "no permit"),
            ("????", "no permit"),
            (permit(Ed25519Signer.generate(), genesis), "not signed"),
            (permit(admin, genesis, lasts_ms=-1), "is over"),
            (permit(admin, genesis, lasts_ms=4_000_000), "longer than an hour"),
        ):
            code, body, _ = await cluster.http.call("GET", url, DWCP_Permit=shown)
            assert code == 403
            assert word in body.decode()


@in_loop
async def test_a_genesis_that_hides_its_origin_is_refused(taken: Taken, tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        http, operator = cluster.http, cluster.operator
        for place in cluster.places:
            await http.eventually(lambda p=place: http.is_up(p), what=place.name)
        operator.origin = imported(taken[1]).origin
        genesis = await operator.make_genesis(cluster.places)
        hidden = msgspec.structs.replace(genesis, origin=None)
        code, body = await operator.offer(cluster.places[0], hidden)
        assert code == 400
        assert "origin" in body.decode()
