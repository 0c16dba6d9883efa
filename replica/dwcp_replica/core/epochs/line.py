"""The line of epochs: records, and the entries that ended epochs left behind.

A record fixes where its epoch starts, but a replica may hear of it before it holds everything
up to there: it then fetches the rest from others, checked by certificates of the ended epoch or
by the hash at which the next one starts, and takes no part meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from dwcp.epochs import RecordChain
from dwcp.wire.envelope import batch_digest
from dwcp.wire.epochs import CertifiedRecord, FetchHistory, History
from dwcp.wire.peer import Certificate, Entry
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Verifier
from dwcp_replica.core.catchup import ENTRIES_BYTES_MAX, ENTRIES_MAX, LINKS_MAX
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Log, Point, Slot
from dwcp_replica.core.state import Core

RECORDS_MAX: Final = 64
"""Records in one answer."""


@dataclass(slots=True)
class Line:
    """Verified records, and the entries below the present epoch.

    `history` may hold entries above `sure` that are not known to be final; up to `sure` they are.
    `checkpoints` are stable checkpoints of ended epochs, by index.
    """

    chain: RecordChain
    verifier: Verifier
    history: Log
    sure: int
    checkpoints: dict[int, Certificate] = field(default_factory=dict)

    @classmethod
    def of(cls, genesis: EpochRecord, verifier: Verifier) -> Line:
        """The line at genesis."""
        base = Point(genesis.start_index, genesis.start_hash, 0)
        return cls(RecordChain(genesis, verifier), verifier, Log(base), genesis.start_index)

    @property
    def record(self) -> EpochRecord:
        """The newest record."""
        return self.chain.current

    @property
    def is_complete(self) -> bool:
        """True when everything up to the present epoch's start is here."""
        return self.sure == self.record.start_index

    def membership(self, epoch: int) -> Membership:
        """Who voted in an epoch, for checking its certificates."""
        record = self.chain.record(epoch)
        assert record is not None, f"the record of epoch {epoch} is not known"
        return Membership(record, scope_of(self.chain.genesis, record), self.verifier)

    def end(self, core: Core, certified: CertifiedRecord) -> None:
        """The epoch of `core` is over: keep what it held, as far as it belongs to the history."""
        record = certified.record
        base = core.log.base
        if not core.waiting:  # one that waits never held its start: it knows nothing final
            if base.index > self.history.last:
                self.rebase(base, core.log.stamp_at(base.index), core.log.body_at(base.index))
            for slot in core.log.slots(self.history.last, record.start_index):
                self.history.append(slot)
            self.sure = max(self.sure, min(core.final, record.start_index))
            self.checkpoints.update(core.checkpoints)
        self.chain.add(certified)
        self.note_start()

    def rebase(self, base: Point, stamp_ms: int, body: bytes | None) -> None:
        """Begin the history anew: a stable checkpoint stands for what lies below."""
        self.history.restart(base, stamp_ms, body)
        self.sure = base.index
        self.note_start()

    def skip(self) -> None:
        """A stable checkpoint of the present epoch makes everything before it needless."""
        record = self.record
        self.rebase(Point(record.start_index, record.start_hash, 0), self.history.stamp_ms, None)
        self.checkpoints.clear()

    def collect(self, kept: int) -> None:
        """Forget entries that nobody is likely to ask for: a saved state stands for them."""
        if kept > self.history.base.index and kept <= self.sure:
            self.history.cut(kept)
            self.checkpoints = {i: one for i, one in self.checkpoints.items() if i >= kept}

    def note_start(self) -> None:
        """See whether the history reaches the present epoch's start now."""
        record = self.record
        if self.history.hash_at(record.start_index) == record.start_hash:
            self.history.truncate(record.start_index)
            self.sure = record.start_index

    def put(self, slot: Slot) -> list[Slot]:
        """Put an entry of an ended epoch in its place; what stood there and above goes."""
        dropped = self.history.truncate(slot.header.index - 1)
        self.history.append(slot)
        self.note_start()
        return dropped

    # --- fetching --------------------------------------------------------------------------------

    def fault(self, message: History) -> str | None:
        """Why an answer proves nothing; None when every hash, digest and signature holds."""
        if not message.entries or len(message.entries) > ENTRIES_MAX:
            return "size"
        following = self.chain.record(message.epoch + 1)
        if len(message.links) > LINKS_MAX or following is None:
            return "size"
        first = message.entries[0].header
        if not self.history.base.index < first.index <= self.sure + 1:
            return "gap"
        prev, index = self.history.hash_at(first.index - 1), first.index
        membership = self.membership(message.epoch)
        for header in (*(entry.header for entry in message.entries), *message.links):
            if not membership.header_holds(header):
                return "header-signature"
            if (header.prev, header.index, header.epoch) != (prev, index, message.epoch):
                return "link"
            prev, index = header.hash(), index + 1
        if any(batch_digest(e.body) != e.header.batch for e in message.entries):
            return "digest"
        return self._end_fault(message, following, prev, index - 1)

    def _end_fault(
        self, message: History, following: EpochRecord, top: bytes | None, index: int
    ) -> str | None:
        certificate = message.certificate
        if certificate is None:
            is_start = (index, top) == (following.start_index, following.start_hash)
            return None if is_start else "start"
        if certificate.kind == "prepare" or certificate.header.hash() != top:
            return "certificate-entry"
        holds = self.membership(message.epoch).certificate_holds(certificate)
        return None if holds else "certificate"

    def take(self, message: History) -> tuple[list[Slot], list[Slot]]:
        """Take a run that was checked: the entries that are new, and those that they replace.

        Raises msgspec.DecodeError, and has changed nothing then.
        """
        new = [
            Slot.of(entry)
            for entry in message.entries
            if self.history.hash_at(entry.header.index) != entry.header.hash()
        ]
        dropped = [old for slot in new for old in self.put(slot)]
        last = message.entries[-1].header.index
        self.sure = max(self.sure, last)
        certificate = message.certificate
        if certificate is not None and certificate.kind == "checkpoint":
            self.checkpoints[certificate.header.index] = certificate
        return new, dropped

    # --- serving ---------------------------------------------------------------------------------

    def serve(self, message: FetchHistory) -> tuple[History, int] | None:
        """A run of entries of one ended epoch from `start` on, with its bytes; None without one."""
        start = message.start
        if not self.history.base.index < start <= self.sure:
            return None
        epoch, end = self._epoch_at(start)
        if end > self.sure:
            return None
        entries: list[Entry] = []
        size = 0
        for slot in self.history.slots(start - 1, min(end, start - 1 + ENTRIES_MAX)):
            size += len(slot.entry.body) + 256
            if entries and size > ENTRIES_BYTES_MAX:
                break
            entries.append(slot.entry)
        last = entries[-1].header.index
        tops = [index for index in self.checkpoints if last <= index <= end]
        certificate = self.checkpoints[min(tops)] if tops else None
        top = certificate.header.index if certificate is not None else end
        links = tuple(slot.header for slot in self.history.slots(last, top))
        return History(epoch, tuple(entries), links, certificate), size

    def _epoch_at(self, index: int) -> tuple[int, int]:
        """The ended epoch that an entry belongs to, and its last index."""
        for record in self.chain.records[1:]:
            if index <= record.start_index:
                return record.epoch - 1, record.start_index
        raise AssertionError(f"entry {index} belongs to the present epoch")


def starting_log(line: Line) -> Log:
    """The empty log of the present epoch, above everything that came before."""
    record = line.record
    return Log(Point(record.start_index, record.start_hash, 0), line.history.stamp_ms)
