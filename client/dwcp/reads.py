"""Reads beside the log: asked of every replica at once, believed when enough of them agree.

    add ──> waiting ──fold──> asked ──enough equal replies──> Answered
                                 └──too few can be equal, or too late──> through the log

*A fast read* (`spec.fastReads`) is linearizable. It takes quorum(n) replies with one revision and
equal results, and in such a cluster everything that goes through the log is answered by quorum(n)
equal replies too. Two quorums share f+1 members, so an honest one of them had executed whatever
was answered before the read began, and its revision is the one that all agree on. With f+1
replies for ordered operations a liar and the replicas that lag could answer with the old value
(Berger, Reiser and Bessani 2021, "Making Reads in BFT State Machine Replication Fast,
Linearizable, and Live"). Ordered *reads* must wait for quorum(n) as well: one that f+1 have
answered shows a write which the next fast read's quorum need not have executed.

*A serializable read* takes f+1 replies: one honest replica held this state. It may be old.

Replies differ when writes pass: then, and when somebody is silent, the read goes through the log,
where it is answered whatever f members do. A read changes nothing, so asking twice is harmless.

Sans-IO, as session.py, which owns one of these.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp.matching import (
    NOTHING,
    Finding,
    Lie,
    ReplicaMessage,
    ReplyChecker,
    results_of,
)
from dwcp.outcomes import Answered, Progress
from dwcp.waiting import Group, Limits, WaitingQueue
from dwcp.wire.envelope import Busy, Rejected, Reply
from dwcp.wire.operations import Failure, Operation, RangeRequest
from dwcp.wire.query import (
    MAX_QUERY_BYTES,
    Query,
    QueryBody,
    QueryReply,
    may_be_old,
    query_signing_bytes,
)
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Signer, digest

SEED_BYTES: Final = 16
NONCE_BYTES: Final = 16
OVERHEAD_BYTES: Final = 64
"""More than a query's body holds besides its operations."""
VOTES_PER_MEMBER_MAX: Final = 2
"""A doubled query is answered twice, perhaps at two revisions."""
SETTLED_MAX: Final = 64
SETTLED_BYTES_MAX: Final = 64 * 1024
"""Of one answer: a larger one is not kept, and lies about it that come late are not named."""

Content = tuple[int, bytes]
"""What must match: revision and results."""


@dataclass(slots=True)
class ReadOutput:
    """What the owner must do: send these, hand these over, put these groups into the log."""

    send: list[tuple[int, Query]] = field(default_factory=list)
    answers: list[tuple[int, Answered]] = field(default_factory=list)
    ordered: list[Group] = field(default_factory=list)


@dataclass(slots=True)
class _Asked:
    """A query under way; `waits_for` are the members that were asked and have said nothing,
    `gone` the tickets that nobody waits for any more. `fast` says that it takes a quorum."""

    query: Query
    fast: bool
    groups: list[Group]
    waits_for: set[int]
    deadline_ms: int
    votes: dict[int, list[QueryReply]] = field(default_factory=dict)
    busy: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    accepted: tuple[QueryReply, ...] = ()

    def best(self) -> tuple[QueryReply, ...]:
        """The equal replies of most members."""
        by_content: dict[tuple[int, Content], list[QueryReply]] = {}
        for own in self.votes.values():
            for vote in own:  # replies of two epochs never add up
                by_content.setdefault((vote.epoch, _content(vote)), []).append(vote)
        best: list[QueryReply] = []
        for replies in by_content.values():
            best = replies if len(replies) > len(best) else best
        return tuple(best)


