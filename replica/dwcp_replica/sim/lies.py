"""Lies about what was agreed: proposals, votes, certificates, view changes, catch-up."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Batch, Envelope, Reply, batch_digest, decode_batch
from dwcp.wire.peer import (
    Bodies,
    Certificate,
    CheckpointVote,
    Commit,
    DoubleVote,
    Election,
    Entries,
    Entry,
    Equivocation,
    FetchBodies,
    Header,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    ViewChange,
    VoteSig,
)
from dwcp.wire.query import QueryReply
from dwcp.wire.records import EpochRecord
from dwcp_replica.core.effects import EVERYONE, Outbound
from dwcp_replica.core.replica import Replica
from dwcp_replica.sim.liar import Context, Liar
from dwcp_replica.sim.strategies import Equivocator, wrong_reply


class Equivocate(Liar):
    """Proposes one entry to half of the members and another to the rest; new views too."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._equivocator = Equivocator(context.genesis, context.me, context.signer)
        self._variant = self._equivocator.variant

    def enter(self, record: EpochRecord) -> None:
        """Equivocate under the record that is in force."""
        super().enter(record)
        self._equivocator.enter(record)

    def alter(self, out: Outbound) -> list[Outbound]:
        """Split every proposal in two."""
        match out.message:
            case PrePrepare(entry) if out.to == EVERYONE:
                return self.split(out.message, PrePrepare(self._variant(entry)))
            case NewView(election, first) if out.to == EVERYONE:
                return self.split(out.message, NewView(election, self._variant(first)))
        return [out]

    def split(self, first: PeerMessage, second: PeerMessage) -> list[Outbound]:
        """One half of the others hears this, the other that."""
        half = len(self.others) // 2
        return [Outbound(m, first) for m in self.others[half:]] + [
            Outbound(m, second) for m in self.others[:half]
        ]


class Lie(Equivocate):
    """Equivocates, votes for both sides, and answers clients wrongly."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._voted: set[tuple[type[PeerMessage], bytes]] = set()

    def split(self, first: PeerMessage, second: PeerMessage) -> list[Outbound]:
        """Sometimes everybody hears both, in either order."""
        if self.random.random() < 0.5:
            return super().split(first, second)
        both = [first, second]
        self.random.shuffle(both)
        return [Outbound(EVERYONE, message) for message in both]

    def hear(self, _sender: int, message: PeerMessage) -> bool:
        """Vote for whatever anybody votes for, once."""
        if not isinstance(message, Prepare | Commit):
            return True
        vote = (type(message), message.header.hash())
        if vote not in self._voted:
            self._voted.add(vote)
            self.shout(self.vote(type(message), message.header, self.me))
        return True

    def reply(self, reply: Reply) -> Reply:
        """Claim another result."""
        return wrong_reply(reply)


class WrongReplies(Liar):
    """Answers clients wrongly, and is honest otherwise."""

    def reply(self, reply: Reply) -> Reply:
        """Claim another result."""
        return wrong_reply(reply)


class StaleReads(Liar):
    """Answers reads beside the log from an earlier state, and what goes through it honestly.

    It lets only the primary know that it commits, so that the others lag.
    """

    def alter(self, out: Outbound) -> list[Outbound]:
        """Commit to one member alone."""
        if isinstance(out.message, Commit):
            return [Outbound(self.genesis.primary(out.message.header.term), out.message)]
        return [out]

    def query_reply(self, _reply: QueryReply, older: QueryReply) -> QueryReply:
        """The old value under the old revision."""
        return older


class MixedReads(Liar):
    """Answers reads beside the log with any mixture of old, new and invented."""

    def query_reply(self, reply: QueryReply, older: QueryReply) -> QueryReply:
        """Another value, another revision, or both."""
        match self.random.randrange(5):
            case 0:
                return reply
            case 1:
                return older
            case 2:
                return msgspec.structs.replace(older, revision=reply.revision)
            case 3:
                ahead = reply.revision + self.random.randint(1, 3)
                return msgspec.structs.replace(reply, revision=ahead, index=reply.index + 99)
            case _:
                return wrong_reply(reply)


class CorruptDigest(Liar):
    """Signs checkpoints of states that nobody has, early and late ones as well."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Another digest; the right one to some, so that a careless count is reached."""
        if not isinstance(out.message, CheckpointVote):
            return [out]
        state = batch_digest(out.message.state)
        return [Outbound(out.to, self.resigned(msgspec.structs.replace(out.message, state=state)))]


