"""Checks signatures on other threads before the core asks for them.

PyNaCl releases the interpreter lock while it verifies, so a batch's hundreds of client
signatures need not stop the event loop. What was found good is remembered; the core asks the
same verifier the same question and finds it answered. It still asks, so correctness never
rests on what this module thought worth checking.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec

from dwcp.identity import Ed25519Verifier
from dwcp.wire.envelope import Envelope, decode_batch, envelope_signing_bytes
from dwcp.wire.peer import (
    AnyElection,
    Append,
    Certificate,
    CheckpointVote,
    Commit,
    Elections,
    Entries,
    Entry,
    Forward,
    Header,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    ViewChange,
    Vote,
    VoteCertificate,
    VoteKind,
    VoteRequest,
    vote_signing_bytes,
)
from dwcp.wire.query import Query, query_signing_bytes
from dwcp.wire.records import EpochRecord, scope_of

Check = tuple[bytes, bytes, bytes]
"""A question: public key, message, signature."""

CHECKS_PER_MESSAGE_MAX: Final = 4096
CLIENTS: Final = -1
"""The turn that all clients share at the gate."""
INLINE_CHECKS_MAX: Final = 8
"""So few are quicker done at once than handed to a thread."""
CHECKS_AT_ONCE_MAX: Final = 2048


class Questions:
    """The signatures that the core will ask about, for each kind of message."""

    def __init__(self, genesis: EpochRecord, record: EpochRecord) -> None:
        self._genesis = genesis.hash()
        self._record = record
        self.scope = scope_of(genesis, record)
        self._keys = [member.identity for member in record.members]
        self._clients = frozenset([c.key for c in genesis.clients] + self._keys)

    def envelope(self, envelope: Envelope) -> Check:
        """The question about a client's signature."""
        signed = envelope_signing_bytes(self._genesis, envelope.body)
        return (envelope.client, signed, envelope.sig)

    def query(self, query: Query) -> Check:
        """The question about a client's signature."""
        return (query.client, query_signing_bytes(self._genesis, query.body), query.sig)

    def message(self, message: PeerMessage) -> list[Check]:
        """The questions about a peer's message, as many as are worth asking beforehand."""
        return list(islice(self._message(message), CHECKS_PER_MESSAGE_MAX))

    def _message(self, message: PeerMessage) -> Iterator[Check]:
        match message:
            case PrePrepare(entry):
                yield from self._entry(entry)
            case Prepare() | Commit():
                kind: VoteKind = "prepare" if isinstance(message, Prepare) else "commit"
                yield from self._vote(kind, message.header, message.member, message.sig)
            case CheckpointVote(header, state, member, sig):
                yield from self._vote("checkpoint", header, member, sig, state)
            case Forward(envelopes):
                yield from self._envelopes(envelopes)
            case Entries():
                yield from self._headers(entry.header for entry in message.entries)
                yield from self._headers(message.links)
                yield from self._certificate(message.certificate)
            case ViewChange():
                yield from self._view_change(message)
            case NewView(election, first):
                yield from self._election(election)
                yield from self._entry(first)
            case Elections(elections):
                for one in elections:
                    yield from self._election(one)
            case _:
                yield from self._raft(message)

    def _entry(self, entry: Entry) -> Iterator[Check]:
        yield from self._headers((entry.header,))
        try:
            batch = decode_batch(entry.body)
        except (msgspec.DecodeError, RecursionError):
            return  # the core refuses the message and says why
        yield from self._envelopes(batch.envelopes)

    def _envelopes(self, envelopes: Iterable[Envelope]) -> Iterator[Check]:
        for envelope in envelopes:
            if envelope.client in self._clients:
                yield self.envelope(envelope)

    def _headers(self, headers: Iterable[Header]) -> Iterator[Check]:
        for header in headers:
            key = self._keys[self._record.primary(header.term)]
            yield (key, header.signing_bytes(self.scope), header.sig)

    def _vote(
        self, kind: VoteKind, header: Header, member: int, sig: bytes, state: bytes | None = None
    ) -> Iterator[Check]:
        if member < len(self._keys):
            signed = vote_signing_bytes(self.scope, kind, header, state)
            yield (self._keys[member], signed, sig)

    def _certificate(self, certificate: Certificate | None) -> Iterator[Check]:
        if certificate is None:
            return
        yield from self._headers((certificate.header,))
        for vote in certificate.votes:
            yield from self._vote(
                certificate.kind, certificate.header, vote.member, vote.sig, certificate.state
            )

    def _view_change(self, change: ViewChange) -> Iterator[Check]:
        if change.member < len(self._keys):
            yield (self._keys[change.member], change.signing_bytes(self.scope), change.sig)
        yield from self._certificate(change.checkpoint)
        yield from self._certificate(change.cc)
        yield from self._headers(change.log)
        yield from self._headers(change.branch)

    def _election(self, election: AnyElection) -> Iterator[Check]:
        if isinstance(election, VoteCertificate):
            signed = election.signing_bytes(self.scope)
            for vote in election.votes:
                if vote.member < len(self._keys):
                    yield (self._keys[vote.member], signed, vote.sig)
            return
        for change in election.changes:
            yield from self._view_change(change)

    def _raft(self, message: PeerMessage) -> Iterator[Check]:
        """The same for the messages of the Raft driver."""
        match message:
            case Append():
                for election in message.elections:
                    yield from self._election(election)
                for entry in message.entries:
                    yield from self._entry(entry)
                for certificate in message.certificates:
                    yield from self._certificate(certificate)
            case VoteRequest():
                yield from self._certificate(message.checkpoint)
                yield from self._headers(message.log)
            case Vote() if message.member < len(self._keys):
                signed = message.signing_bytes(self.scope)
                yield (self._keys[message.member], signed, message.sig)


