"""Which client envelopes reach the core: signed, well formed, fresh, and not too many."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from dwcp.identity import Ed25519Verifier
from dwcp.wire.committed import Committed
from dwcp.wire.envelope import (
    Busy,
    Envelope,
    EnvelopeBody,
    Rejected,
    Reply,
    decode_body,
    reply_signing_bytes,
    signed_refusal,
)
from dwcp.wire.operations import RangeRequest
from dwcp.wire.query import Query, QueryBody, QueryReply, query_reply_signing_bytes
from dwcp.wire.records import EpochRecord, scope_of
from dwcp.wire.signing import SIGNATURE_BYTES, ZERO_HASH, Signer
from dwcp.wire.watch import Page, Pull, page_signing_bytes
from dwcp_replica.api.desk import Answer, ClientDesk
from dwcp_replica.api.envelopes import SIGNATURE
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.core.effects import Submit
from dwcp_replica.core.pending import PENDING_MAX, PENDING_PER_CLIENT_MAX
from dwcp_replica.node.engine import Engine
from dwcp_replica.node.hooks import ReplyHook
from dwcp_replica.node.reading import ReadingRoom, read_query
from dwcp_replica.node.signatures import CLIENTS, Questions, SignatureGate
from dwcp_replica.node.watching import WatchRoom
from dwcp_replica.store import Outcome, Refusal, RefusalReason, Store
from dwcp_replica.store.watching import Seen

PENDING_BUSY: Final = PENDING_MAX * 3 // 4
"""Pending requests from which on clients wait; the rest is for what peers forward."""
PER_CLIENT_BUSY: Final = PENDING_PER_CLIENT_MAX // 2
RETRY_AFTER_MS: Final = 100
PUT_AGAIN_S: Final = 1.0
"""A repeated envelope goes to the engine again only after this long: it may have left its pool."""
IN_FLIGHT_S_MAX: Final = 60.0
"""After this long an envelope no longer counts against its client: it may have been dropped."""


class Admission:
    """The client side of one running replica (api.host.ClientService)."""

    def __init__(
        self, *, genesis: EpochRecord, record: EpochRecord, me: int, signer: Signer,
        verifier: Ed25519Verifier, gate: SignatureGate, engine: Engine, store: Store,
        metrics: ReplicaMetrics, reply_hook: ReplyHook | None,
        may_read: Callable[[Sequence[RangeRequest]], bool],
    ) -> None:  # fmt: skip
        self.genesis = genesis
        self.verifier = verifier
        self.desk = ClientDesk()
        self._questions = Questions(genesis, record)
        self.enter(record, me, signer)
        self._gate = gate
        self._engine = engine
        self._store = store
        self._metrics = metrics
        self._reply_hook = reply_hook
        self._may_read = may_read
        self._clients = frozenset(client.key for client in genesis.clients)
        self.reading = ReadingRoom(store)
        self.watching = WatchRoom(store, self._page, self._denied)
        self._in_flight: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._put_s: dict[bytes, float] = {}
        self._per_client: Counter[bytes] = Counter()

    def enter(self, record: EpochRecord, me: int, signer: Signer) -> None:
        """Answer under this record, with this key, from now on."""
        self.me = me
        self._signer = signer
        self._epoch = record.epoch
        self._scope = scope_of(self.genesis, record)

    @property
    def identity(self) -> bytes:
        """This replica's public key."""
        return self._signer.public_key

    def admit(self, envelope: Envelope, answer: Callable[[Answer], None]) -> None:
        """Take an envelope in, or answer it at once; see ClientService."""
        request = envelope.digest()
        try:
            body = decode_body(envelope.body)
        except (msgspec.DecodeError, RecursionError) as error:
            message = f"the body is not the MessagePack of an EnvelopeBody: {error}"
            return self._reject(envelope, RefusalReason.MALFORMED, message, answer)
        if (refusal := self._store.check(envelope, body)) is not None:
            return self._refuse(envelope, refusal, answer)
        if self._is_busy(envelope.client, request):
            self._metrics.busy.inc()
            return answer(self._busy(request, envelope.sig))
        check = self._questions.envelope(envelope)

        def judged(holds: bool) -> None:
            if holds:
                self._take(envelope, body, request, answer)
            else:
                message = "the client's signature on the envelope does not verify"
                self._reject(envelope, SIGNATURE, message, answer)

        return self._gate.push_envelope(check, judged)

    def ask(self, query: Query, answer: Callable[[Answer], None]) -> None:
        """Take a query in, or answer it at once; see ClientService."""
        request = query.digest()
        found = read_query(query)
        if query.client not in self._clients:
            found = (RefusalReason.UNKNOWN_CLIENT, "this key is not one of the cluster's clients")
        if not isinstance(found, QueryBody):
            return self._reject(query, *found, answer)
        if not self._may_read(found.operations) or not self.reading.admits(query):
            self._metrics.queries.labels("busy").inc()
            return answer(self._busy(request, query.sig))
        body = found
        self.reading.hold(query)

        def judged(holds: bool) -> None:
            if holds:
                self.reading.enter(query, body, read)
                return
            self.reading.leave(query)
            self._reject(query, SIGNATURE, "the signature on the query does not verify", answer)

        def read(index: int, revision: int, results: bytes) -> None:
            self._metrics.queries.labels("answered").inc()
            answer(self._query_reply(request, index, revision, results))

        return self._gate.push_envelope(self._questions.query(query), judged)

    def watch(self, client: bytes, pull: Pull, answer: Callable[[Answer], None]) -> None:
        """Take a pull in; see ClientService."""
        if not self.watching.enter(client, pull, answer):
            self._metrics.busy.inc()
            answer(self._busy(pull.digest(), bytes(SIGNATURE_BYTES)))

    def unwatch(self, answer: Callable[[Answer], None]) -> None:
        """Forget the pulls of a connection; see ClientService."""
        self.watching.leave(answer)

    def unreadable(self, reason: str, message: str) -> Rejected:
        """The answer to a frame that holds no envelope; see ClientService."""
        self._metrics.rejected.labels(reason).inc()
        return self._rejected(ZERO_HASH, bytes(SIGNATURE_BYTES), reason, message)

    def executed(self, outcomes: tuple[Outcome, ...]) -> None:
        """Answer whoever waits for these."""
        for outcome in outcomes:
            since = self._forget(outcome.request)
            if since is not None:
                self._metrics.committed(time.monotonic() - since)
            if self.desk.wants(outcome.client, outcome.request):
                reply = self._reply(outcome)
                if reply is not None:
                    self.desk.deliver(outcome.client, reply)

    def _take(
        self, envelope: Envelope, body: EnvelopeBody, request: bytes,
        answer: Callable[[Answer], None],
    ) -> None:  # fmt: skip
        match self._store.lookup(envelope, body):
            case Outcome() as known:
                reply = self._reply(known)
                if reply is not None:
                    answer(reply)
            case Refusal() as refusal:
                self._refuse(envelope, refusal, answer)
            case None:
                if self._remember(envelope.client, request):
                    self._engine.inbox.put(Submit(envelope))

    def _is_busy(self, client: bytes, request: bytes) -> bool:
        self._expire()
        if request in self._in_flight:
            return False
        waiting = self._gate.waiting(CLIENTS)
        return (
            self._engine.disk_full
            or self._store.target is not None
            or self._engine.standing.pending + waiting >= PENDING_BUSY
            or self._per_client[client] >= PER_CLIENT_BUSY
        )

    def _remember(self, client: bytes, request: bytes) -> bool:
        """True when the engine is to have it: it is new, or was put there a while ago."""
        now_s = time.monotonic()
        if request not in self._in_flight:
            self._in_flight[request] = (client, now_s)
            self._per_client[client] += 1
        elif now_s - self._put_s.get(request, 0.0) < PUT_AGAIN_S:
            return False
        self._put_s[request] = now_s
        return True

    def _forget(self, request: bytes) -> float | None:
        self._put_s.pop(request, None)
        client, since = self._in_flight.pop(request, (None, None))
        if client is not None:
            self._per_client[client] -= 1
            if not self._per_client[client]:
                del self._per_client[client]
        return since

    def _expire(self) -> None:
        oldest_s = time.monotonic() - IN_FLIGHT_S_MAX
        while self._in_flight:
            request, (_, since) = next(iter(self._in_flight.items()))
            if since > oldest_s:
                return
            self._forget(request)

    def _refuse(
        self, envelope: Envelope, refusal: Refusal, answer: Callable[[Answer], None]
    ) -> None:
        self._reject(envelope, refusal.reason, refusal.failure.message, answer)

    def _reject(
        self, asked: Envelope | Query, reason: str, message: str, answer: Callable[[Answer], None]
    ) -> None:
        self._metrics.rejected.labels(reason).inc()
        answer(self._rejected(asked.digest(), asked.sig, reason, message))

    def _rejected(self, request: bytes, envelope_sig: bytes, reason: str, message: str) -> Rejected:
        unsigned = Rejected(request, reason, message, self._epoch, self.me, bytes(SIGNATURE_BYTES))
        return signed_refusal(unsigned, self._scope, self._signer, envelope_sig)

    def _busy(self, request: bytes, envelope_sig: bytes) -> Busy:
        unsigned = Busy(request, RETRY_AFTER_MS, self._epoch, self.me, bytes(SIGNATURE_BYTES))
        return signed_refusal(unsigned, self._scope, self._signer, envelope_sig)

    def _denied(self, request: bytes) -> Rejected:
        self._metrics.rejected.labels("permission").inc()
        message = "etcdserver: permission denied"
        return self._rejected(request, bytes(SIGNATURE_BYTES), "permission", message)

    def _page(self, request: bytes, seen: Seen, events: bytes) -> Page:
        unsigned = bytes(SIGNATURE_BYTES)
        page = Page(
            request, seen.upto, events, seen.compact_revision, self._epoch, self.me, unsigned
        )
        sig = self._signer.sign(page_signing_bytes(self._scope, page))
        return msgspec.structs.replace(page, sig=sig)

    def _query_reply(self, request: bytes, index: int, revision: int, results: bytes) -> QueryReply:
        standing = self._engine.standing
        unsigned = bytes(SIGNATURE_BYTES)
        reply = QueryReply(
            request, index, revision, results, self._epoch, standing.view, self.me, unsigned
        )
        if self._reply_hook is not None:
            reply = self._reply_hook(reply)
        sig = self._signer.sign(query_reply_signing_bytes(self._scope, reply))
        return msgspec.structs.replace(reply, sig=sig)

    def _reply(self, outcome: Outcome) -> Reply | Committed | None:
        """The answer, with its proof under Crash trust; None while there is no proof."""
        reply = self._signed_reply(outcome)
        if self.genesis.trust != "Crash":
            return reply
        proof = self._engine.proof_of(outcome.index)
        return None if proof is None else Committed(reply, *proof)

    def _signed_reply(self, outcome: Outcome) -> Reply:
        standing = self._engine.standing
        reply = Reply(
            request=outcome.request,
            index=outcome.index,
            revision=outcome.revision,
            results=outcome.results,
            epoch=self._epoch,
            view=standing.view,
            member=self.me,
            sig=bytes(SIGNATURE_BYTES),
        )
        if self._reply_hook is not None:
            reply = self._reply_hook(reply)
        sig = self._signer.sign(reply_signing_bytes(self._scope, reply))
        return msgspec.structs.replace(reply, sig=sig)
