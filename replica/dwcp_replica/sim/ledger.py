"""What one honest member has promised: what its disk ever held, and what it has signed.

Nothing may leave before what it depends on is durable, and nothing that was signed may ever be
contradicted, not even after a crash (epochs.md, Invariants). A ledger outlives crashes.
"""

from __future__ import annotations

import msgspec

from dwcp.wire.epochs import Seal
from dwcp.wire.peer import (
    Append,
    CheckpointVote,
    Commit,
    DoubleVote,
    Entry,
    Equivocation,
    Fork,
    Header,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    ViewChange,
    Vote,
    VoteRequest,
)
from dwcp_replica.core.effects import (
    BaseRecord,
    CertificateRecord,
    ElectionRecord,
    EnteredRecord,
    EntryRecord,
    EvidenceRecord,
    Record,
    TermRecord,
    ViewChangeRecord,
)
from dwcp_replica.core.state import IN_FLIGHT_MAX

Place = tuple[int, bytes]
"""An index of the chain and the hash that stands there."""


class BrokenPromiseError(Exception):
    """The message says what was promised."""


Shared = tuple[set[bytes], set[Place], dict[int, bytes], set[bytes]]
"""What outlives an epoch: entries and certified places, states by index, proofs."""


class Ledger:
    """The promises of one member in one epoch's log. `window` is how far above its checkpoint it
    may vote."""

    def __init__(self, window: int, shared: Shared) -> None:
        self.entries, self.certified, self.states, self._evidence = shared
        self.changes: dict[int, bytes] = {}
        self.stable = 0
        self.start = 0
        self._window = window
        self._elections: set[bytes] = set()
        self._log: dict[int, tuple[bytes, int]] = {}
        self._top = 0
        self._cc: dict[int, int] = {}
        self._committed: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self.votes: dict[int, bytes] = {}
        """Raft: my vote of each term, encoded, once it is durable."""
        self._signed: dict[tuple[str, int, int], bytes] = {}
        self._acked: dict[tuple[int, int], bytes] = {}
        self._asked = 0
        self._led: dict[int, int] = {}

    # --- what became durable -------------------------------------------------------------------

    def durable(self, record: Record) -> None:
        """The disk holds a record."""
        match record:
            case EntryRecord(entry):
                self._entry(entry.header)
            case EnteredRecord(_, _, Entry() as first):
                self.entries.add(first.header.hash())
            case BaseRecord(index, hash_, term, _, _):
                self._log = {index: (hash_, term)}
                self._top = index
                self.stable = max(self.stable, index)
                self.certified.add((index, hash_))
            case CertificateRecord(certificate):
                header = certificate.header
                if certificate.kind == "prepare":
                    self._cc[header.term] = max(self._cc.get(header.term, 0), header.index)
                elif certificate.kind == "checkpoint":
                    self.stable = max(self.stable, header.index)
                self._certify(header.index, header.hash())
            case ViewChangeRecord(change):
                self.changes[change.view] = msgspec.msgpack.encode(change)
            case ElectionRecord(election):
                self._elections.add(election.digest())
            case TermRecord(term, vote):
                if vote is not None:
                    self.votes[term] = msgspec.msgpack.encode(vote)
            case EvidenceRecord(proof):
                self._evidence.add(msgspec.msgpack.encode(proof))

    def _entry(self, header: Header) -> None:
        hash_ = header.hash()
        for index in range(header.index + 1, self._top + 1):
            self._log.pop(index, None)
        below = self._log.get(header.index - 1)
        if below is None or below[1] != header.term:
            self._first[header.term] = header.index
        self._top = header.index
        self._log[header.index] = (hash_, header.term)
        self.entries.add(hash_)

    def _certify(self, index: int, hash_: bytes) -> None:
        held = self._log.get(index)
        if held is None or held[0] != hash_:
            return
        while held is not None and (index, held[0]) not in self.certified:
            self.certified.add((index, held[0]))
            index -= 1
            held = self._log.get(index)

    # --- what is sent ----------------------------------------------------------------------------

    def sent(self, message: PeerMessage, life: int, *, mute: bool) -> None:
        """A message leaves. Raises BrokenPromiseError when it must not."""
        if mute:  # it may pass proofs on, and say nothing of its own
            own = PrePrepare | Prepare | Commit | CheckpointVote | ViewChange | Vote | Append
            if isinstance(message, own):
                raise BrokenPromiseError(f"a mute replica signed {type(message).__name__}")
            return
        match message:
            case PrePrepare(entry):
                self._leads(entry.header, life)
            case NewView(election, first):
                self._backed(election.digest() in self._elections, "NEW-VIEW", "its election")
                self._backed(first.header.hash() in self.entries, "NEW-VIEW", "its first entry")
            case Prepare(header, _, _):
                self._vote("prepare", header)
                self._grows(header)
                self._backed(header.hash() in self.entries, "PREPARE", "its entry")
                self._within(header)
            case Commit(header, _, _):
                self._vote("commit", header)
                covered = self._cc.get(header.term, 0) >= header.index
                before = self._committed.get(header.term, 0)
                self._committed[header.term] = max(before, header.index)
                self._backed(covered and header.hash() in self.entries, "COMMIT", "its CC")
            case ViewChange():
                self._change(message)
            case CheckpointVote(header, state, _, _):
                self._one("checkpoint", 0, header.index, state)
                executed = self.states.get(header.index) == state
                self._backed(executed, "CHECKPOINT", "an execution with this digest")
            case Equivocation() | DoubleVote() | Fork():
                shown = msgspec.msgpack.encode(message) in self._evidence
                self._backed(shown, "EVIDENCE", "the proof")
            case _:
                self._raft(message, life)

    def _raft(self, message: PeerMessage, life: int) -> None:
        """The same for the messages of the Raft driver."""
        match message:
            case Append():
                self._append(message, life)
            case Vote(_, term):
                self._elects(term, msgspec.msgpack.encode(message))
            case VoteRequest(_, term, pre) if not pre:
                self._backed(term in self.votes, "VOTE-REQUEST", "the candidate's own vote")
                self._elects(term, self.votes[term])

    def _append(self, message: Append, life: int) -> None:
        """A leader lets out what is durable, leads no term twice, and none below its own."""
        self._not_below(message.term, "APPEND")
        for entry in message.entries:
            if entry.header.term == message.term:
                self._leads(entry.header, life)
            self._backed(entry.header.hash() in self.entries, "APPEND", "its entry")
        for election in message.elections:
            self._backed(election.digest() in self._elections, "APPEND", "its election")

    def _elects(self, term: int, encoded: bytes) -> None:
        """One vote in a term, durable before it leaves, and none below a later one."""
        self._backed(self.votes.get(term) == encoded, "VOTE", "itself")
        self._one("vote", term, 0, encoded)
        self._not_below(term, "VOTE")
        self._asked = max(self._asked, term)

    def _grows(self, header: Header) -> None:
        """My acks in one term form one growing chain."""
        below = self._acked.get((header.term, header.index - 1))
        if below is not None and below != header.prev:
            raise BrokenPromiseError(f"the ack of {header.index} does not extend the one before")
        self._acked[(header.term, header.index)] = header.hash()

    def _leads(self, header: Header, life: int) -> None:
        self._one("append", header.term, header.index, header.hash())
        self._backed(header.hash() in self.entries, "PRE-PREPARE", "its entry")
        self._within(header)
        self._not_below(header.term, "PRE-PREPARE")
        if self._led.setdefault(header.term, life) != life:
            raise BrokenPromiseError(f"led view {header.term} on after a restart")

    def _vote(self, kind: str, header: Header) -> None:
        self._one(kind, header.term, header.index, header.hash())
        self._not_below(header.term, kind)

    def _change(self, change: ViewChange) -> None:
        encoded = msgspec.msgpack.encode(change)
        held = self.changes.get(change.view)
        self._backed(held is not None, "VIEW-CHANGE", "itself")
        if held != encoded:
            raise BrokenPromiseError(f"another VIEW-CHANGE for view {change.view}")
        if change.view > self._asked:
            self.shows_certificate(change, "VIEW-CHANGE")
        self._not_below(change.view, "VIEW-CHANGE")
        self._asked = max(self._asked, change.view)

    def shows_certificate(self, shown: ViewChange | Seal, what: str) -> None:
        """The highest CC that I have committed on is in my statement, above its checkpoint."""
        if not self._committed:
            return
        term = max(self._committed)
        low = 0 if shown.checkpoint is None else shown.checkpoint.header.index
        cc = None if shown.cc is None else (shown.cc.header.term, shown.cc.header.index)
        mine = (term, self._committed[term])
        if mine[1] > low and (cc is None or cc < mine):
            raise BrokenPromiseError(f"{what} hides the CC of term {term}")

    def _one(self, kind: str, term: int, index: int, what: bytes) -> None:
        if self._signed.setdefault((kind, term, index), what) != what:
            raise BrokenPromiseError(f"signed two {kind}s for term {term}, index {index}")

    def _not_below(self, term: int, what: str) -> None:
        if term < self._asked:
            raise BrokenPromiseError(
                f"signed a {what} of view {term} after asking for {self._asked}"
            )

    def _within(self, header: Header) -> None:
        """Below the high water mark; the first entries of a view stand where recover says."""
        first = self._first.get(header.term, self.start + 1)
        high = max(self.stable + self._window, first + IN_FLIGHT_MAX)
        if header.index > high:
            raise BrokenPromiseError(f"index {header.index} is above the high water mark {high}")

    @staticmethod
    def _backed(holds: bool, what: str, by: str) -> None:
        if not holds:
            raise BrokenPromiseError(f"{what} was sent before {by} was durable")
