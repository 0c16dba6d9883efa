"""Backups of the replicated state: shown part by part, and taken in with every part checked.

Wire form and trust: dwcp/wire/backup.py. A state is shown from a view of what is saved, node by
node of its trie, so that nothing is held but the part that is being sent. Taking one in ends with
a state that belongs to another cluster: keys, leases, roles and a user's machine are as they were
after the last final entry, the agreed time goes on, and sessions are gone, since what a client
signed for one cluster means nothing in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from dwcp.epochs import RecordChain
from dwcp.wire.backup import (
    FORMAT,
    BackupEnd,
    BackupEntries,
    BackupHead,
    BackupPart,
    BackupRecords,
)
from dwcp.wire.chain import Entry
from dwcp.wire.envelope import batch_digest, decode_batch
from dwcp.wire.records import EpochRecord, Origin, check_genesis, is_complete, scope_of
from dwcp.wire.signing import ZERO_HASH, Verifier
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.outline import Outline
from dwcp_replica.core.trie import ABSENT, child_hashes, child_place, entries_of, is_leaf
from dwcp_replica.store.machine import StateMachine
from dwcp_replica.store.records import StateRecords, Target, View
from dwcp_replica.store.store import ROOT, Root, Store

PART_BYTES: Final = 1024 * 1024
SAVE_BYTES: Final = 4 * 1024 * 1024
SESSIONS: Final = b"\x01"
SESSIONS_END: Final = b"\x03"
"""Records of sessions and of the replies kept for them (store.py)."""


class ViewLostError(Exception):
    """The view that was shown had to be closed: begin again."""


class BackupFaultError(Exception):
    """A backup does not prove what it says, or is not what was asked for; says what is wrong."""


# --- showing --------------------------------------------------------------------------------------


def shown(head: BackupHead, outline: Outline, view: View | None) -> Iterator[BackupPart]:
    """The parts of a backup. Raises ViewLostError."""
    yield head
    pairs: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in _walk(view, b"") if view is not None else ():
        pairs.append((key, value))
        size += len(key) + len(value)
        if size >= PART_BYTES:
            yield BackupRecords(tuple(pairs))
            pairs, size = [], 0
    yield BackupRecords(tuple(pairs))
    for entry in outline.entries:
        yield BackupEntries((entry,))
    yield BackupEnd(outline.certificate)


def _walk(view: View, place: bytes) -> Iterator[tuple[bytes, bytes]]:
    node = view.node(place)
    if node is None:
        raise ViewLostError
    if is_leaf(node):
        for entry in entries_of(node):
            value = view.get(entry.key)
            if value is None:
                raise ViewLostError
            yield entry.key, value
        return
    for nibble, hash_ in enumerate(child_hashes(node)):
        if hash_ != ABSENT:
            yield from _walk(view, child_place(place, nibble))


# --- taking in ------------------------------------------------------------------------------------


class Importer:
    """Takes a backup's parts, in order, into empty records; `origin` is what it proves.

    Until `settle` a restart finds a state that is being fetched, and begins again.
    """

    def __init__(
        self, records: StateRecords, verifier: Verifier, machine: StateMachine | None = None
    ) -> None:
        self._records = records
        self._verifier = verifier
        self._machine = machine
        self._head: BackupHead | None = None
        self._chain: RecordChain | None = None
        self._store: Store | None = None
        self._top = ZERO_HASH
        self._index = 0
        self._unsaved_bytes = 0
        self.origin: Origin | None = None
        self.count = 0
        self.revision = 0

    def take(self, part: BackupPart) -> None:
        """Take the next part. Raises BackupFaultError; what was taken before is worth nothing."""
        match part:
            case BackupHead():
                self._begin(part)
            case BackupRecords(pairs):
                self._take_records(pairs)
            case BackupEntries(entries):
                for entry in entries:
                    self._apply(entry)
            case BackupEnd():
                self._end(part)

    def settle(self, genesis: EpochRecord) -> None:
        """Let the state be that with which the cluster of `genesis` begins; saved when done."""
        assert self._store is not None, "a whole backup was taken"
        self._rewrite(genesis.hash())
        self._records.aim(None)

    # --- parts -----------------------------------------------------------------------------------

    def _begin(self, head: BackupHead) -> None:
        if self._head is not None:
            raise BackupFaultError("the backup has two heads")
        if head.format != FORMAT:
            raise BackupFaultError(
                f"the backup has format {head.format}, and this version knows {FORMAT}: use the "
                "version that made it"
            )
        problem = check_genesis(head.genesis, self._verifier)
        if problem is None and not is_complete(head.genesis):
            problem = "not all members have signed its genesis"
        chain = RecordChain(head.genesis.record, self._verifier) if problem is None else None
        problem = problem or (chain.extend(head.records) if chain is not None else None)
        if problem is not None or chain is None:
            raise BackupFaultError(f"the backup's chain of records does not hold: {problem}")
        self._head, self._chain = head, chain
        self._top = head.genesis.record.start_hash
        if head.checkpoint is not None:
            self._check_checkpoint(head)
        self._records.aim(self._target())

    def _check_checkpoint(self, head: BackupHead) -> None:
        certificate = head.checkpoint
        assert certificate is not None, "asked for"
        header = certificate.header
        is_stable = certificate.kind == "checkpoint"
        if not (is_stable and self._membership(header.epoch).certificate_holds(certificate)):
            raise BackupFaultError("no quorum of members has certified the backup's state")
        if batch_digest(head.body) != header.batch:
            raise BackupFaultError("the checkpoint's entry is not the one that was certified")
        self._top, self._index = header.hash(), header.index

    def _target(self) -> Target:
        assert self._head is not None, "begun"
        certificate = self._head.checkpoint
        return (self._index, ZERO_HASH if certificate is None else certificate.state)

    def _membership(self, epoch: int) -> Membership:
        assert self._chain is not None, "begun"
        record = self._chain.record(epoch)
        if record is None:
            raise BackupFaultError(f"the backup lacks the record of epoch {epoch}")
        return Membership(record, scope_of(self._chain.genesis, record), self._verifier)

    def _take_records(self, pairs: tuple[tuple[bytes, bytes], ...]) -> None:
        if self._head is None or self._store is not None:
            raise BackupFaultError("the backup's parts are not in order")
        for key, value in pairs:
            self._records.set(key, value)
            self._unsaved_bytes += len(key) + len(value)
            self.count += 1
        if self._unsaved_bytes >= SAVE_BYTES:
            self._unsaved_bytes = 0
            self._records.commit()

    def _whole(self) -> Store:
        """The state at the checkpoint, once all of it is here and it is the certified one."""
        if self._head is None or self._chain is None:
            raise BackupFaultError("the backup has no head")
        if self._store is None:
            self._check_state(self._head)
            self._store = Store(
                self._chain.genesis, records=_Working(self._records), machine=self._machine
            )
            if self._store.applied_index != self._index:
                raise BackupFaultError("the backup's state is of another index")
        return self._store

    def _check_state(self, head: BackupHead) -> None:
        """A quorum's certificate names the state, or the genesis does, or it is empty."""
        certificate, origin = head.checkpoint, head.genesis.origin
        if certificate is not None:
            held = self._records.digest() == certificate.state
        elif origin is None:
            held = self.count == 0
        else:
            genesis = head.genesis.record
            held = self._rooted(genesis.hash()) and self._rewrite(ZERO_HASH) == origin.state
            if held:
                self._rewrite(genesis.hash())
        if not held:
            raise BackupFaultError("the backup's state is not the one that was certified")

    def _rooted(self, genesis: bytes) -> bool:
        """True for the state of a cluster with this genesis, at its beginning."""
        held = self._records.get(ROOT)
        try:
            root = None if held is None else msgspec.msgpack.decode(held, type=Root)
        except msgspec.DecodeError:
            return False
        return root is not None and (root.genesis, root.applied_index) == (genesis, 0)

    def _rewrite(self, genesis: bytes) -> bytes:
        """Let the state be that of another cluster at its beginning; its digest."""
        held = self._records.get(ROOT)
        assert held is not None, "a state has its root"
        before = msgspec.msgpack.decode(held, type=Root)
        root = msgspec.structs.replace(before, genesis=genesis, applied_index=0)
        self._records.set(ROOT, msgspec.msgpack.encode(root))
        return self._records.digest()

    def _apply(self, entry: Entry) -> None:
        store, header = self._whole(), entry.header
        if (header.index, header.prev) != (self._index + 1, self._top):
            raise BackupFaultError(f"entry {header.index} does not follow entry {self._index}")
        if batch_digest(entry.body) != header.batch:
            raise BackupFaultError(f"entry {header.index} is not what its header says")
        try:
            batch = decode_batch(entry.body)
        except msgspec.DecodeError:
            raise BackupFaultError(f"entry {header.index} can not be read") from None
        store.apply(header.index, batch)
        self._top, self._index = header.hash(), header.index

    def _end(self, end: BackupEnd) -> None:
        store = self._whole()
        assert self._head is not None, "begun"
        assert self._chain is not None, "begun"
        if end.certificate is not None:
            header = end.certificate.header
            membership = self._membership(header.epoch)
            decides = membership.decides(end.certificate.kind)
            if (header.index, header.hash()) != (self._index, self._top) or not (
                decides and membership.certificate_holds(end.certificate)
            ):
                raise BackupFaultError(f"nothing proves that entry {self._index} is final")
        elif not self._is_known(self._index, self._top):
            raise BackupFaultError(f"nothing proves that entry {self._index} is final")
        record = self._chain.current
        self.revision = store.revision
        store.digest()  # what is kept outside of the records is in them now
        for key in [key for key, _ in self._records.scan(SESSIONS, SESSIONS_END)]:
            self._records.remove(key)
        state = self._rewrite(ZERO_HASH)
        self.origin = Origin(
            self._chain.genesis.hash(), record.epoch, record.hash(), self._index, self._top, state
        )

    def _is_known(self, index: int, top: bytes) -> bool:
        """True for the checkpoint itself, and for the start of an epoch."""
        assert self._head is not None, "begun"
        assert self._chain is not None, "begun"
        checkpoint = self._head.checkpoint
        is_base = checkpoint is not None and checkpoint.header.hash() == top
        starts = {(r.start_index, r.start_hash) for r in self._chain.records}
        return is_base or (index, top) in starts


class _Working:
    """Records whose target is passed over: entries are executed on what a crash makes worthless."""

    def __init__(self, records: StateRecords) -> None:
        self.get = records.get
        self.scan = records.scan
        self.set = records.set
        self.remove = records.remove
        self.digest = records.digest
        self.aim = records.aim
        self.seal = records.seal
        self.commit = records.commit
        self.view = records.view
        self.node = records.node
        self.target: Target | None = None
