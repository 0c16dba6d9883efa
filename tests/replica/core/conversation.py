"""A cluster of engines whose messages are delivered by hand, and whose talk can be read.

Everything persisted is durable at once; nothing moves until the test says so. Used by unit
tests and by the traces in tests/traces (command, `----`, what each replica did).
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random

import msgspec

from dwcp.wire.envelope import Envelope, EnvelopeBody, decode_batch, envelope_signing_bytes
from dwcp.wire.epochs import (
    CertifiedRecord,
    Panic,
    Records,
    Seal,
    SlotCertificate,
    SlotChange,
    SlotProposal,
    SlotVote,
)
from dwcp.wire.epochs import Ready as ReadyMessage
from dwcp.wire.operations import PutRequest
from dwcp.wire.peer import (
    Append,
    Appended,
    CheckpointVote,
    Commit,
    Entries,
    Entry,
    Equivocation,
    Fetch,
    Forward,
    Header,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    PreVote,
    Status,
    Transfer,
    ViewChange,
    Vote,
    VoteRequest,
)
from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Member,
    ModePolicy,
    Parameters,
    Protocol,
    Trust,
    scope_of,
    start_hash,
)
from dwcp.wire.signing import digest
from dwcp.wire.switch import AdminSwitch, Hold, SwitchRequest
from dwcp_replica.core.effects import (
    EVERYONE,
    Alarm,
    Applied,
    EpochEntered,
    HandOver,
    Input,
    Order,
    ReadAnswer,
    ReadIndex,
    Ready,
    Received,
    Record,
    Submit,
    TermRecord,
    Tick,
)
from dwcp_replica.core.epochs.keys import Keys
from dwcp_replica.core.epochs.wishing import Wish
from dwcp_replica.core.replica import Replica
from dwcp_replica.sim.crypto import HashSigner, HashVerifier

MODES = ModePolicy()
WALL_MS = 1_700_000_000_000


class Conversation:
    """n engines, the messages between them, and what each has executed."""

    def __init__(
        self,
        n: int = 4,
        interval: int = 100,
        timeout_ms: int = 400,
        protocol: Protocol = "pbft",
        trust: Trust = "Byzantine",
        modes: ModePolicy = MODES,
    ) -> None:
        self.n = n
        self.now_ms = 1000
        self.verifier = HashVerifier()
        self.signers = [HashSigner(digest("member", bytes([i]))) for i in range(n)]
        self.client = HashSigner(digest("client"))
        self.admin = HashSigner(digest("admin"))
        for signer in (*self.signers, self.client, self.admin):
            self.verifier.know(signer)
        self.genesis = msgspec.structs.replace(
            genesis(
                self.signers, self.client.public_key, interval, timeout_ms, self.admin.public_key
            ),
            protocol=protocol,
            trust=trust,
            parameters=Parameters(interval, timeout_ms, modes=modes),
        )
        self.keys = [Keys(signer) for signer in self.signers]
        self.named = {signer.public_key: i for i, signer in enumerate(self.signers)}
        """Whose each key is, or was."""
        self.records: list[list[Record]] = [[] for _ in range(n)]
        self.executed: list[list[tuple[int, bytes]]] = [[] for _ in range(n)]
        self.due: list[deque[Entry]] = [deque() for _ in range(n)]
        self.executing = [False] * n
        self.inbox: list[tuple[int, int, PeerMessage]] = []
        self.cut: set[tuple[int, int]] = set()
        self.down: set[int] = set()
        self.clock_behind_ms = [0] * n
        self.next_due: Callable[[int], int | None] = lambda _stamp_ms: None
        """From the stamp of what was executed, the agreed time that asks for an entry."""
        self.said: list[str] = []
        self.damaged: dict[int, str] = {}
        self.sequence = 0
        self.dice = [Random(f"talk {i}") for i in range(n)]
        self.reads: list[list[ReadAnswer]] = [[] for _ in range(n)]
        self.replicas = [self._engine(i) for i in range(n)]
        for i in range(n):
            self._act(i, Tick(self.now_ms, WALL_MS + self.now_ms))
        self.said.clear()

    def _engine(self, me: int) -> Replica:
        return Replica(
            genesis=self.genesis,
            me=me if me < len(self.genesis.members) else None,
            signer=self.signers[me],
            verifier=self.verifier,
            records=self.records[me],
            draw=self.dice[me].randrange,
            mute=self.damaged.get(me),
            keys=self.keys[me],
        )

    # --- what a test does ------------------------------------------------------------------------

    def envelope(self, key: str, value: str, client: HashSigner | None = None) -> Envelope:
        """A signed envelope with one put."""
        client = client or self.client
        self.sequence += 1
        body = msgspec.msgpack.encode(
            EnvelopeBody(1, self.sequence, 0, (PutRequest(key.encode(), value.encode()),))
        )
        sig = client.sign(envelope_signing_bytes(self.genesis.hash(), body))
        return Envelope(client.public_key, body, sig)

    def submit(self, member: int, key: str, value: str) -> Envelope:
        """A client hands an envelope to one member."""
        envelope = self.envelope(key, value)
        self._act(member, Submit(envelope))
        return envelope

    def receive(self, member: int, sender: int, message: PeerMessage) -> None:
        """Hand a message to a member, as if `sender` had sent it."""
        place = self.place_of(member, sender)
        if place is not None:
            self._act(member, Received(place, message))

    def known_to(self, me: int) -> list[int]:
        """The replicas that one of them knows, by its own numbers."""
        peers = self.replicas[me].peers
        if peers == self.genesis.members:
            return list(range(len(peers)))
        return [self.named[peer.identity] for peer in peers]

    def place_of(self, member: int, other: int) -> int | None:
        """The number under which `member` knows another one."""
        if other >= len(self.signers):
            return other  # a learner that the test keeps to itself
        if len(self.named) > len(self.signers):
            record = self.replicas[other].standing().record
            mine = self.keys[other].of(record)[0].public_key
            peers = [peer.identity for peer in self.replicas[member].peers]
            return peers.index(mine) if mine in peers else None
        known = self.known_to(member)
        return known.index(other) if other in known else None

    def rekey(self, me: int) -> HashSigner:
        """Another key for a replica, which the next record may name."""
        before = self.signers[me].public_key
        following = HashSigner(digest("following", before))
        self.verifier.know(following)
        self.named[following.public_key] = me
        self.keys[me].expect(following)
        self.signers[me] = following
        return following

    def join(self) -> int:
        """A new replica, no member yet, that holds genesis; its number here."""
        me = self.n
        self.n += 1
        self.signers.append(HashSigner(digest("member", bytes([me]))))
        self.verifier.know(self.signers[me])
        self.keys.append(Keys(self.signers[me]))
        self.named[self.signers[me].public_key] = me
        self.records.append([])
        self.executed.append([])
        self.due.append(deque())
        self.executing.append(False)
        self.dice.append(Random(f"talk {me}"))
        self.reads.append([])
        self.clock_behind_ms.append(0)
        self.replicas.append(self._engine(me))
        self._act(me, Tick(self.now_ms, WALL_MS + self.now_ms))
        return me

    def member(self, me: int) -> Member:
        """How a record describes a replica."""
        key = self.signers[me].public_key
        return Member(f"talk-{me}", key, key, f"talk-{me}:1", f"http://talk-{me}:2")

    def order(
        self,
        members: list[int],
        to: int = 0,
        protocol: Protocol | None = None,
        hold: Hold = "as-is",
    ) -> AdminSwitch:
        """The admin's order that these replicas be the members, given to one of them."""
        record = self.replicas[to].standing().record
        unsigned = AdminSwitch(
            record.epoch,
            protocol or record.protocol,
            tuple(map(self.member, members)),
            bytes(64),
            hold,
        )
        signed = unsigned.signing_bytes(scope_of(self.genesis, record))
        order = msgspec.structs.replace(unsigned, sig=self.admin.sign(signed))
        self._act(to, Order(order))
        return order

    def deliver(self) -> None:
        """Deliver messages in order, and those they cause, until none is left."""
        for _ in range(100):
            if not self.inbox:
                return
            self.deliver_once()
        raise AssertionError("still talking after 100 rounds")

    def deliver_once(self) -> None:
        """Deliver what is on its way; what that causes waits."""
        for source, target, message in self.step():
            here = target < self.n and (source, target) not in self.cut
            if here and not self.down & {source, target}:
                self.receive(target, source, message)

    def step(self) -> list[tuple[int, int, PeerMessage]]:
        """Take what is on its way, without delivering it."""
        arrived, self.inbox = self.inbox, []
        return arrived

    def wait(self, ms: int) -> None:
        """Let time pass for everyone, in steps of 50 ms, delivering as it goes."""
        for _ in range(0, ms, 50):
            self.now_ms += 50
            for i in range(self.n):
                if i not in self.down:
                    wall_ms = WALL_MS + self.now_ms - self.clock_behind_ms[i]
                    self._act(i, Tick(self.now_ms, wall_ms))
            self.deliver()

    def crash(self, member: int) -> None:
        """Stop a member; its disk stays."""
        self.down.add(member)

    def restart(self, member: int) -> None:
        """Start a member again from its disk."""
        self.down.discard(member)
        self.executed[member].clear()
        self.replicas[member] = self._engine(member)
        self._act(member, Tick(self.now_ms, WALL_MS + self.now_ms))

    def hand_over(self, member: int, to: int | None = None) -> None:
        """Ask a member to give the primary role up."""
        self._act(member, HandOver(to))

    def alarm(self, member: int) -> None:
        """Give a member reason to PANIC."""
        self._act(member, Alarm())

    def wish(
        self,
        members: Iterable[int],
        protocol: Protocol,
        at_start: Protocol,
        *,
        patient: bool = False,
    ) -> None:
        """The mode that was decided asks these members for a protocol."""
        for member in members:
            self._act(member, Wish(protocol, at_start, patient))

    def isolate(self, member: int) -> None:
        """Cut a member off from all others."""
        for other in range(self.n):
            self.cut |= {(member, other), (other, member)}

    def read(self, member: int, token: str) -> None:
        """Ask a member for a read that does not go through the log."""
        self._act(member, ReadIndex(token.encode()))

    def values(self, member: int) -> list[bytes]:
        """The values that a member has executed, in order."""
        return [value for _, value in self.executed[member]]

    def say_status(self) -> None:
        """Where everyone stands."""
        for i, replica in enumerate(self.replicas):
            s = replica.standing()
            state = "active" if s.active else "changing"
            epoch = f"e{s.epoch} " if s.epoch else ""
            executed = [value.decode() for value in self.values(i)]
            self.said.append(
                f"{i}: {epoch}v{s.view} {state} last {s.last} final {s.final} stable {s.stable} "
                f"executed {executed}"
            )

    # --- effects ---------------------------------------------------------------------------------

    def _act(self, me: int, event: Input | Wish) -> None:
        ready = self.replicas[me].step(event)
        self._say(me, ready)
        self.records[me] += ready.persist
        self.reads[me] += ready.reads
        for out in ready.send:
            everyone = self.known_to(me)
            named = everyone[out.to] if out.to < len(everyone) else out.to
            targets = everyone if out.to == EVERYONE else [named]
            self.inbox += [(me, target, out.message) for target in targets if target != me]
        self.due[me] += ready.apply
        if self.executing[me]:
            return  # in order: what is being executed comes first
        self.executing[me] = True
        while self.due[me]:
            self._act(me, self.execute(me, self.due[me].popleft()))
        self.executing[me] = False
        self.after(me, ready)

    def execute(self, me: int, entry: Entry) -> Applied:
        """Note what a member executes, and how its engine is told."""
        batch = decode_batch(entry.body)
        for envelope in batch.envelopes:
            body = msgspec.msgpack.decode(envelope.body, type=EnvelopeBody)
            for op in body.operations:
                assert isinstance(op, PutRequest)
                self.executed[me].append((entry.header.index, op.value))
        index = entry.header.index
        due = index % self.genesis.parameters.checkpoint_interval == 0
        due_ms = self.next_due(batch.stamp_ms)
        return Applied(index, self.state(me) if due else None, due_ms=due_ms)

    def after(self, me: int, ready: Ready) -> None:
        """What else an engine wants done."""

    def state(self, me: int) -> bytes:
        """The digest of what a member has executed."""
        return digest("state", repr(self.executed[me]).encode())

    def _say(self, me: int, ready: Ready) -> None:
        for record in ready.persist:
            self.said.append(f"{me}: persist {describe_record(record)}")
        for out in ready.send:
            if not is_heartbeat(out.message):
                to = "all" if out.to == EVERYONE else str(out.to)
                self.said.append(f"{me}: -> {to} {describe(out.message)}")
        for entry in ready.apply:
            self.said.append(f"{me}: execute {describe_header(entry.header)}")
        for read in ready.reads:
            where = "the log" if read.index is None else f"i{read.index}"
            self.said.append(f"{me}: read at {where}")
        self.said += [f"{me}: {describe_event(event)}" for event in ready.events]


