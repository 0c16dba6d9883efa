"""The state machine that every replica runs: batches in, outcomes and a state digest out.

Everything here is a pure function of the batches applied. In particular an outcome never shows
the text of a library's exception, and an envelope counts only in the one encoding that its body
has (`canonical`): decoders skip what they do not know, to a depth that differs between
interpreters, and what a client signed must mean the same to every version of this program. A
field added to an operation later must be accepted here in its absence, too.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from dwcp.wire.operations import (
    CloseSession,
    DeleteRangeRequest,
    EnvelopeFailure,
    Failure,
    OpenSession,
    Operation,
    PutRequest,
    RangeRequest,
    Result,
    SessionClosed,
    SessionOpened,
    nests_too_deep,
    reads_only,
)
from dwcp.wire.records import EpochRecord
from dwcp_replica.store.digest import Identifier, StateDigest
from dwcp_replica.store.mvcc import Mvcc, answer_bytes
from dwcp_replica.store.sessions import (
    ANSWER_DROPPED,
    Answered,
    Fresh,
    FreshOpen,
    RefusalReason,
    Refused,
    Reopened,
    SessionLimits,
    Sessions,
    StoredReply,
    Verdict,
)

_ROOT_RECORD: Final[Identifier] = ("store",)


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
    quota_bytes: int = 2 * 1024**3
    answer_bytes: int = 8 * 1024**2
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


class Refusal(Struct, frozen=True):
    """An envelope that will never be executed; `failure` says why and what to do instead."""

    reason: RefusalReason
    failure: Failure


class Store:
    """Keys, sessions and time of the cluster, as of `applied_index`."""

    def __init__(self, genesis: EpochRecord, limits: StoreLimits | None = None) -> None:
        self._limits = limits or StoreLimits()
        self._clients = frozenset(client.key for client in genesis.clients)
        self._keys = Mvcc(self._limits.quota_bytes)
        self._sessions = Sessions(self._limits.sessions)
        self._digest = StateDigest()
        self._genesis = genesis.hash()
        self.applied_index = genesis.start_index
        self.stamp_ms = 0
        self._in_entry = False

    @property
    def revision(self) -> int:
        """The newest revision of the keys."""
        return self._keys.revision

    def apply(self, index: int, batch: Batch) -> tuple[Outcome, ...]:
        """Execute the batch of log entry `index`: one outcome per envelope, in order."""
        return tuple(self.steps(index, batch))

    def steps(self, index: int, batch: Batch) -> Iterator[Outcome]:
        """As `apply`, one envelope for each outcome taken, so that a caller can do others' work
        in between. It must be taken to its end before `digest` and before the next entry."""
        assert index == self.applied_index + 1, f"entry {index} after {self.applied_index}"
        assert not self._in_entry, f"entry {index} before the last one was executed to its end"
        self.applied_index = index
        self.stamp_ms = max(self.stamp_ms, batch.stamp_ms)
        self._sessions.collect(self.stamp_ms)
        self._in_entry = True
        for envelope in batch.envelopes:
            yield self._execute(envelope)
        self._in_entry = False

    def lookup(self, envelope: Envelope, body: EnvelopeBody) -> Outcome | Refusal | None:
        """The answer, if it was executed; a refusal, if it never will be; None when unsure.

        Only facts that no later entry changes are told, since this replica may lag.
        """
        request = envelope.digest()
        verdict = self._judge(envelope.client, body, request)
        match verdict:
            case Answered(reply):
                return self._repeat(envelope.client, body, reply)
            case Refused(reason, failure, final=True):
                return Refusal(reason, failure)
            case _:
                return None

    def check(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        """Why this envelope can never be executed, whatever the state; None when it may be.

        The signature is not checked here.
        """
        if envelope.client not in self._clients:
            return Refusal(
                RefusalReason.UNKNOWN_CLIENT,
                Failure(7, "this key is not one of the cluster's clients: use a declared identity"),
            )
        return self._check_size(envelope, body) or _check_shape(envelope, body)

    def digest(self) -> bytes:
        """The digest of all replicated state; its cost follows the changes since the last call."""
        assert not self._in_entry, "the state is digested where an entry ends"
        for identifier, record in self._keys.drain_changes():
            self._digest.update(identifier, record)
        for identifier, record in self._sessions.drain_changes():
            self._digest.update(identifier, record)
        self._digest.update(_ROOT_RECORD, self._root_bytes())
        return self._digest.root()

    def records(self) -> Iterator[tuple[Identifier, bytes]]:
        """Every record of the state, in no particular order: what the digest is over."""
        yield from self._keys.records()
        yield from self._sessions.records()
        yield _ROOT_RECORD, self._root_bytes()

    def _root_bytes(self) -> bytes:
        return msgspec.msgpack.encode(
            (
                self._genesis,
                self.applied_index,
                self.stamp_ms,
                self._keys.revision,
                self._keys.stored_bytes,
                self._sessions.next_number,
            )
        )

    def _check_size(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        if len(envelope.body) > self._limits.envelope_bytes:
            return _too_large(f"etcdserver: request is too large ({len(envelope.body)} bytes)")
        if len(body.operations) > self._limits.envelope_operations:
            most = self._limits.envelope_operations
            return _too_large(
                f"{len(body.operations)} operations in one envelope, {most} at most: split it"
            )
        return None

    def _execute(self, envelope: Envelope) -> Outcome:
        request = envelope.digest()
        body = self._decode(envelope)
        if body is None:
            empty = EnvelopeBody(session=0, sequence=0, acked=0, operations=())
            return self._refuse(envelope.client, empty, request, _malformed().failure)
        if (refusal := self.check(envelope, body)) is not None:
            return self._refuse(envelope.client, body, request, refusal.failure)
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
        work_max = self._keys.looked_at + self._limits.envelope_keys
        for operation in body.operations:
            closes = isinstance(operation, CloseSession)
            if self._keys.looked_at > work_max and not closes:
                results.append(_too_much_work(self._limits.envelope_keys))
                continue
            result, used_bytes = self._run_one(operation, left_bytes)
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

    def _run_one(self, operation: Operation, left_bytes: int) -> tuple[Result, int]:
        """The result of one operation, and how much of the envelope's answer it takes."""
        result: Result
        match operation:
            case PutRequest():
                result = self._keys.put(operation, left_bytes)
            case RangeRequest():
                result = self._keys.range(operation, left_bytes)
            case DeleteRangeRequest():
                result = self._keys.delete_range(operation, left_bytes)
            case CloseSession():
                return SessionClosed(), 0
            case OpenSession():
                raise AssertionError("an OpenSession inside a session was not refused")
            case _:
                result = Failure(12, "not supported yet")
        return result, answer_bytes(result)

    def _refuse(
        self, client: bytes, body: EnvelopeBody, request: bytes, failure: Failure
    ) -> Outcome:
        return self._outcome(
            client, body, request, encode_results((EnvelopeFailure(failure.code, failure.message),))
        )

    def _repeat(self, client: bytes, body: EnvelopeBody, reply: StoredReply) -> Outcome:
        results = reply.results
        if results is None:
            results = encode_results((_dropped(reply),))
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


