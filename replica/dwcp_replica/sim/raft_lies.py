"""Lies in Raft: a leader with two faces, votes for everybody, invented logs and elections."""

from __future__ import annotations

import msgspec

from dwcp.wire.envelope import Batch, decode_batch
from dwcp.wire.peer import (
    Append,
    Appended,
    Certificate,
    Commit,
    Entry,
    Header,
    PeerMessage,
    Prepare,
    PreVote,
    Status,
    Transfer,
    Vote,
    VoteCertificate,
    VoteRequest,
    VoteSig,
)
from dwcp.wire.records import EpochRecord
from dwcp_replica.core.effects import EVERYONE, Outbound
from dwcp_replica.sim.liar import VOTE_KINDS, Context, Liar


class TwoFacedLeader(Liar):
    """As leader, shows one chain to some members and another to the rest, and certifies both."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        half = len(self.others) // 2
        self._deceived = set(self.random.sample(self.others, self.random.randint(half, half + 1)))
        self._fork: dict[bytes, bytes] = {}
        self._headers: dict[bytes, Header] = {}
        self._votes: dict[tuple[type[PeerMessage], bytes], dict[int, VoteSig]] = {}
        self._from = self.random.randint(1, 6)
        """The place from which on the faces differ."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Entries of my own, forked for those that I deceive; no certificate of the other chain."""
        message = out.message
        if not isinstance(message, Append) or out.to not in self._deceived:
            return [out]
        entries = tuple(self._forked(entry) for entry in message.entries)
        prev = self._fork.get(message.prev_hash, message.prev_hash)
        shown = tuple(c for c in message.certificates if c.header.hash() not in self._fork)
        lie = msgspec.structs.replace(message, entries=entries, prev_hash=prev, certificates=shown)
        return [Outbound(out.to, lie)]

    def _forked(self, entry: Entry) -> Entry:
        header = entry.header
        prev = self._fork.get(header.prev, header.prev)
        mine = self.leads(header.term) and header.index >= self._from
        if not mine:
            return entry
        batch = decode_batch(entry.body)
        later = msgspec.structs.replace(batch, stamp_ms=batch.stamp_ms + 1)
        other = self.entry(header, later, header.index, prev)
        hash_ = other.header.hash()
        self._fork[header.hash()] = hash_
        self._headers[hash_] = other.header
        return other

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Gather the votes of the deceived, and certify for them what they voted for."""
        if not isinstance(message, Prepare | Commit):
            return True
        header = self._headers.get(message.header.hash())
        if header is None:
            return True
        kind = type(message)
        votes = self._votes.setdefault((kind, header.hash()), {})
        votes[message.member] = VoteSig(message.member, message.sig)
        votes[self.me] = VoteSig(self.me, self.vote(kind, header, self.me).sig)
        if len(votes) >= self.quorum:
            self._certify(kind, header, votes)
        return sender < 0

    @property
    def quorum(self) -> int:
        """As many votes as convince a member."""
        return (self.n + (self.n - 1) // 3) // 2 + 1

    def _certify(
        self, kind: type[Prepare | Commit], header: Header, votes: dict[int, VoteSig]
    ) -> None:
        chosen = [votes[m] for m in sorted(votes)]
        if kind is Prepare:
            chosen = [vote for vote in chosen if vote.member != self.me]
        certificate = Certificate(VOTE_KINDS[kind], header, b"", tuple(chosen))
        shown = Append(
            self.record.epoch,
            header.term,
            header.index,
            header.term,
            header.hash(),
            (),
            (certificate,),
        )
        for member in sorted(self._deceived):
            self.say(member, shown)


class VotesForAll(Liar):
    """Votes for every candidate, whatever its log, and acks whatever any leader sends."""

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Say yes."""
        match message:
            case VoteRequest(_, term, pre):
                if pre:
                    self.say(sender, PreVote(self.record.epoch, term, granted=True, view=term))
                else:
                    self.say(sender, self.vote_for(message))
                return False
            case Append(_, _, _, _, _, entries):
                for entry in entries:
                    for kind in (Prepare, Commit):
                        self.say(sender, self.vote(kind, entry.header, self.me))
            case Append(_, _, _, _, _, _, certificates):
                for certificate in certificates:
                    self.say(sender, self.vote(Commit, certificate.header, self.me))
        return True

    def vote_for(self, request: VoteRequest) -> Vote:
        """My vote for a candidate, wherever its log ends."""
        last = request.log[-1] if request.log else None
        if last is None and request.checkpoint is not None:
            last = request.checkpoint.header
        if last is None:
            bound = (0, self.record.start_index, self.record.start_hash)
        else:
            bound = (last.term, last.index, last.hash())
        vote = Vote(self.record.epoch, request.term, *bound, self.me, bytes(64))
        signed = self.resigned(vote)
        assert isinstance(signed, Vote), "a vote signed anew is a vote"
        return signed