def genesis(
    signers: list[HashSigner],
    client: bytes,
    interval: int,
    timeout_ms: int,
    admin: bytes = bytes(32),
) -> EpochRecord:
    cluster_id = bytes(16)
    return EpochRecord(
        cluster_id=cluster_id,
        cluster="talk",
        namespace="default",
        epoch=0,
        protocol="pbft",
        trust="Byzantine",
        members=tuple(
            Member(f"talk-{i}", s.public_key, s.public_key, f"talk-{i}:1", f"http://talk-{i}:2")
            for i, s in enumerate(signers)
        ),
        clients=(ClientIdentity("client", client),),
        admin=admin,
        parameters=Parameters(checkpoint_interval=interval, request_timeout_ms=timeout_ms),
        start_index=0,
        start_hash=start_hash(cluster_id),
        leader=0,
    )


def is_heartbeat(message: PeerMessage) -> bool:
    """What is said all the time and only bores a reader."""
    if isinstance(message, Append | Appended):
        return message.beat > 0
    return isinstance(message, Status)


def describe_header(header: Header) -> str:
    return f"v{header.term} i{header.index} {header.hash().hex()[:4]}"


def describe(message: PeerMessage) -> str:
    name = type(message).__name__
    match message:
        case PrePrepare(entry):
            return f"{name} {describe_header(entry.header)}"
        case Prepare(header) | Commit(header) | CheckpointVote(header):
            return f"{name} {describe_header(header)}"
        case ViewChange():
            cc = describe_header(message.cc.header) if message.cc else "none"
            return f"{name} v{message.view} log {len(message.log)} cc {cc}"
        case NewView(election, first):
            by = ",".join(str(change.member) for change in election.changes)
            return f"{name} by {by} first {describe_header(first.header)}"
        case Forward(envelopes):
            return f"{name} {len(envelopes)}"
        case Fetch(_, start):
            return f"{name} from i{start}"
        case Entries(entries, _, certificate):
            return f"{name} {len(entries)} to {certificate.kind} {certificate.header.index}"
        case Equivocation(first, second):
            return f"{name} {describe_header(first)} / {describe_header(second)}"
    return describe_raft(message) or name + describe_ending(message)