class Reads:
    """The reads of one client. `seed` is 16 random bytes that no other client has."""

    def __init__(
        self, genesis: EpochRecord, signer: Signer, checker: ReplyChecker, limits: Limits,
        seed: bytes,
    ) -> None:  # fmt: skip
        assert len(seed) == SEED_BYTES, f"a seed has {SEED_BYTES} bytes"
        self.counts: Counter[str] = Counter()
        """How reads ended: "fast", "serializable", or the reason why they went through the log."""
        self._genesis_hash = genesis.hash()
        self._fast = genesis.parameters.fast_reads
        self._signer = signer
        self._checker = checker
        self._limits = limits
        self._seed = seed
        self._queries = 0
        self._waiting = {fast: WaitingQueue(limits) for fast in (False, True)}
        self._asked: dict[bytes, _Asked] = {}
        self._settled: OrderedDict[bytes, _Asked] = OrderedDict()
        self._out = ReadOutput()

    # --- what the owner asks -------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing was asked."""
        return not self._asked and not any(self._waiting.values())

    def is_fast(self, operations: Sequence[Operation]) -> bool | None:
        """Beside the log, whether these take a quorum or f+1; None when they go through it."""
        reads = [one for one in operations if isinstance(one, RangeRequest)]
        if len(reads) < len(operations) or not reads:
            return None
        if may_be_old(reads):
            return False
        return True if self._fast else None

    def deadline_ms(self) -> int | None:
        """The time at which the next `tick` matters."""
        return min((asked.deadline_ms for asked in self._asked.values()), default=None)

    def progress(self, ticket: int) -> Progress | None:
        """How far a ticket has come; None when it is not here."""
        for fast, queue in self._waiting.items():
            if ticket in queue:
                return Progress(sent=False, needed=self._enough(fast=fast))
        for asked in self._asked.values():
            if any(group.ticket == ticket for group in asked.groups):
                return Progress(
                    sent=True,
                    matching=len(asked.best()),
                    needed=self._enough(fast=asked.fast),
                    heard=frozenset(asked.votes),
                    busy=frozenset(asked.busy),
                )
        return None

    # --- inputs --------------------------------------------------------------------------------

    def add(self, ticket: int, operations: Sequence[Operation], *, fast: bool) -> None:
        """Queue reads for one query. Raises errors.Busy, errors.Refused."""
        self._waiting[fast].add(ticket, operations)

    def withdraw(self, ticket: int) -> bool:
        """Forget a ticket; True when it had not been asked yet."""
        for asked in self._asked.values():
            if any(group.ticket == ticket for group in asked.groups):
                asked.gone.add(ticket)
        return any(queue.withdraw(ticket) for queue in self._waiting.values())

    def disconnected(self, member: int) -> None:
        """Nothing comes from this member any more."""
        for asked in list(self._asked.values()):
            asked.waits_for.discard(member)
            self._judge(asked)

    def tick(self, now_ms: int) -> None:
        """Give up what has waited too long."""
        for asked in list(self._asked.values()):
            if now_ms >= asked.deadline_ms:
                self._fall_back(asked, "late")

    def received(self, member: int, message: ReplicaMessage) -> Finding | None:
        """Take what arrived over the connection to `member`; None when nobody asked for it here."""
        request = message.request
        asked = self._asked.get(request) or self._settled.get(request)
        if asked is None:
            return None
        if not 0 <= member < self._checker.n:
            return Finding(refused="not-a-member")
        if isinstance(message, QueryReply) and self._is_known(asked, member, message):
            return NOTHING
        if (reason := self._checker.refuse(member, message, asked.query.sig)) is not None:
            return Finding(refused=reason)
        asked.waits_for.discard(member)
        finding = NOTHING
        match message:
            case QueryReply():
                finding = self._vote(asked, member, message)
            case Busy() | Rejected():
                asked.busy.add(member)
            case Reply():
                return Finding(refused="another-request")
        if not asked.accepted:
            lies = self._judge(asked)
            finding = Finding(lies=(*finding.lies, *lies))
        return finding

    def poll(self, now_ms: int, connected: Iterable[int]) -> ReadOutput:
        """Fold what waits into queries where there is room, and hand over all output."""
        members = sorted(connected)
        for fast, queue in self._waiting.items():
            while queue and len(self._asked) < self._limits.in_flight_max:
                groups = queue.fold()
                if len(members) < self._enough(fast=fast):
                    self._order(groups, "too-few-connected")
                elif _too_large(groups):
                    self._order(groups, "too-large")
                else:
                    self._ask(groups, members, now_ms, fast=fast)
        out, self._out = self._out, ReadOutput()
        return out

    # --- inside --------------------------------------------------------------------------------

    def _enough(self, *, fast: bool, epoch: int | None = None) -> int:
        """How many equal replies answer a query, all made in this epoch (default: the newest).

        The members may change while a query is under way: what counts are those of its replies.
        """
        epoch = self._checker.epoch if epoch is None else epoch
        return self._checker.quorum_in(epoch) if fast else self._checker.liars_in(epoch) + 1

    def _ask(
        self, groups: Sequence[Group], members: Sequence[int], now_ms: int, *, fast: bool
    ) -> None:
        self._queries += 1
        nonce = digest("query-nonce", self._seed, self._queries.to_bytes(8, "big"))[:NONCE_BYTES]
        reads = [one for group in groups for one in group.operations]
        operations = tuple(one for one in reads if isinstance(one, RangeRequest))
        assert len(operations) == len(reads), "only reads are asked beside the log"
        body = msgspec.msgpack.encode(QueryBody(nonce, operations))
        sig = self._signer.sign(query_signing_bytes(self._genesis_hash, body))
        query = Query(self._signer.public_key, body, sig)
        deadline_ms = now_ms + self._limits.read_ms
        self._asked[query.digest()] = _Asked(query, fast, list(groups), set(members), deadline_ms)
        self._out.send.extend((member, query) for member in members)

    @staticmethod
    def _is_known(asked: _Asked, member: int, reply: QueryReply) -> bool:
        """It can change nothing, so its signature is not worth a check."""
        content = _content(reply)
        own = asked.votes.get(member, ())
        return (
            any(_content(vote) == content for vote in (*own, *asked.accepted[:1]))
            or len(own) >= VOTES_PER_MEMBER_MAX
        )

    def _vote(self, asked: _Asked, member: int, reply: QueryReply) -> Finding:
        own = asked.votes.setdefault(member, [])
        for vote in own:
            if contradict(vote, reply):
                return Finding(lies=(Lie(member, (vote, reply), ()),))
        own.append(reply)
        if asked.accepted and contradict(asked.accepted[0], reply):
            return Finding(lies=(Lie(member, (reply,), asked.accepted),))
        return NOTHING

    def _judge(self, asked: _Asked) -> tuple[Lie, ...]:
        """Answer when enough members agree, give up when they no longer can."""
        best = asked.best()
        if best and len(best) >= self._enough(fast=asked.fast, epoch=best[0].epoch):
            return self._settle(asked, best)
        if len(best) + len(asked.waits_for) < self._enough(fast=asked.fast):
            self._fall_back(asked, "different")
        return ()

    def _settle(self, asked: _Asked, best: tuple[QueryReply, ...]) -> tuple[Lie, ...]:
        results = results_of(best[0].results)
        if results is None or len(results) != sum(len(group.operations) for group in asked.groups):
            self._fall_back(asked, "unfit")
            return ()
        asked.accepted = best
        del self._asked[asked.query.digest()]
        # f+1 members, so an honest one, had executed at least this far
        liars = self._checker.liars_in(best[0].epoch)
        index = sorted((reply.index for reply in best), reverse=True)[liars]
        start = 0
        for group in asked.groups:
            own = results[start : start + len(group.operations)]
            answered = Answered(index, best[0].revision, own, ordered=False)
            if group.ticket not in asked.gone:
                self._out.answers.append((group.ticket, answered))
            start += len(group.operations)
        self.counts["fast" if asked.fast else "serializable"] += len(asked.groups)
        self._keep(asked)
        return tuple(
            Lie(member, (vote,), best)
            for member, own in sorted(asked.votes.items())
            for vote in own
            if contradict(vote, best[0])
        )

    def _keep(self, asked: _Asked) -> None:
        """Remember a settled query for a while, so that late lies are still named."""
        if len(asked.accepted[0].results) <= SETTLED_BYTES_MAX:
            self._settled[asked.query.digest()] = asked
            if len(self._settled) > SETTLED_MAX:
                self._settled.popitem(last=False)

    def _fall_back(self, asked: _Asked, why: str) -> None:
        del self._asked[asked.query.digest()]
        self._order((group for group in asked.groups if group.ticket not in asked.gone), why)

    def _order(self, groups: Iterable[Group], why: str) -> None:
        for group in groups:
            self._out.ordered.append(group)
            self.counts[why] += 1


def contradict(one: QueryReply, other: QueryReply) -> bool:
    """True when no honest replica can have signed one of the two: one state, two contents.

    A Failure may depend on more than the keys (how far the history is kept), and proves nothing.
    """
    if one.revision != other.revision or one.results == other.results:
        return False
    decoded = (results_of(one.results), results_of(other.results))
    return not any(
        results is not None and any(isinstance(result, Failure) for result in results)
        for results in decoded
    )


def _content(reply: QueryReply) -> Content:
    return (reply.revision, reply.results)


def _too_large(groups: Sequence[Group]) -> bool:
    return sum(group.size_bytes for group in groups) > MAX_QUERY_BYTES - OVERHEAD_BYTES
