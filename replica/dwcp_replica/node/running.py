"""A member at work: its core, log, store, peers and clients, joined."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import msgspec

from dwcp.wire.envelope import Envelope, decode_body
from dwcp.wire.epochs import CertifiedRecord, Records
from dwcp.wire.gossip import GossipMessage
from dwcp.wire.keys import KeyRequest, NextKey, show_key
from dwcp.wire.operations import RangeRequest
from dwcp.wire.peer import Forward, PeerMessage
from dwcp.wire.query import may_be_old
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import Signer
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.core.effects import (
    EVERYONE,
    CheckpointStable,
    EpochEntered,
    EpochSealed,
    Event,
    EvidenceFound,
    Halted,
    HandOver,
    MessageRefused,
    Order,
    Outbound,
    Panicked,
    Received,
    Retired,
    SourceLied,
    StateDiverged,
    SteppedDown,
    Submit,
    TransferDone,
    TransferStarted,
    ViewChangeStarted,
    ViewEntered,
    VoiceFound,
)
from dwcp_replica.core.epochs.directory import OUTSIDERS
from dwcp_replica.core.quorum import quorum
from dwcp_replica.durable import (
    DataDirectory,
)
from dwcp_replica.net.tls import server_context
from dwcp_replica.node.admission import Admission
from dwcp_replica.node.collecting import Collector
from dwcp_replica.node.config import LOG_BYTES_MIN, USUAL, Address, Feature
from dwcp_replica.node.documents import DocumentRoom
from dwcp_replica.node.engine import Engine
from dwcp_replica.node.health import Pulse
from dwcp_replica.node.hooks import HookMaker, OutboundHook, ReplyHook
from dwcp_replica.node.mesh import Mesh
from dwcp_replica.node.moding import ModeKeeper
from dwcp_replica.node.orders import Refusal, order_fault
from dwcp_replica.node.recovered import Recovered
from dwcp_replica.node.rekeying import key_refusal
from dwcp_replica.node.saving import LogKeeper
from dwcp_replica.node.signatures import Questions, SignatureGate
from dwcp_replica.store import KeyStore, Outcome

VERIFY_THREADS: Final = 2
HAND_OVER_S_MAX: Final = 2.0
FLUSH_S_MAX: Final = 0.5

_log = logging.getLogger(__name__)


class StateDivergedError(Exception):
    """This replica's state differs from what a quorum signed: it must not go on."""


class HaltedError(Exception):
    """The engine found that going on could break a promise."""


