"""The state machine that every replica runs: batches in, outcomes and a state digest out.

Everything here is a pure function of the batches applied. In particular an outcome never shows
the text of a library's exception, and an envelope counts only in the one encoding that its body
has (`canonical`): decoders skip what they do not know, to a depth that differs between
interpreters, and what a client signed must mean the same to every version of this program. A
field added to an operation later must be accepted here in its absence, too.

All that is remembered is in `Records`, under keys that start with the kind of record:

    00  index, agreed time and counters      03  which machine a user embeds
    01  a session                            04  what that machine keeps
    02  a kept reply                         05  what decides the mode
    10 to 18  keys, leases and what else layout.py names
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import msgspec
from msgspec import Struct

from dwcp.wire.envelope import (
    MAX_ENVELOPE_BYTES,
    MAX_ENVELOPE_OPERATIONS,
    Batch,
    Envelope,
    EnvelopeBody,
    decode_body,
)
from dwcp.wire.frontiers import FrontierVote
from dwcp.wire.modes import ModeSetRequest, NetworkReport
from dwcp.wire.operations import (
    CloseSession,
    Command,
    CommandResult,
    EnvelopeFailure,
    Failure,
    OpenSession,
    Operation,
    RangeRequest,
    Result,
    SessionClosed,
    SessionOpened,
    nests_too_deep,
    reads_only,
)
from dwcp.wire.records import EpochRecord
from dwcp_replica.store.keystore import KeyLimits, KeyStore
from dwcp_replica.store.machine import Embedded, Moment, StateMachine
from dwcp_replica.store.members import MemberDesk
from dwcp_replica.store.modes import ModeBook
from dwcp_replica.store.records import MemoryRecords, StateRecords, Target
from dwcp_replica.store.refusals import (
    Refusal,
    answer_dropped,
    check_shape,
    executed_too_large,
    malformed,
    too_large,
    too_much_work,
)
from dwcp_replica.store.sessions import (
    Answered,
    Fresh,
    FreshOpen,
    Refused,
    Reopened,
    SessionLimits,
    Sessions,
    StoredReply,
    Verdict,
)

ROOT: Final = b"\x00"
_NO_MACHINE: Final = Failure(
    12,
    "this cluster runs no state machine of its own, only the key store: start every replica with "
    "--machine module:Class",
)


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bounds of the store, etcd's defaults where it has them; all replicas must hold the same.

    envelope_keys: that an envelope's operations may look at, before the last one of them: all
    replicas execute it in the same moment, and nothing else goes on while they do.
    answer_bytes: of one envelope's results, which must fit a frame on the way to the client.
    """

    envelope_bytes: int = MAX_ENVELOPE_BYTES
    envelope_operations: int = MAX_ENVELOPE_OPERATIONS
    envelope_keys: int = 200_000
    answer_bytes: int = 8 * 1024**2
    keys: KeyLimits = field(default_factory=KeyLimits)
    sessions: SessionLimits = field(default_factory=SessionLimits)


class Outcome(Struct, frozen=True):
    """What became of an envelope at `index`; the content of the replicas' replies.

    `results` is the MessagePack of a tuple of Result: one per operation, or one Failure when
    the envelope was refused as a whole. `duplicate`: it was executed before, and this repeats
    the first answer with the first index and revision. An envelope whose body can not be
    decoded has session 0 and sequence 0.
    """

    request: bytes
    client: bytes
    session: int
    sequence: int
    index: int
    revision: int
    results: bytes
    duplicate: bool


class Root(Struct, frozen=True, array_like=True):
    """What is not a record of something else: where the state stands, and its counters."""

    genesis: bytes
    applied_index: int
    stamp_ms: int
    next_session: int


class ForeignStateError(Exception):
    """The records are those of another cluster."""