class GhostCandidate(VotesForAll):
    """Stands for election again and again, with logs cut short or ending in its own inventions."""

    beat_every_ms = 110

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._term = 1
        self._entries: dict[int, Entry] = {}
        self._votes: dict[tuple[int, bytes], dict[int, VoteSig]] = {}
        self._shown: dict[int, list[Entry]] = {}

    def enter(self, record: EpochRecord) -> None:
        """Terms begin anew."""
        super().enter(record)
        self._term = 1
        self._shown.clear()

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Learn the real chain, and lead wherever enough members vote for me."""
        match message:
            case Append(_, term, _, _, _, entries):
                self._term = max(self._term, term)
                self._entries.update({entry.header.index: entry for entry in entries})
            case Status(_, view):
                self._term = max(self._term, min(view, 2**30))
            case Vote() if message.term in self._shown:
                self._elected(message)
        return super().hear(sender, message)

    def beat(self) -> None:
        """Stand in my next term, where I have one and Raft is what runs."""
        term = self.next_term(self._term)
        if term is None:
            return
        chain = self._chain()
        chain = chain[: max(0, len(chain) - self.random.choice((0, 0, 1, 2, 5)))]
        if chain and (self.random.random() < 0.5 or self.leads(chain[-1].header.term)):
            # mine by right where I led the term, otherwise only in form
            mine = self.leads(chain[-1].header.term)
            like = msgspec.structs.replace(
                chain[-1].header, term=chain[-1].header.term if mine else term - 1
            )
            stamp_ms = decode_batch(chain[-1].body).stamp_ms
            chain.append(self._next(chain[-1].header, like, stamp_ms))
        self._shown[term] = chain
        log = tuple(entry.header for entry in chain)
        self.shout(VoteRequest(self.record.epoch, term, False, None, log, ()))  # noqa: FBT003

    def _chain(self) -> list[Entry]:
        """What I know of the real chain, from its start."""
        chain: list[Entry] = []
        prev, below = self.record.start_hash, self.record.start_index
        while (entry := self._entries.get(below + len(chain) + 1)) and entry.header.prev == prev:
            chain.append(entry)
            prev = entry.header.hash()
        return chain

    def _next(self, below: Header, like: Header, stamp_ms: int) -> Entry:
        return self.entry(like, Batch(stamp_ms, ()), below.index + 1, below.hash())

    def _elected(self, vote: Vote) -> None:
        """Begin the term as the votes say; or lower, or for each member differently."""
        chain = self._shown[vote.term]
        if not chain or chain[-1].header.hash() != vote.last_hash:
            return
        votes = self._votes.setdefault((vote.term, vote.last_hash), {})
        votes[vote.member] = VoteSig(vote.member, vote.sig)
        bound = (vote.last_term, vote.last_index, vote.last_hash)
        mine = self.resigned(Vote(self.record.epoch, vote.term, *bound, self.me, bytes(64)))
        assert isinstance(mine, Vote), "a vote signed anew is a vote"
        votes[self.me] = VoteSig(self.me, mine.sig)
        if len(votes) >= (self.n + (self.n - 1) // 3) // 2 + 1:
            given = tuple(votes[m] for m in sorted(votes))
            certificate = VoteCertificate(self.record.epoch, vote.term, *bound, given)
            for member in self.others:
                self._lead(member, certificate, chain)

    def _lead(self, member: int, certificate: VoteCertificate, chain: list[Entry]) -> None:
        at = max(1, len(chain) - self.random.choice((0, 1, 3)))
        below, top = chain[at - 1].header, chain[-1]
        like = msgspec.structs.replace(top.header, term=certificate.view)
        stamp_ms = decode_batch(top.body).stamp_ms + self.random.randint(0, 1)
        first = self._next(below, like, stamp_ms)
        start = max(1, at - 3)
        prev = chain[start - 1].header
        shown = (*chain[start:at], first)
        self.say(
            member,
            Append(
                self.record.epoch,
                certificate.view,
                prev.index,
                prev.term,
                prev.hash(),
                shown,
                (),
                (certificate,),
            ),
        )


class Usurper(Liar):
    """Leads its terms without having been elected, on votes that nobody gave."""

    beat_every_ms = 250

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._top: Entry | None = None
        self._term = 1

    def enter(self, record: EpochRecord) -> None:
        """Terms begin anew."""
        super().enter(record)
        self._term = 1

    def hear(self, sender: int, message: PeerMessage) -> bool:
        """Learn where the others are."""
        match message:
            case Append(_, term, _, _, _, entries) if entries:
                self._top = entries[-1]
                self._term = max(self._term, term)
            case Status(_, view):
                self._term = max(self._term, min(view, 2**30))
        return sender >= 0

    def beat(self) -> None:
        """An entry of my next term on top of the others' log, with forged votes or none."""
        term = self.next_term(self._term)
        if self._top is None or term is None:
            return
        below = self._top.header
        batch = decode_batch(msgspec.msgpack.encode((decode_batch(self._top.body).stamp_ms, ())))
        like = msgspec.structs.replace(below, term=term)
        first = self.entry(like, batch, below.index + 1, below.hash())
        votes = tuple(VoteSig(m, self.noise(64)) for m in range(self.n))
        forged = VoteCertificate(
            self.record.epoch, term, below.term, below.index, below.hash(), votes
        )
        shown = self.random.choice(((), (forged,)))
        self.shout(
            Append(
                self.record.epoch, term, below.index, below.term, below.hash(), (first,), (), shown
            )
        )
        stolen = Transfer(self.record.epoch, self._term, self.me, self.noise(64))
        self.shout(VoteRequest(self.record.epoch, term, False, None, (), (), stolen))  # noqa: FBT003