class Forge(Liar):
    """Shows certificates that nobody signed, votes of others, and proofs against the honest."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Put invented certificates into everything that carries one."""
        message = out.message
        match message:
            case Prepare(header, _, _) | Commit(header, _, _):
                names = [*self.others, *range(self.n, 2 * self.n)]
                forged: list[PeerMessage] = [self.vote(type(message), header, m) for m in names]
                forged += self._slander(header)
                return [out, *(Outbound(EVERYONE, f) for f in forged)]
            case ViewChange() if message.log:
                top = message.log[-1]
                cc = Certificate("prepare", top, b"", self._votes())
                forged_change = msgspec.structs.replace(message, cc=cc, branch=())
                return [Outbound(out.to, self.resigned(forged_change))]
            case CheckpointVote(header, state, _, _):
                names = [*self.others, *range(self.n, 2 * self.n)]
                shown = [msgspec.structs.replace(message, member=m, state=state) for m in names]
                return [out, *(Outbound(EVERYONE, self.resigned(s)) for s in shown)]
        return [out]

    def _votes(self) -> tuple[VoteSig, ...]:
        return tuple(VoteSig(m, self.noise(64)) for m in range(self.n))

    def _slander(self, header: Header) -> list[PeerMessage]:
        other = msgspec.structs.replace(header, batch=self.noise(32), sig=self.noise(64))
        whom, sig = self.random.choice(self.others), self.noise(64)
        double = DoubleVote("prepare", whom, header, b"", sig, other, b"", sig)
        return [Equivocation(header, other), double]


class Impostor(Liar):
    """Proposes although it does not lead: headers with its own signature or none."""

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Answer each proposal of the primary with its continuation."""
        if isinstance(message, PrePrepare) and not self.leads(message.entry.header.term):
            header = message.entry.header
            if sender != self.genesis.primary(header.term):
                return True  # two impostors would answer each other for ever
            batch = msgspec.structs.replace(decode_batch(message.entry.body))
            for index, prev in ((header.index, header.prev), (header.index + 1, header.hash())):
                later = msgspec.structs.replace(batch, stamp_ms=batch.stamp_ms + 1)
                self.shout(PrePrepare(self.entry(header, later, index, prev)))
        return True


class Rewriter(Liar):
    """As primary, proposes other envelopes than clients have sent; its engine believes them."""

    def possess(self, replica: Replica) -> None:
        """Stand between the engine and its requests."""
        pool = replica._core.pool
        take = pool.take

        def rewritten(bytes_max: int, count_max: int) -> list[Envelope]:
            return self.rewritten(take(bytes_max, count_max))

        pool.take = rewritten  # type: ignore[method-assign]

    def rewritten(self, envelopes: list[Envelope]) -> list[Envelope]:
        """What is proposed in place of what waits."""
        return envelopes


class ForgedEnvelopes(Rewriter):
    """As primary, proposes what no client signed."""

    def rewritten(self, envelopes: list[Envelope]) -> list[Envelope]:
        """Change what a client asked for, in its name."""
        return [self._forged(envelope) for envelope in envelopes]

    def _forged(self, envelope: Envelope) -> Envelope:
        session, sequence, acked, operations = msgspec.msgpack.decode(envelope.body)
        body = msgspec.msgpack.encode((session, sequence, acked, operations + operations))
        return Envelope(envelope.client, body, self.random.choice((envelope.sig, self.noise(64))))


class Repeat(Rewriter):
    """As primary, proposes what was executed before once more; now and then the same twice."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._old: list[Envelope] = []

    def rewritten(self, envelopes: list[Envelope]) -> list[Envelope]:
        """Add old envelopes to the batch; their clients have signed them."""
        twice = envelopes[:1] if self.random.random() < 0.1 else []
        again = [*self._old[-3:], *envelopes, *twice]
        self._old = [*self._old, *envelopes][-10:]
        return again