def describe_raft(message: PeerMessage) -> str:
    name = type(message).__name__
    match message:
        case Append():
            return describe_append(message)
        case Appended(_, term, index, rejected):
            return f"{name} v{term} i{index}{' rejected' if rejected else ''}"
        case VoteRequest(_, term, pre, _, log):
            return f"{name} v{term}{' pre' if pre else ''} log {len(log)}"
        case PreVote(_, term, granted):
            return f"{name} v{term} {'yes' if granted else 'no'}"
        case Vote(_, term, last_term, last_index, last_hash):
            return f"{name} v{term} for v{last_term} i{last_index} {last_hash.hex()[:4]}"
        case Transfer(_, term, to):
            return f"{name} v{term} to {to}"
    return ""


def describe_ending(message: PeerMessage) -> str:
    match message:
        case Seal():
            return f" e{message.epoch} log {len(message.log)} {type(message.trigger).__name__}"
        case SlotProposal():
            by = ",".join(str(seal.member) for seal in message.value.seals)
            return f" v{message.view} {message.value.record.hash().hex()[:4]} from {by}"
        case SlotVote():
            return f" {message.phase} v{message.view} {message.value.hex()[:4]}"
        case SlotChange():
            return f" v{message.view} {'prepared' if message.prepared else 'nothing'}"
        case Records(records):
            return f" {' '.join(describe_epoch(one) for one in records)}"
        case ReadyMessage() | SwitchRequest() | Panic():
            return f" e{message.epoch} of {message.member}"
    return ""


