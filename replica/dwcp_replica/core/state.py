"""What a replica's engine knows, and the few ways in which every part of it acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dwcp.wire.envelope import MAX_ENVELOPE_BYTES
from dwcp.wire.peer import (
    AnyElection,
    Certificate,
    CheckpointVote,
    Commit,
    Election,
    Entry,
    Header,
    NewView,
    PeerMessage,
    Prepare,
    Status,
    ViewChange,
    vote_signing_bytes,
)
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer, Verifier
from dwcp.wire.switch import Switch
from dwcp_replica.core.certificates import Membership, Vote, VoteBook
from dwcp_replica.core.chain import Log, Point, Slot
from dwcp_replica.core.effects import (
    EVERYONE,
    BranchRecord,
    CertificateRecord,
    EntryRecord,
    Event,
    EvidenceFound,
    Halted,
    MessageRefused,
    Outbound,
    Ready,
    Record,
)
from dwcp_replica.core.epochs.ending import Ending
from dwcp_replica.core.pending import RequestPool
from dwcp_replica.core.quorum import liars
from dwcp_replica.core.raft.state import Draw, RaftState

if TYPE_CHECKING:
    from dwcp_replica.core.state_tree import StateTree
    from dwcp_replica.core.transfer import Transfer

IN_FLIGHT_MAX: Final = 4
"""Entries that a leader has proposed and that are not final yet: enough to hide one round."""
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
BATCH_ENVELOPES_MAX: Final = 512
WINDOW_INTERVALS: Final = 2
"""The high water mark lies this many checkpoint intervals above the low one (PBFT: L = 2K)."""
EARLY_MAX: Final = 256
"""Messages of a later view that are kept until it begins, for each sender."""
BODY_BYTES_MAX: Final = BATCH_BYTES_MAX + MAX_ENVELOPE_BYTES + 65_536
"""A longer body is refused everywhere: it must fit a frame on the way to who lacks it."""
ANSWER_BURST_BYTES: Final = 16 * 1024 * 1024
ANSWER_BYTES_PER_MS: Final = 64 * 1024
"""What one peer may have of large answers, however often it asks."""


def window(record: EpochRecord) -> int:
    """Entries that one leader may have above a stable checkpoint."""
    return WINDOW_INTERVALS * max(record.parameters.checkpoint_interval, IN_FLIGHT_MAX)


class Core:
    """The state of one replica in one epoch. The parts (`pbft/`, `catchup`, ...) work on it."""

    def __init__(
        self, genesis: EpochRecord, me: int, signer: Signer, verifier: Verifier, mute: str | None,
        record: EpochRecord | None = None, state: StateTree | None = None,
        draw: Draw | None = None,
    ) -> None:  # fmt: skip
        record = record or genesis
        self._state = state
        self.genesis = genesis
        self.record = record
        self.me = me
        self.signer = signer
        self.mute = mute
        self.membership = Membership(record, scope_of(genesis, record), verifier)
        self.n = len(record.members)
        self.f = liars(self.n, record.trust)
        self.q = self.membership.quorum
        # members send reports of their network as clients send requests
        self.client_keys = frozenset(
            [client.key for client in record.clients] + [m.identity for m in record.members]
        )
        self.out = Ready()
        self.halted: str | None = None
        self.sealed = False
        self.waiting = False
        self.switches: list[int] = []
        self.raft = RaftState(draw)
        self.switch_wanted: Switch | None = None
        self.switch_since_ms: int | None = None
        self.ending = Ending()
        self.past_evidence: dict[int, EvidenceFound] = {}
        self.pool = RequestPool()
        self.evidence: dict[int, EvidenceFound] = {}
        self._begin_log(record)
        self._begin_view()
        self._begin_time()

    def _begin_log(self, record: EpochRecord) -> None:
        """The chain, what is certified of it, and the votes on it."""
        self.log = Log(Point(record.start_index, record.start_hash, 0))
        self.view_start = record.start_index + 1
        self.cc: Certificate | None = None
        self.cc_branch: tuple[Slot, ...] = ()
        self.prepared = record.start_index
        self.final = record.start_index
        self.final_certificate: Certificate | None = None
        self.unsaved_final: Certificate | None = None
        self.applied = record.start_index
        self.due_ms: int | None = None
        self.emitted = record.start_index
        self.saved = record.start_index
        self.stateless = False
        self.transfer: Transfer | None = None
        self.stable: Certificate | None = None
        self.checkpoints: dict[int, Certificate] = {}
        self.my_checkpoint: CheckpointVote | None = None
        self.checkpoint_headers: dict[bytes, Header] = {}
        self.checkpoint_waiting: Certificate | None = None
        self.states: dict[int, bytes] = {}
        self.prepares = VoteBook("prepare")
        self.commits = VoteBook("commit")
        self.checkpoint_votes = VoteBook("checkpoint")
        self.ahead: dict[int, Entry] = {}
        self.early: dict[int, list[PeerMessage]] = {}
        self.seen: dict[int, Header] = {}
        self.bodies: dict[bytes, bytes] = {}
        self.bodies_wanted: set[bytes] = set()

    def _begin_view(self) -> None:
        """The view I am in or ask for, and what I hold for the next one."""
        self.view = 1
        self._primary = (0, 0)  # of which view, and who
        self.active = True
        self.my_change: ViewChange | None = None
        self.new_view: NewView | None = None
        self.entered_election: AnyElection | None = None
        self.changes: dict[int, ViewChange] = {}
        self.elections: dict[bytes, tuple[AnyElection, Point]] = {}
        self.elections_saved: set[bytes] = set()
        self.elections_wanted: dict[int, frozenset[bytes]] = {}
        self.leave_view = False
        self.leading: Election | None = None
        self.leading_since_ms = 0
        self.worthless: set[int] = set()
        self.new_views_wanted: dict[int, tuple[NewView, int]] = {}
        self.stuck_changes: dict[int, ViewChange] = {}

    def _begin_time(self) -> None:
        """Clocks, and where others were last heard."""
        self.now_ms = 0
        self.wall_ms = 0
        self.peers: dict[int, Status] = {}
        self.outside: dict[int, Status] = {}
        """Of learners and former members: who left may be the only one that has what is missing."""
        self.heard_ms: dict[int, int] = {}
        self.fetch_since_ms: int | None = None
        self.fetch_from = self.me
        self.fetch_asked: set[int] = set()
        self.allowance: dict[int, tuple[int, int]] = {}
        self.view_since_ms = 0
        self.progress_ms = 0
        self.change_timer_ms: int | None = None
        self.attempts = 0
        self.doubted_since_ms: int | None = None
        self.resigned_ms = 0
        self.resignations = 0
        self.heartbeat_ms = 0
        self.final_at_heartbeat = self.record.start_index

    # --- what is so ----------------------------------------------------------------------

    @property
    def primary(self) -> int:
        """The member that leads the present view."""
        view, primary = self._primary
        if view != self.view:
            view, primary = self._primary = self.view, self.record.primary(self.view)
        return primary

    @property
    def leads(self) -> bool:
        """True when this replica may propose; without a state it can not tell what is new."""
        has_state = self.transfer is None and not self.stateless
        return self.active and self.primary == self.me and self.mute is None and has_state

    @property
    def state(self) -> StateTree:
        """The replicated state, which a replica that serves or fetches it has."""
        assert self._state is not None, "this engine was given no state"
        return self._state

    @property
    def shows_state(self) -> bool:
        """True when others may fetch the state from here."""
        return self._state is not None

    @property
    def interval(self) -> int:
        """Entries between checkpoints."""
        return self.record.parameters.checkpoint_interval

    @property
    def low(self) -> int:
        """The low water mark: the stable checkpoint."""
        return self.stable.header.index if self.stable else self.record.start_index

    @property
    def high(self) -> int:
        """The high water mark: no entry above it is accepted. Castro and Liskov 1999, §4.2.

        The first entries of the present view always fit: they make final what it inherited.
        """
        return max(self.low + self.window, self.view_start + IN_FLIGHT_MAX)

    @property
    def window(self) -> int:
        """Entries between the water marks."""
        return window(self.record)

    @property
    def stable_point(self) -> Point | None:
        """The stable checkpoint as a place in the chain."""
        if self.stable is None:
            return None
        header = self.stable.header
        return Point(header.index, header.hash(), header.term)

    # --- what the parts do -----------------------------------------------------------------

    def persist(self, record: Record) -> None:
        """Make `record` durable before anything emitted with it or after it leaves."""
        self.out.persist.append(record)

    def send(self, to: int, message: PeerMessage) -> None:
        """Send to one member, after everything persisted so far is durable."""
        assert to != self.me, "a replica does not write to itself"
        self.out.send.append(Outbound(to, message))

    def broadcast(self, message: PeerMessage) -> None:
        """Send to every other member."""
        self.out.send.append(Outbound(EVERYONE, message))

    def emit(self, event: Event) -> None:
        """Tell whoever listens."""
        self.out.events.append(event)

    def afford(self, peer: int, size_bytes: int) -> bool:
        """True when this peer may be sent a large answer now; its allowance is used up by it."""
        left, since_ms = self.allowance.get(peer, (ANSWER_BURST_BYTES, self.now_ms))
        left = min(ANSWER_BURST_BYTES, left + (self.now_ms - since_ms) * ANSWER_BYTES_PER_MS)
        granted = left > 0
        self.allowance[peer] = (left - size_bytes if granted else left, self.now_ms)
        return granted

    def halt(self, reason: str) -> None:
        """Stop for good, loudly: going on could break a promise."""
        self.halted = reason
        self.emit(Halted(reason))

    def refuse(self, sender: int, message: object, reason: str) -> None:
        """Drop a message that changes nothing, and say so."""
        kind = type(message).__name__
        self.emit(MessageRefused(sender, kind, reason))

    def sign(self, message: bytes) -> bytes:
        """Sign with this replica's key; a mute replica must not get here."""
        assert self.mute is None, f"a mute replica ({self.mute}) signs nothing"
        assert not self.sealed, f"epoch {self.record.epoch} is sealed: nothing is signed in it"
        return self.signer.sign(message)

    def append(self, entry: Entry, slot: Slot | None = None) -> Slot:
        """Append the next entry to the log, durably."""
        slot = slot or Slot.of(entry)
        if self.log.last == self.final:
            self.progress_ms = self.now_ms  # the wait for progress begins with work, not before
        self.log.append(slot)
        if slot.switch is not None:
            self.switches.append(entry.header.index)
        self.persist(EntryRecord(entry))
        self.pool.proposed(slot.requests)
        return slot

    def truncate(self, last: int) -> list[Slot]:
        """Drop the log's tail above `last`; what was final stays for ever."""
        assert last >= self.final, f"truncate to {last} below final {self.final}"
        dropped = self.log.truncate(last)
        self.switches = [index for index in self.switches if index <= last]
        for slot in dropped:
            self.pool.dropped(slot.requests)
        return dropped

    def replace_above(self, keep: int, slots: list[Slot]) -> None:
        """Swap the log's tail above `keep` for `slots`; a CC that leaves keeps its branch."""
        if keep < self.log.last:
            cc = self.cc
            if (
                cc is not None
                and cc.header.index > keep
                and self.log.hash_at(cc.header.index) == cc.header.hash()
            ):
                self.cc_branch = tuple(self.log.slots(self.low, cc.header.index))
                self.persist(BranchRecord(tuple(slot.entry for slot in self.cc_branch)))
            dropped = self.truncate(keep)
            self.bodies.update({slot.header.batch: slot.entry.body for slot in dropped})
            self.trim_bodies()
        for slot in slots:
            self.append(slot.entry, slot)

    def forget_votes(self) -> None:
        """Drop what counted in the view that ends."""
        self.prepares.clear()
        self.commits.clear()
        self.ahead.clear()
        self.seen.clear()

    def yield_to_log(self) -> None:
        """Leave a view that the log has passed: nothing below the log's last term is signed."""
        if self.log.tip.term > self.view:
            self.view = self.log.tip.term
            self.active = False
            self.change_timer_ms = None

    def trim_bodies(self) -> None:
        """Bound the bodies kept aside: oldest first out."""
        while len(self.bodies) > EARLY_MAX:
            del self.bodies[next(iter(self.bodies))]

    # --- votes -----------------------------------------------------------------------------

    def vote_prepare(self, header: Header) -> Prepare:
        """Sign and count my prepare for an entry of my log."""
        assert self.active, "no prepare outside an active view"
        assert not self.sealed, "nothing is signed in a sealed epoch"
        assert header.term == self.view, "a prepare is for the present view"
        assert self.log.hash_at(header.index) == header.hash(), "I prepare only what I hold"
        sig = self.sign(vote_signing_bytes(self.membership.scope, "prepare", header))
        self.prepares.add(self.me, Vote(header, header.hash(), b"", sig))
        return Prepare(header, self.me, sig)

    def vote_commit(self, header: Header) -> Commit:
        """Sign and count my commit (CERT-ACK): its CC is held, and durable before it leaves."""
        assert self.active, "no commit outside an active view"
        assert not self.sealed, "nothing is signed in a sealed epoch"
        assert header.term == self.view, "a commit is for the present view"
        assert self.cc is not None, "a commit needs a CC"
        assert self.cc.header.term == self.view, "a commit needs a CC of its own view"
        assert self.cc.header.index >= header.index, "the CC does not cover this entry"
        assert self.log.hash_at(header.index) == header.hash(), "I commit only what I hold"
        sig = self.sign(vote_signing_bytes(self.membership.scope, "commit", header))
        self.commits.add(self.me, Vote(header, header.hash(), b"", sig))
        return Commit(header, self.me, sig)

    def vote_checkpoint(self, header: Header, state: bytes) -> CheckpointVote:
        """Sign and count my checkpoint of an executed entry."""
        assert header.index <= self.final, "only final entries are checkpointed"
        message = vote_signing_bytes(self.membership.scope, "checkpoint", header, state)
        sig = self.sign(message)
        self.checkpoint_votes.add(self.me, Vote(header, header.hash(), state, sig))
        return CheckpointVote(header, state, self.me, sig)

    # --- certificates ------------------------------------------------------------------------

    def set_cc(self, certificate: Certificate) -> None:
        """Keep a CC of an entry in my log as the highest."""
        header = certificate.header
        if self.cc is not None:
            held = self.cc.header
            assert (header.term, header.index) > (held.term, held.index), "the CC went back"
        assert self.log.hash_at(header.index) == header.hash(), "the CC's chain is not held"
        self.cc = certificate
        self.cc_branch = ()
        self.persist(CertificateRecord(certificate))

    def set_final(self, certificate: Certificate, upto: int | None = None) -> None:
        """Everything up to `upto` is final; execution follows in order.

        The certificate's entry stands at `upto` (the default) or above, linked to it.
        """
        index = certificate.header.index if upto is None else upto
        assert index > self.final, f"final went back: {self.final} -> {index}"
        assert index <= certificate.header.index, "a certificate covers only what is below it"
        if self.log.hash_at(certificate.header.index) == certificate.header.hash():
            index = certificate.header.index
            self.final_certificate = certificate
            # a CC that decides (Crash trust) was written down when it became the highest
            self.unsaved_final = certificate if certificate.kind != "prepare" else None
        before, self.final = self.final, index
        self.prepared = max(self.prepared, index)
        self.progress_ms = self.now_ms
        self.attempts = 0
        for slot in self.log.slots(before, index):
            self.pool.executed(slot.requests, self.now_ms)
        self.emit_final()

    def emit_final(self) -> None:
        """Have executed what is final, not further ahead of execution than a window."""
        if self.transfer is not None or self.stateless:
            return
        upto = min(self.final, self.applied + self.window)
        for slot in self.log.slots(self.emitted, upto):
            self.out.apply.append(slot.entry)
        self.emitted = max(self.emitted, upto)

    def restart_log(self, base: Point, stamp_ms: int, body: bytes | None) -> None:
        """Go on from a stable checkpoint to which the log does not lead; what was held is gone."""
        assert base.index >= self.final, f"restart at {base.index} below final {self.final}"
        self.log.restart(base, stamp_ms, body)
        self.pool.clear()
        self.forget_votes()
        self.switches = []
        self.cc_branch = ()
        self.final_certificate = self.unsaved_final = None
        self.my_checkpoint = None
        self.checkpoint_waiting = None
        self.final = self.prepared = base.index
        self.progress_ms = self.now_ms

    def save_final(self) -> None:
        """Write the newest final certificate down; it rides along, since peers can show it too."""
        if self.unsaved_final is not None:
            self.persist(CertificateRecord(self.unsaved_final))
            self.unsaved_final = None

    def timeout_ms(self) -> int:
        """The present request timeout: doubled for every view change without progress."""
        base = self.record.parameters.request_timeout_ms
        return int(min(base * 2 ** min(self.attempts, 10), max(base, 60_000)))