class SwappedBodies(Equivocate):
    """As primary, gives one header to all, and bodies to choose from."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """The same header with a later stamp in its body for half of the members."""
        if not isinstance(out.message, PrePrepare) or out.to != EVERYONE:
            return [out]
        entry = out.message.entry
        batch = decode_batch(entry.body)
        later = msgspec.structs.replace(batch, stamp_ms=batch.stamp_ms + 1)
        swapped = Entry(entry.header, msgspec.msgpack.encode(later))
        return self.split(out.message, PrePrepare(swapped))


class TwoFacedChange(Liar):
    """Hides in its VIEW-CHANGE what it had prepared, from some or from all."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """State a shorter log without its certificate."""
        change = out.message
        if not isinstance(change, ViewChange):
            return [out]
        shorter = msgspec.structs.replace(
            change,
            log=change.log[: self.random.randint(0, len(change.log))],
            cc=None,
            branch=(),
            elections=change.elections,
        )
        hidden = self.resigned(shorter)
        return [Outbound(m, self.random.choice((change, hidden, hidden))) for m in self.others]


class BadNewView(Liar):
    """As new primary, starts its view elsewhere than its certificate says."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._changes: dict[tuple[int, int], ViewChange] = {}

    def hear(self, _sender: int, message: PeerMessage) -> bool:
        """Collect statements to choose from."""
        if isinstance(message, ViewChange):
            self._changes[(message.view, message.member)] = message
        return True

    def alter(self, out: Outbound) -> list[Outbound]:
        """Choose other statements, state something else, or begin with something else."""
        if not isinstance(out.message, NewView):
            return [out]
        election, first = out.message.election, out.message.first
        lie = self.random.randrange(4)
        if lie == 0:
            prev = self.noise(32)
            wrong = self.entry(first.header, decode_batch(first.body), first.header.index, prev)
            return [Outbound(out.to, NewView(election, wrong))]
        if lie == 1:
            few = Election(election.epoch, election.view, election.changes[:-1])
            return [Outbound(out.to, NewView(few, first))]
        half = len(self.others) // 2
        chosen = self._other(election)
        if not any(change.log or change.checkpoint for change in chosen.changes):
            first = self.entry(first.header, decode_batch(first.body), 1, self.genesis.start_hash)
        other = NewView(chosen, first)
        return [Outbound(m, out.message) for m in self.others[half:]] + [
            Outbound(m, other) for m in self.others[:half]
        ]

    def _other(self, election: Election) -> Election:
        """As many statements of other members, my own with an empty log among them."""
        mine = next((c for c in election.changes if c.member == self.me), election.changes[0])
        empty = msgspec.structs.replace(mine, log=(), cc=None, branch=(), elections=())
        known = {c.member: c for c in election.changes}
        known.update({m: c for (view, m), c in self._changes.items() if view == election.view})
        if self.random.random() < 0.5:  # in all names: who does not look at signatures believes it
            bare = {"log": (), "cc": None, "branch": (), "elections": (), "checkpoint": None}
            members = sorted(known)[: len(election.changes)]
            changes = [msgspec.structs.replace(known[m], **bare) for m in members]
            return Election(election.epoch, election.view, tuple(changes))
        changed = self.resigned(empty)
        if isinstance(changed, ViewChange) and mine.member == self.me:
            known[self.me] = changed
        members = sorted(self.random.sample(sorted(known), len(election.changes)))
        return Election(election.epoch, election.view, tuple(known[m] for m in members))