def describe_epoch(certified: CertifiedRecord) -> str:
    r = certified.record
    return f"e{r.epoch} {r.protocol} start {r.start_index} leader {r.leader} barred {r.barred}"


def describe_append(message: Append) -> str:
    told = [f"{c.kind} {describe_header(c.header)}" for c in message.certificates]
    told += [f"election v{election.view}" for election in message.elections]
    entries = [describe_header(entry.header) for entry in message.entries]
    said = [f"Append v{message.term}", *entries]
    return " ".join(said) + (f" with {', '.join(told)}" if told else "")


def describe_record(record: Record) -> str:
    name = type(record).__name__.removesuffix("Record")
    entry = getattr(record, "entry", None)
    if entry is not None:
        return f"{name} {describe_header(entry.header)}"
    certificate = getattr(record, "certificate", None)
    if isinstance(certificate, SlotCertificate):
        return f"{name} v{certificate.view} {certificate.value.hex()[:4]}"
    if certificate is not None:
        return f"{name} {certificate.kind} {describe_header(certificate.header)}"
    if isinstance(record, TermRecord):
        return f"{name} v{record.term} {'with my vote' if record.vote else 'without a vote'}"
    certified = getattr(record, "certified", None)
    if certified is not None:
        return f"{name} {describe_epoch(certified)}"
    view = getattr(getattr(record, "change", record), "view", None)
    return f"{name} v{view}" if view is not None else name