class RunningReplica:
    """Joins what was recovered with peers and clients. Implements engine.Effects."""

    def __init__(
        self, directory: DataDirectory, genesis: EpochRecord, found: Recovered,
        metrics: ReplicaMetrics, make_hooks: HookMaker | None, log_bytes: int = LOG_BYTES_MIN,
        features: frozenset[Feature] = USUAL,
    ) -> None:  # fmt: skip
        outbound: OutboundHook | None = None
        reply: ReplyHook | None = None
        standing = found.core.standing()
        self._keys = found.keys
        signer = found.keys.of(standing.record)[0]
        if make_hooks is not None and standing.me is not None:
            outbound, reply = make_hooks(genesis, standing.me, signer)
        store = found.store
        store.enter(standing.record)
        self.genesis = genesis
        self.record = standing.record
        self.me = standing.me
        self.settled = self.record.epoch == 0
        self.removed = asyncio.Event()
        self.damage = found.damage
        self.store = store
        self._directory = directory
        self._metrics = metrics
        self._outbound_hook = outbound
        self._journal = found.journal
        self._questions = Questions(genesis, self.record)
        self._threads = ThreadPoolExecutor(VERIFY_THREADS, "dwcp-verify")
        self._gate = SignatureGate(found.verifier, self._threads)
        interval = genesis.parameters.checkpoint_interval
        self._state = found.state
        self._shelf = found.shelf
        self.keeper = LogKeeper(found.wal, found.state, directory.archive_path, log_bytes)
        self.engine = Engine(
            found.core, store, found.shelf, found.journal, self.keeper, self, interval, metrics
        )
        self.pulse = Pulse(self.engine)
        self.replay_upto = self.engine.standing.final
        self._read_from = self.engine.standing.last
        self.admission = Admission(
            genesis=genesis, record=self.record, me=self.me or 0, signer=signer,
            verifier=found.verifier, gate=self._gate, engine=self.engine, store=store,
            metrics=metrics, reply_hook=reply, may_read=self._may_read,
        )  # fmt: skip
        records = [genesis, *(one.record for one in found.core.certified)]
        self.documents = DocumentRoom(
            path=directory.documents_path, genesis=genesis, records=records, me=self.me,
            signer=signer, verifier=found.verifier, gate=self._gate, metrics=metrics,
        )  # fmt: skip
        self.collector = Collector(
            self.documents, self._key_store, genesis.hash(), lambda: self.signer, self._submit,
            metrics,
        )  # fmt: skip
        keys = (signer, directory.certificate_fingerprint)
        self.mesh = Mesh(
            genesis.hash(), self.record, keys, found.verifier, self._receive, metrics,
            self.documents,
        )  # fmt: skip
        self.mesh.know(found.core.peers)
        self.mesh.enter(signer, self.record)  # of all whom ended epochs named, who is a member
        self.documents.wakes(self.mesh.dialer)
        self.documents.ask(self._key_store)
        self.modes = ModeKeeper(
            genesis, lambda: self.signer, found.verifier, self.engine, store, self.mesh,
            metrics, features,
        )  # fmt: skip

    async def start(self, listen: Address) -> None:
        """Listen for peers. Raises OSError when the address can not be bound."""
        directory = self._directory
        context = server_context(directory.tls_certificate_path, directory.tls_key_path)
        await self.mesh.start(listen, context)

    def tasks(self) -> list[Coroutine[Any, Any, None]]:
        """What must run; the end of any of them is the end of the process."""
        reading, watching = self.admission.reading, self.admission.watching
        tasks = [self.engine.run(), self._gate.run(), self.mesh.run()]
        tasks += [reading.run(), watching.run(), self._notice()]
        documents = (self.documents.run(), self.collector.run())
        return [*tasks, *self.modes.tasks(), *documents, self.pulse.watch()]

    def _key_store(self) -> KeyStore | None:
        """Where documents find what is agreed; None while the state is being fetched."""
        return None if self.store.target is not None else self.store.key_store

    def _submit(self, envelope: Envelope) -> None:
        """Put something of this member's own into the log, while it is a member."""
        if self.me is not None:
            self.engine.inbox.put(Submit(envelope))

    async def _notice(self) -> None:
        """Tell those who wait for events whenever something was executed."""
        watching = self.admission.watching
        while True:
            await self.engine.until(watching.is_behind)
            watching.catch_up()

    def hindrance(self) -> str | None:
        """Why this replica does not vote; None when it does."""
        if self.me is None:
            return self._outside()
        if self.mute is not None:
            return f"mute: {self.mute}"
        standing = self.engine.standing
        if standing.transfer is not None:
            return (
                f"fetching the state at {standing.transfer}: {standing.transfer_left} parts known"
            )
        if not standing.has_state:
            return "its state is lost, and no checkpoint to fetch has been shown yet"
        if self.store.applied_index < self.replay_upto:
            return f"executing its log again: {self.store.applied_index} of {self.replay_upto}"
        needed = quorum(len(self.record.members), self.record.trust) - 1
        if (reached := self.mesh.reached) < needed:
            return f"connected to {reached} other members; a quorum needs {needed}"
        return "the disk is full" if self.engine.disk_full else None

    def _may_read(self, reads: Sequence[RangeRequest]) -> bool:
        """True once everything is executed that this member may have confirmed before it started.

        What was executed stood in the log, durably; that it was final may not have been written.
        """
        executed = self.store.applied_index - self.store.in_entry
        if self.mute is not None or self.store.target is not None or executed < self._read_from:
            return False
        return may_be_old(reads) or self.engine.standing.shows_newest(executed)

    @property
    def mute(self) -> str | None:
        """Why this member signs nothing; None when it does."""
        return self.engine.standing.mute

    @property
    def certified(self) -> tuple[CertifiedRecord, ...]:
        """The epoch records after genesis, with their certificates."""
        return self.engine.certified

    def _outside(self) -> str:
        """What a replica says of itself that is no member."""
        epoch = self.record.epoch
        if self.was_member:
            return f"removed: it is no member of epoch {epoch}, whose members are not all ready yet"
        return f"a learner: it fetches the state, and is no member of epoch {epoch} yet"

    @property
    def signer(self) -> Signer:
        """The key that the present record knows this replica by."""
        return self._keys.of(self.record)[0]

    @property
    def was_member(self) -> bool:
        """True when any record so far names this replica."""
        return any(self._keys.of(record)[1] is not None for record in self._records)

    @property
    def _records(self) -> tuple[EpochRecord, ...]:
        return (self.genesis, *(one.record for one in self.certified))

    def next_key(self, request: KeyRequest) -> NextKey | Refusal:
        """Make this member's next key, or show the one that is made; or why not.

        Raises DiskFailure.
        """
        refusal = key_refusal(
            request, (self.genesis, self.record), self.me,
            settling=self.signer is not self._directory.signer, mute=self.mute,
        )  # fmt: skip
        if refusal is not None:
            return refusal
        following = self._directory.make_next_key()
        self._keys.expect(following)
        scope = scope_of(self.genesis, self.record)
        return show_key(request, scope, self.signer, following)

    def order(self, order: AdminSwitch, *, learn: bool) -> Refusal | None:
        """Take an order of the admin; else an enumerated word and a sentence why not.

        With `learn` its new members may fetch from now on, and nothing else happens.
        """
        if (refusal := order_fault(self._records, order)) is None:
            self.engine.inbox.put(Order(order, learn))
        return refusal

    def introduce(self, records: tuple[CertifiedRecord, ...]) -> None:
        """Take records that came with the invitation; the engine checks each."""
        self.engine.inbox.put(Received(0, Records(records)))

    def _entered(self, event: EpochEntered) -> None:
        """Sign and check under another record from now on."""
        self.record = event.certified.record
        self._questions = Questions(self.genesis, self.record)
        self.me = event.me
        self.settled = False
        if event.me is not None:
            self.admission.enter(self.record, event.me, self.signer)
        self.mesh.know(self.engine.peers)
        self.mesh.enter(self.signer, self.record)
        self.documents.enter(self.record, self.me, self.signer)
        record = self.record
        leader = record.members[record.leader].name
        barred = [record.members[m].name for m in record.barred]
        self._report(
            "epoch-entered", number=record.epoch, start=record.start_index, leader=leader,
            barred=barred,
        )  # fmt: skip

    async def hand_over(self) -> None:
        """Give up the primary role if it is mine, then let out what is on its way. Bounded."""
        standing = self.engine.standing
        if standing.active and standing.primary == self.me and self.mute is None:
            self.engine.inbox.put(HandOver())
            moved = await self._within(HAND_OVER_S_MAX, standing.view)
            _log.info("handed-over" if moved else "hand-over-timed-out")
        await self._within(FLUSH_S_MAX, None)

    async def _within(self, seconds: float, view: int | None) -> bool:
        """Wait until a later view is active, or with None until nothing is on its way."""

        def reached() -> bool:
            now = self.engine.standing
            return self.engine.idle if view is None else now.active and now.view > view

        try:
            async with asyncio.timeout(seconds):
                await self.engine.until(reached)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close connections and the log, once the tasks have ended."""
        await self.mesh.close()
        self._threads.shutdown()
        self.documents.close()
        self._journal.close()
        self._shelf.drop()
        self._state.close()

    # --- peers ----------------------------------------------------------------------------------

    async def _receive(
        self, sender: int, message: PeerMessage | GossipMessage, size_bytes: int
    ) -> None:
        if isinstance(message, GossipMessage):
            self.documents.receive(sender, message, size_bytes)
            return
        inbox = self.engine.inbox
        while not inbox.admits(sender):
            await inbox.taken()
        held = (sender, size_bytes)
        inbox.hold(*held)
        checks = self._questions.message(message)
        self._gate.push_message(checks, partial(self._pass_on, sender, message, held), sender)

    def _pass_on(self, sender: int, message: PeerMessage, held: tuple[int, int]) -> None:
        if isinstance(message, Forward):
            message = Forward(tuple(filter(self._is_fresh, message.envelopes)))
            if not message.envelopes:
                self.engine.inbox.drop(*held)
                return
        self.engine.inbox.put(Received(sender, message), held)

    def _is_fresh(self, envelope: Envelope) -> bool:
        """False for what was answered already: a liar could have it ordered again for ever."""
        try:
            body = decode_body(envelope.body)
        except msgspec.DecodeError:
            return False
        return self.store.lookup(envelope, body) is None

    # --- engine.Effects -------------------------------------------------------------------------

    def send(self, messages: list[Outbound]) -> None:
        """Send to peers."""
        if self._outbound_hook is not None:
            messages = self._outbound_hook(messages)
        self.mesh.know(self.engine.peers)
        for message in messages:
            self.mesh.dialer.send(None if message.to == EVERYONE else message.to, message.message)

    def executed(self, outcomes: tuple[Outcome, ...]) -> None:
        """Answer the clients that wait for these."""
        self.admission.executed(outcomes)
        for request in self.store.key_store.take_documents():
            self.documents.deliver(request)

    def publish(self, events: list[Event]) -> None:
        """Log and count. Raises StateDivergedError and HaltedError."""
        for event in events:
            self._publish(event)

    def _publish(self, event: Event) -> None:
        metrics = self._metrics
        match event:
            case ViewChangeStarted(view, reason):
                metrics.view_changes.labels(reason).inc()
                self._report("view-change", view=view, reason=str(reason))
            case ViewEntered(view, primary):
                self._report("view-entered", view=view, primary=self._name(primary))
            case CheckpointStable(index, state):
                _log.debug("checkpoint-stable", extra={"index": index, "state": state.hex()})
            case SteppedDown() | Panicked():
                self._publish_raft(event)
            case EvidenceFound(member, kind, _):
                metrics.evidence.labels(kind).inc()
                self._report("byzantine-evidence", member=self._name(member), kind=kind)
            case MessageRefused(sender, kind, reason):
                metrics.messages_refused.labels(kind, reason).inc()
                extra = {"from": self._name(sender), "kind": kind, "reason": reason}
                _log.debug("message-refused", extra=extra)
            case EpochSealed() | EpochEntered() | VoiceFound() | Retired():
                self._publish_epoch(event)
            case TransferStarted() | TransferDone() | SourceLied():
                self._publish_transfer(event)
            case Halted(reason):
                metrics.halted.set(1)
                raise HaltedError(
                    f"{reason}: more than f members must have lied, or this one's disk is wrong; "
                    f"keep {self._directory.path} as evidence, and replace this member"
                )
            case StateDiverged(index, mine, stable):
                metrics.state_diverged.set(1)
                raise StateDivergedError(
                    f"after entry {index} the state's digest is {mine.hex()} here, but a quorum "
                    f"signed {stable.hex()}: keep {self._directory.path} as evidence, and replace "
                    "this member"
                )

    def _publish_raft(self, event: Event) -> None:
        metrics = self._metrics
        match event:
            case SteppedDown(term):
                metrics.stepped_down.inc()
                self._report("stepped-down", term=term)
            case Panicked(term, why):
                metrics.panics.labels(why).inc()
                self._report("panic", term=term, reason=str(why))

    def _publish_epoch(self, event: EpochSealed | EpochEntered | VoiceFound | Retired) -> None:
        match event:
            case EpochSealed(epoch, reason):
                self._report("epoch-sealed", number=epoch, reason=reason)
            case EpochEntered():
                self._entered(event)
            case VoiceFound(epoch):
                self.keeper.forgive()
                self._report("voice-found", number=epoch)
            case Retired(epoch):
                self._report("epoch-ready", number=epoch)
                self._settled()

    def _settled(self) -> None:
        """A quorum holds the start of the epoch: who was removed is needed no more."""
        self.settled = True
        self.mesh.settle()
        if self.me is None and self.was_member:
            self.removed.set()
        elif self.me is not None and self.signer is self._directory.next_signer:
            self._directory.adopt_next_key()
            self._keys.adopted()
            self._report("key-changed", key=self.signer.public_key.hex())

    def _publish_transfer(self, event: TransferStarted | TransferDone | SourceLied) -> None:
        metrics = self._metrics
        match event:
            case TransferStarted(index, reason):
                metrics.transfers.labels(reason).inc()
                self._report("state-transfer", checkpoint=index, reason=reason)
            case TransferDone(index, received_bytes):
                metrics.transfer_bytes.inc(received_bytes)
                self._report("state-transferred", checkpoint=index, bytes=received_bytes)
            case SourceLied(member, index):
                metrics.state_lies.labels(self._name(member)).inc()
                self._report("state-source-lied", member=self._name(member), checkpoint=index)

    def _report(self, event: str, **fields: object) -> None:
        standing = self.engine.standing
        extra = {"epoch": standing.epoch, "index": standing.final, **fields}
        _log.info(event, extra=extra)

    def _name(self, member: int) -> str:
        if member >= OUTSIDERS:
            return self.mesh.roster.name(member - OUTSIDERS)
        members = self.record.members
        return members[member].name if 0 <= member < len(members) else f"stranger {member}"