class LyingCatchUp(Liar):
    """Answers a replica that lags with other entries, or with certificates of nothing."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Change a body, an entry that I may sign, or the certificate."""
        answer = out.message
        if not isinstance(answer, Entries):
            return [out]
        entries = list(answer.entries)
        at = self.random.randrange(len(entries))
        body = decode_batch(entries[at].body)
        later = msgspec.structs.replace(body, stamp_ms=body.stamp_ms + 1)
        header = entries[at].header
        if self.random.random() < 0.3:
            entries[at] = Entry(header, msgspec.msgpack.encode(later))
            lie = msgspec.structs.replace(answer, entries=tuple(entries))
        else:
            wrong = self.entry(header, later, header.index, header.prev)
            votes = tuple(VoteSig(m, self.noise(64)) for m in range(self.n))
            proof = Certificate("commit", wrong.header, b"", votes)
            shown = (*entries[:at], wrong)
            lie = msgspec.structs.replace(answer, entries=shown, links=(), certificate=proof)
        return [Outbound(out.to, lie)]


class Ghost(Liar):
    """Shows in its VIEW-CHANGE a longer log of its own making, and gives the bodies for it."""

    LENGTHS: tuple[int, ...] = (1, 3, 12)
    AHEAD_MS: tuple[int, ...] = (0, 1)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._bodies: dict[bytes, bytes] = {}
        self._stamp_ms = 0
        self._real: list[Envelope] = []
        self._seen: dict[int, Header] = {}

    def alter(self, out: Outbound) -> list[Outbound]:
        """Extend or fork the log where my signature counts."""
        match out.message:
            case PrePrepare(entry):
                self._seen[entry.header.index] = entry.header
                batch = decode_batch(entry.body)
                self._stamp_ms = max(self._stamp_ms, batch.stamp_ms)
                self._real += batch.envelopes
            case ViewChange():
                return [Outbound(out.to, self.resigned(self._haunted(out.message)))]
        return [out]

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Give the bodies that only I have."""
        if isinstance(message, FetchBodies):
            found = tuple(self._bodies[b] for b in message.batches if b in self._bodies)
            if found:
                self.say(sender, Bodies(found))
        return True

    def ghosts(self) -> tuple[Envelope, ...]:
        """What stands in an invented entry: nothing, a forgery, or what was asked before."""
        forged = Envelope(self.genesis.clients[0].key, self.noise(40), self.noise(64))
        return self.random.choice(((), (forged,), tuple(self._real[-1:])))

    def _haunted(self, change: ViewChange) -> ViewChange:
        if change.checkpoint is not None and self.random.random() < 0.5:
            # hide the checkpoint, and fork below it
            below = tuple(self._seen[i] for i in sorted(self._seen) if self._seen[i].term == 1)
            change = msgspec.structs.replace(change, checkpoint=None, log=below, elections=())
        places = [at for at in range(len(change.log) + 1) if self._may_follow(change, at)]
        if not places:
            return change
        at = self.random.choice((places[0], places[-1], places[-1], self.random.choice(places)))
        log = list(change.log[:at])
        hidden = len(change.log) - at if self.random.random() < 0.5 else 0
        for _ in range(hidden + self.random.choice(self.LENGTHS)):
            log.append(self._next(log[-1] if log else None))
        kept = change.cc is not None and change.cc.header.index <= at
        cc = change.cc if kept and not change.branch else None
        return msgspec.structs.replace(change, log=tuple(log), cc=cc, branch=())

    def _may_follow(self, change: ViewChange, at: int) -> bool:
        if at == 0:
            return change.checkpoint is None and self.leads(1) and change.view > 1
        return self.leads(change.log[at - 1].term)

    def _next(self, below: Header | None) -> Header:
        batch = Batch(self._stamp_ms + self.random.choice(self.AHEAD_MS), self.ghosts())
        like = Header(0, 1, 1, bytes(32), self.genesis.start_hash, bytes(64))
        if below is None:
            entry = self.entry(like, batch, 1, self.genesis.start_hash)
        else:
            entry = self.entry(below, batch, below.index + 1, below.hash())
        self._bodies[entry.header.batch] = entry.body
        return entry.header


class FutureGhost(Ghost):
    """As a ghost, with empty entries from a far future: time in the log would never fit again."""

    LENGTHS = (12,)
    AHEAD_MS = (10**9,)

    def ghosts(self) -> tuple[Envelope, ...]:
        """Nothing that could be found to be unsigned."""
        return ()