def describe_event(event: object) -> str:
    name = type(event).__name__
    if isinstance(event, EpochEntered):
        return f"{name} {describe_epoch(event.certified)} me={event.me}"
    fields = {f: getattr(event, f) for f in event.__slots__ if f not in {"evidence", "state"}}  # type: ignore[attr-defined]
    said = " ".join(f"{key}={value}" for key, value in fields.items())
    return f"{name} {said}"


def replay(text: str) -> str:
    """Run the commands of a trace and return it with what really happened."""
    talk = Conversation()
    blocks: list[str] = []
    for block in text.strip().split("\n\n"):
        lines = block.split("\n")
        at = lines.index("----") if "----" in lines else len(lines)
        commands = lines[:at]
        talk.said.clear()
        for command in commands:
            if not command.startswith("#"):
                talk = run(talk, command)
        blocks.append("\n".join([*commands, "----", *(talk.said or ["ok"])]))
    return "\n\n".join(blocks) + "\n"


def run(talk: Conversation, command: str) -> Conversation:
    """One command of a trace."""
    name, *words = shlex.split(command)
    options = dict(_options(words))
    plain = [word for word in words if "=" not in word]
    if name == "cluster":
        return Conversation(
            **{key: int(v) if v.isdecimal() else v for key, v in options.items()}  # type: ignore[arg-type]
        )
    if name == "submit":
        for key, value in options.items():
            talk.submit(int(plain[0]), key, value)
        return talk
    actions: dict[str, Callable[..., None]] = {
        "deliver": talk.deliver,
        "wait": talk.wait,
        "isolate": talk.isolate,
        "heal": talk.cut.clear,
        "crash": talk.crash,
        "restart": talk.restart,
        "hand-over": talk.hand_over,
        "read": lambda member: talk.read(member, "read"),
        "status": talk.say_status,
        "order": lambda *members: talk.order(list(members)),
        "join": talk.join,
        "alarm": talk.alarm,
    }
    actions[name](*map(int, plain))
    return talk


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        if "=" in word:
            key, value = word.split("=", 1)
            yield key, value