class WrongAnswers(Liar):
    """Misleads a leader about where it stands, and votes for entries that nobody proposed."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Random numbers for flow control; now and then an ack in another's name."""
        message = out.message
        match message:
            case Appended():
                lie = msgspec.structs.replace(
                    message,
                    index=self.random.choice((0, message.index + 7, 2**40)),
                    rejected=self.random.random() < 0.5,
                    hint_term=self.random.choice((0, 1, 2**40)),
                    final=self.random.choice((0, 2**40)),
                    beat=2**40,
                )
                return [Outbound(out.to, lie)]
            case Prepare(header) | Commit(header):
                other = msgspec.structs.replace(header, batch=self.noise(32))
                forged = self.vote(type(message), header, self.random.choice(self.others))
                own = self.vote(type(message), other, self.me)
                return [out, Outbound(out.to, own), Outbound(EVERYONE, forged)]
        return [out]


class SwappedBodies(Liar):
    """As leader, gives one header to all, and bodies to choose from."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """The same header with a later stamp in its body, for some members."""
        message = out.message
        if not isinstance(message, Append) or not message.entries or out.to % 2:
            return [out]
        entries = []
        for entry in message.entries:
            batch = decode_batch(entry.body)
            later = msgspec.structs.replace(batch, stamp_ms=batch.stamp_ms + 1)
            entries.append(Entry(entry.header, msgspec.msgpack.encode(later)))
        return [Outbound(out.to, msgspec.structs.replace(message, entries=tuple(entries)))]