class Store:
    """Keys, sessions and time of the cluster, and a user's machine, as of `applied_index`.

    It goes on from what the records hold. Raises ForeignStateError and
    machine.RestoreFaultError. `target` is the checkpoint that the records are being turned into,
    if they are: until then nothing can be executed or told.
    """

    def __init__(
        self,
        genesis: EpochRecord,
        limits: StoreLimits | None = None,
        records: StateRecords | None = None,
        machine: StateMachine | None = None,
    ) -> None:
        self._limits = limits or StoreLimits()
        self._clients = frozenset(client.key for client in genesis.clients)
        self._first_record = genesis
        self._genesis = genesis.hash()
        self.record = genesis
        """Of the epoch whose entries are executed."""
        self._start_index = self.applied_index = genesis.start_index
        self.stamp_ms = 0
        self.in_entry = False
        """Entry `applied_index` is being executed, and not yet to its end."""
        self.held: StateRecords = MemoryRecords() if records is None else records
        self._machine = None if machine is None else Embedded(machine, self.held)
        self._load()

    @property
    def revision(self) -> int:
        """The newest revision of the keys."""
        return self._keys.revision

    @property
    def key_store(self) -> KeyStore:
        """The keys, to be read while nothing is executed; others after a transfer."""
        return self._keys

    @property
    def is_blank(self) -> bool:
        """True while nothing was ever saved."""
        return self.held.get(ROOT) is None

    @property
    def next_due_ms(self) -> int | None:
        """The agreed time from which an entry is wanted even if no client asks for anything."""
        return None if self.held.target is not None else self._keys.next_due_ms(self.stamp_ms)

    def enter(self, record: EpochRecord) -> None:
        """The entries that follow are of this epoch."""
        self.record = record
        self.modes.enter(record)

    def apply(self, index: int, batch: Batch) -> tuple[Outcome, ...]:
        """Execute the batch of log entry `index`: one outcome per envelope, in order."""
        return tuple(self.steps(index, batch))

    def steps(self, index: int, batch: Batch) -> Iterator[Outcome]:
        """As `apply`, one envelope for each outcome taken, so that a caller can do others' work
        in between. It must be taken to its end before `digest` and before the next entry."""
        assert self.held.target is None, "the state is being fetched"
        assert index == self.applied_index + 1, f"entry {index} after {self.applied_index}"
        assert not self.in_entry, f"entry {index} before the last one was executed to its end"
        self.applied_index = index
        self.in_entry = True
        before_ms, self.stamp_ms = self.stamp_ms, max(self.stamp_ms, batch.stamp_ms)
        self._keys.advance(before_ms, self.stamp_ms)
        self._sessions.collect(self.stamp_ms)
        for envelope in batch.envelopes:
            yield self._execute(envelope)
        self.in_entry = False

    def lookup(self, envelope: Envelope, body: EnvelopeBody) -> Outcome | Refusal | None:
        """The answer, if it was executed; a refusal, if it never will be; None when unsure.

        Only facts that no later entry changes are told, since this replica may lag.
        """
        if self.held.target is not None:
            return None
        if envelope.client not in self._clients:
            return self.check(envelope, body) or self.members.stale(envelope, body)
        request = envelope.digest()
        verdict = self._judge(envelope.client, body, request)
        match verdict:
            case Answered(reply):
                return self._repeat(envelope.client, body, reply)
            case Refused(reason, failure, final=True):
                return Refusal(reason, failure)
            case _:
                return None

    def read(self, client: bytes, operations: Sequence[RangeRequest]) -> tuple[int, bytes]:
        """Revision and encoded results of a client's reads beside the log; they change nothing.

        The limits are those of one envelope.
        """
        assert self.held.target is None, "the state is being fetched"
        results: list[Result] = []
        left_bytes = self._limits.answer_bytes
        work_max = self._keys.keys.looked_at + self._limits.envelope_keys
        for operation in operations:
            if self._keys.keys.looked_at > work_max:
                results.append(too_much_work(self._limits.envelope_keys))
                continue
            result, used_bytes = self._run_one(operation, client, left_bytes)
            left_bytes -= used_bytes
            results.append(result)
        return self._keys.revision, encode_results(tuple(results))

    def check(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        """Why this envelope can never be executed, whatever the state; None when it may be.

        The signature is not checked here.
        """
        if envelope.client not in self._clients:
            return self.members.check(envelope, body)
        return self._check_size(envelope, body) or check_shape(envelope, body)

    def digest(self) -> bytes:
        """The digest of all replicated state; its cost follows the changes since the last call."""
        assert not self.in_entry, "the state is digested where an entry ends"
        self._save()
        return self.held.digest()

    def seal(self) -> bytes:
        """The digest at a checkpoint; the state as it is now may be committed later."""
        state = self.digest()
        self.held.seal(self.applied_index)
        return state

    def commit(self) -> bool:
        """Let a restart go on from here; False when the disk is full: then from further back."""
        self._save()
        return self.held.commit()

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Every record of the state, by ascending key: what the digest is over."""
        self._save()
        return self.held.scan(ROOT)

    @property
    def target(self) -> Target | None:
        """The checkpoint that the records are being turned into."""
        return self.held.target

    def begin_transfer(self, target: Target) -> None:
        """Execute and tell nothing until the records are those of this checkpoint."""
        self.held.aim(target)

    def end_transfer(self) -> None:
        """The records are those of `target`: go on from there."""
        assert self.held.target is not None, "a transfer was begun"
        index, state = self.held.target
        assert self.held.digest() == state, "the records are not those of the checkpoint"
        self.held.aim(None)
        self._load()
        assert self.applied_index == index, f"a state of {self.applied_index} at {index}"

    def _save(self) -> None:
        """Write into the records what is kept outside of them for speed."""
        self._keys.save()
        self.modes.save()
        for key, record in self._sessions.drain_changes():
            if record is None:
                self.held.remove(key)
            else:
                self.held.set(key, record)
        if self._machine is not None:
            self._machine.save()
        root = self._root()
        if self.held.get(ROOT) != root:
            self.held.set(ROOT, root)

    def _root(self) -> bytes:
        next_session = self._sessions.next_number
        root = Root(self._genesis, self.applied_index, self.stamp_ms, next_session)
        return msgspec.msgpack.encode(root)

    def _load(self) -> None:
        """Be what the records say; the initial state where they say nothing."""
        self._sessions = Sessions(self._limits.sessions)
        self.applied_index = self._start_index
        self.stamp_ms = 0
        self._keys = KeyStore(self.held, self._limits.keys)
        self.modes = ModeBook(self._first_record, self.held)
        self.modes.enter(self.record)
        self.members = MemberDesk(self.modes, self._keys.frontiers)
        if self.held.target is not None:
            return
        record = self.held.get(ROOT)
        if record is not None:
            root = msgspec.msgpack.decode(record, type=Root)
            if root.genesis != self._genesis:
                raise ForeignStateError(
                    "the state is that of another cluster: give this replica its own directory"
                )
            self.applied_index = root.applied_index
            self.stamp_ms = root.stamp_ms
            self._keys.resume(self.stamp_ms)
            self._sessions.next_number = root.next_session
            self._sessions.load(self.held)
        if self._machine is not None:
            self._machine.load()

    def _check_size(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        if len(envelope.body) > self._limits.envelope_bytes:
            return too_large(f"etcdserver: request is too large ({len(envelope.body)} bytes)")
        if len(body.operations) > self._limits.envelope_operations:
            most = self._limits.envelope_operations
            return too_large(
                f"{len(body.operations)} operations in one envelope, {most} at most: split it"
            )
        return None

    def _execute(self, envelope: Envelope) -> Outcome:
        request = envelope.digest()
        body = self._decode(envelope)
        if body is None:
            empty = EnvelopeBody(session=0, sequence=0, acked=0, operations=())
            return self._refuse(envelope.client, empty, request, malformed().failure)
        if (refusal := self.check(envelope, body)) is not None:
            return self._refuse(envelope.client, body, request, refusal.failure)
        if envelope.client not in self._clients:
            done = self.members.take(envelope, body, self.record, self.applied_index, self.stamp_ms)
            return self._outcome(envelope.client, body, request, encode_results((done,)))
        verdict = self._judge(envelope.client, body, request)
        match verdict:
            case Refused(_, failure):
                return self._refuse(envelope.client, body, request, failure)
            case Answered(reply):
                return self._repeat(envelope.client, body, reply)
            case Reopened(session):
                results = encode_results((SessionOpened(session.number),))
                return self._outcome(envelope.client, body, request, results)
            case FreshOpen():
                return self._open(envelope.client, body, request)
            case Fresh():
                return self._run(verdict, envelope.client, body, request)
            case _:
                assert_never(verdict)

    def _decode(self, envelope: Envelope) -> EnvelopeBody | None:
        """The body, or None; a body too large to look at is as good as undecodable."""
        if len(envelope.body) > self._limits.envelope_bytes:
            return None
        try:
            body = decode_body(envelope.body)
        except (msgspec.DecodeError, RecursionError):
            return None
        return None if any(map(nests_too_deep, body.operations)) else body

    def _judge(self, client: bytes, body: EnvelopeBody, request: bytes) -> Verdict:
        if body.session == 0 and body.operations:
            operation = body.operations[0]
            if isinstance(operation, OpenSession):
                return self._sessions.judge_open(client, operation, request, self.stamp_ms)
        return self._sessions.judge(client, body, request)

    def _open(self, client: bytes, body: EnvelopeBody, request: bytes) -> Outcome:
        operation = body.operations[0]
        assert isinstance(operation, OpenSession), "judged as an OpenSession"
        results = encode_results((SessionOpened(self._sessions.next_number),))
        outcome = self._outcome(client, body, request, results)
        self._sessions.open(client, operation, _stored(outcome, read_only=False), self.stamp_ms)
        return outcome

    def _run(self, fresh: Fresh, client: bytes, body: EnvelopeBody, request: bytes) -> Outcome:
        results: list[Result] = []
        left_bytes = self._limits.answer_bytes
        work_max = self._keys.keys.looked_at + self._limits.envelope_keys
        for operation in body.operations:
            closes = isinstance(operation, CloseSession)
            if self._keys.keys.looked_at > work_max and not closes:
                results.append(too_much_work(self._limits.envelope_keys))
                continue
            result, used_bytes = self._run_one(operation, client, left_bytes)
            left_bytes -= used_bytes
            results.append(result)
        outcome = self._outcome(client, body, request, encode_results(tuple(results)))
        read_only = all(map(reads_only, body.operations))
        reply = _stored(outcome, read_only=read_only)
        if body.operations and isinstance(body.operations[-1], CloseSession):
            self._sessions.close(fresh, body, reply)
        else:
            self._sessions.record(fresh, body, reply, self.stamp_ms)
        return outcome

    def _run_one(self, operation: Operation, client: bytes, left_bytes: int) -> tuple[Result, int]:
        """The result of one operation, and how much of the envelope's answer it takes."""
        match operation:
            case Command(payload):
                return self._command(payload, client, left_bytes)
            case CloseSession():
                return SessionClosed(), 0
            case ModeSetRequest():
                may = self._keys.access.may_administer(client)
                return self.modes.set(operation, self.applied_index, self.stamp_ms, may=may), 0
            case OpenSession() | NetworkReport() | FrontierVote():
                raise AssertionError(f"a {type(operation).__name__} in a session was not refused")
            case _:
                return self._keys.execute(operation, left_bytes, client)

    def _command(self, payload: bytes, client: bytes, left_bytes: int) -> tuple[Result, int]:
        if self._machine is None:
            return _NO_MACHINE, 0
        moment = Moment(self.applied_index, self.stamp_ms, client)
        answer = self._machine.apply(payload, moment)
        if isinstance(answer, Failure):
            return answer, 0
        if len(answer) > left_bytes:
            return executed_too_large(len(answer)), 0
        return CommandResult(answer), len(answer)

    def _refuse(
        self, client: bytes, body: EnvelopeBody, request: bytes, failure: Failure
    ) -> Outcome:
        return self._outcome(
            client, body, request, encode_results((EnvelopeFailure(failure.code, failure.message),))
        )

    def _repeat(self, client: bytes, body: EnvelopeBody, reply: StoredReply) -> Outcome:
        results = reply.results
        if results is None:
            results = encode_results((answer_dropped(reply.index, reply.revision),))
        return Outcome(
            request=reply.request,
            client=client,
            session=body.session,
            sequence=body.sequence,
            index=reply.index,
            revision=reply.revision,
            results=results,
            duplicate=True,
        )

    def _outcome(
        self, client: bytes, body: EnvelopeBody, request: bytes, results: bytes
    ) -> Outcome:
        return Outcome(
            request=request,
            client=client,
            session=body.session,
            sequence=body.sequence,
            index=self.applied_index,
            revision=self._keys.revision,
            results=results,
            duplicate=False,
        )


def encode_results(results: tuple[Result, ...]) -> bytes:
    """The canonical bytes of an envelope's results."""
    return msgspec.msgpack.encode(results)


def _stored(outcome: Outcome, *, read_only: bool) -> StoredReply:
    return StoredReply(
        request=outcome.request,
        index=outcome.index,
        revision=outcome.revision,
        read_only=read_only,
        results=outcome.results,
    )