@dataclass(frozen=True, slots=True)
class _Waiting:
    sender: int
    checks: list[Check]
    then: Callable[[bool], None]


def _check_all(checks: list[Check]) -> list[bool]:
    return [Ed25519Verifier.check(*check) for check in checks]


class SignatureGate:
    """Passes things on once their signatures were looked at, in order for each sender.

    Senders take turns, so that one that sends much waits for itself. What needs little work
    passes at once while nothing of its sender waits: a thread would cost more than it saves.
    """

    def __init__(self, verifier: Ed25519Verifier, threads: Executor) -> None:
        self._verifier = verifier
        self._threads = threads
        self._queues: OrderedDict[int, deque[_Waiting]] = OrderedDict()
        self._checking: Counter[int] = Counter()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """How many things wait here."""
        return sum(map(len, self._queues.values())) + self._checking.total()

    def waiting(self, sender: int) -> int:
        """How many things of one sender wait here."""
        return len(self._queues.get(sender, ())) + self._checking[sender]

    def push_message(self, checks: list[Check], then: Callable[[], None], sender: int = 0) -> None:
        """Call `then` once the core's questions about a peer's message are answered.

        With little to ask it is called at once and the core does the work: it does not ask
        about messages that come too late to matter.
        """
        unknown = self._unknown(checks)
        if self._is_quick(sender, unknown):
            then()
        else:
            self._wait(sender, unknown, lambda _good: then())

    def push_envelope(self, check: Check, then: Callable[[bool], None]) -> None:
        """Call `then`, now or later, with whether a client's signature holds."""
        unknown = self._unknown([check])
        if self._is_quick(CLIENTS, unknown):
            then(all(self._verifier.verify(*check) for check in unknown))
        else:
            self._wait(CLIENTS, unknown, then)

    def _unknown(self, checks: list[Check]) -> list[Check]:
        return [check for check in checks if not self._verifier.knows(*check)]

    def _is_quick(self, sender: int, unknown: list[Check]) -> bool:
        waits = sender in self._queues or self._checking[sender] > 0
        return not waits and len(unknown) <= INLINE_CHECKS_MAX

    def _wait(self, sender: int, unknown: list[Check], then: Callable[[bool], None]) -> None:
        self._queues.setdefault(sender, deque()).append(_Waiting(sender, unknown, then))
        self._wake.set()

    async def run(self) -> None:
        """Check what waits, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queues:
                batch = self._take()
                await self._check(batch)
                self._checking.clear()

    def _take(self) -> list[_Waiting]:
        """One thing of each sender in turn, until there is enough work for the threads."""
        batch: list[_Waiting] = []
        count = 0
        while self._queues and (not batch or count < CHECKS_AT_ONCE_MAX):
            sender, queue = self._queues.popitem(last=False)
            waiting = queue.popleft()
            if queue:
                self._queues[sender] = queue
            batch.append(waiting)
            self._checking[sender] += 1
            count += len(waiting.checks)
        return batch

    async def _check(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        unknown = list(dict.fromkeys(check for waiting in batch for check in waiting.checks))
        half = (len(unknown) + 1) // 2
        parts = [part for part in (unknown[:half], unknown[half:]) if part]
        found = await asyncio.gather(
            *(loop.run_in_executor(self._threads, _check_all, part) for part in parts)
        )
        verdicts = [verdict for part in found for verdict in part]
        bad = {check for check, good in zip(unknown, verdicts, strict=True) if not good}
        for check, good in zip(unknown, verdicts, strict=True):
            if good:
                self._verifier.remember(*check)
        for waiting in batch:
            waiting.then(bad.isdisjoint(waiting.checks))