def _dropped(reply: StoredReply) -> EnvelopeFailure:
    return EnvelopeFailure(
        ANSWER_DROPPED,
        f"the operations were executed at index {reply.index}, and the revision after them was "
        f"{reply.revision}, but the answer is no longer kept: read what you need, and "
        "acknowledge answers as they arrive",
    )


def _too_much_work(keys: int) -> Failure:
    return Failure(
        8,
        f"the operations before this one in its envelope looked at more than {keys} keys: it was "
        "not executed; send it by itself",
    )


def _malformed(what: str = "the body is not a canonically encoded EnvelopeBody") -> Refusal:
    return Refusal(RefusalReason.MALFORMED, Failure(3, f"{what}: nothing was executed"))


def _too_large(what: str) -> Refusal:
    return Refusal(RefusalReason.TOO_LARGE, Failure(3, what))


def _check_shape(envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
    """Rules on sessions, sequence numbers and what may stand together in an envelope."""
    if msgspec.msgpack.encode(body) != envelope.body:
        return _malformed()
    opens = sum(isinstance(operation, OpenSession) for operation in body.operations)
    if body.session == 0:
        if opens == len(body.operations) == 1 and body.sequence == body.acked == 0:
            return None
        return _malformed("session 0 is for one OpenSession, alone, at sequence 0 and acked 0")
    if opens:
        return _malformed("OpenSession stands alone in an envelope with session 0")
    if body.sequence < 1:
        return _malformed("sequence numbers start at 1")
    if body.acked >= body.sequence:
        return _malformed("acked must be below the envelope's own sequence number")
    if any(isinstance(operation, CloseSession) for operation in body.operations[:-1]):
        return _malformed("CloseSession must be the last operation of its envelope")
    return None
