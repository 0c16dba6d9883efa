"""What takes bytes from strangers, other than the engine: each with frames that it would take.

Replicas take envelopes, hellos and the genesis; clients take answers; the operator takes what
members show. A frame that was changed must be refused, counted, and change nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from client.members import Members, results
from client.test_committed import Cluster
from client.test_reads import Asking
from client.world import World
from dwcp.connection import ClientHello, Incoming, ServerHello, client_hello
from dwcp.identity import Ed25519Verifier
from dwcp.matching import ReplicaMessage, ReplyChecker, content_of
from dwcp.watching import WatchCore, WatchOutput
from dwcp.wire.committed import Committed
from dwcp.wire.decoding import decoder_of
from dwcp.wire.envelope import (
    Batch,
    Envelope,
    EnvelopeBody,
    Rejected,
    Reply,
    batch_digest,
    envelope_signing_bytes,
)
from dwcp.wire.keys import KeyRequest, NextKey, request_key, show_key, shown_fault
from dwcp.wire.operations import (
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    KeyValue,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
)
from dwcp.wire.peer import Entry, Header, PrePrepare
from dwcp.wire.query import Query, QueryBody, QueryReply, query_signing_bytes
from dwcp.wire.records import (
    EpochRecord,
    Identity,
    SignedGenesis,
    genesis_signing_bytes,
    scope_of,
)
from dwcp.wire.watch import LAST, Page, Pull, WatchEvent, encode_events
from dwcp_operator.local.probe import Answer, Probe, ProbeError, StatusBody, checked_genesis
from dwcp_replica.api import connect
from dwcp_replica.api.envelopes import decode_frame, decode_request
from dwcp_replica.api.host import GenesisRefusedError
from dwcp_replica.core.effects import MessageRefused, Received
from dwcp_replica.durable import DataDirectory
from dwcp_replica.net import hello as peer_hello
from dwcp_replica.node.config import Address, NodeConfig
from dwcp_replica.node.genesis import GenesisKeeper
from dwcp_replica.node.reading import read_query
from dwcp_replica.node.rekeying import key_refusal
from dwcp_replica.node.running import RunningReplica
from dwcp_replica.store import KeyStore, RefusalReason, Store
from dwcp_replica.store.records import MemoryRecords
from dwcp_replica.store.watching import look
from replica.core.conversation import Conversation
from replica.mutations import Target
from replica.test_node_backlog import running
from replica.test_node_signatures import CLIENT

encode = msgspec.msgpack.encode
MEMBERS = Members(4)
NONCE = bytes(range(32))
TOKEN = b"one-time token"


def targets(path: Path) -> list[Target]:
    """All of them; `path` is an empty directory. Needs a running event loop."""
    return [
        *client_side(path / "m-0"),
        batches(),
        *greetings(),
        *answers(),
        *bootstrap(path / "test-0"),
        *shown_to_the_operator(),
    ]


def taken_or_not(decode: Callable[[bytes], Any], judge: Callable[[Any], str]) -> Callable[..., str]:
    """Decode, then judge; what does not decode is undecodable, and nothing else may be raised."""

    def take(frame: bytes) -> str:
        try:
            value = decode(frame)
        except msgspec.DecodeError:
            return "undecodable"
        return judge(value)

    return take


# --- a client's envelope, at a replica ------------------------------------------------------------


def client_side(path: Path) -> list[Target]:
    replica = running(path)
    bodies = [
        encode(EnvelopeBody(1, 1, 0, (PutRequest(b"key", b"value"),))),
        encode(EnvelopeBody(7, 3, 2, (RangeRequest(b"a", b"b"), DeleteRangeRequest(b"c")))),
        encode(EnvelopeBody(2**40, 9, 1, (PutRequest(b"k", bytes(200)),) * 3)),
        encode(EnvelopeBody(1, 2, 0, (TXN, LeaseGrantRequest(9, 7), CompactionRequest(3)))),
    ]
    frames = [encode(signed(replica.genesis, body)) for body in bodies]
    reads = [
        encode(QueryBody(bytes(16), (RangeRequest(b"a", b"b"), RangeRequest(b"c", limit=3)))),
        encode(QueryBody(bytes(range(16)), (RangeRequest(b"key", keys_only=True),))),
    ]
    queries = [encode(asked(replica.genesis, body)) for body in reads]
    return [
        Target("Envelope", frames, Requests(replica, frames).take),
        Target("Query", queries, Requests(replica, queries).take),
        Target("EnvelopeBody", bodies, SignedBodies(replica.genesis).take),
        Target("Pull", [encode(PULL)], taken_or_not(decode_frame, Watching().judge)),
        Target("QueryBody", reads, SignedQuestions(replica.genesis).take),
    ]


def signed(genesis: EpochRecord, body: bytes) -> Envelope:
    sig = CLIENT.sign(envelope_signing_bytes(genesis.hash(), body))
    return Envelope(CLIENT.public_key, body, sig)


def asked(genesis: EpochRecord, body: bytes) -> Query:
    sig = CLIENT.sign(query_signing_bytes(genesis.hash(), body))
    return Query(CLIENT.public_key, body, sig)


@dataclass
class Requests:
    """A running replica's admission: every refusal is answered and counted."""

    replica: RunningReplica
    genuine: list[bytes]

    def take(self, frame: bytes) -> str:
        asked = decode_request(frame)
        if not isinstance(asked, Envelope | Query):
            return "undecodable"
        if encode(asked) in self.genuine:
            return "same"
        found: list[object] = []
        before = self._refused()
        if isinstance(asked, Envelope):
            self.replica.admission.admit(asked, found.append)
        else:
            self.replica.admission.ask(asked, found.append)
        assert isinstance(found[0], Rejected), found
        assert self._refused() == before + 1, "a refusal was not counted"
        assert not len(self.replica.engine.inbox), "the engine must not hear of it"
        return "refused"

    def _refused(self) -> float:
        (metric,) = self.replica.admission._metrics.rejected.collect()
        return sum(s.value for s in metric.samples if s.name.endswith("_total"))


class SignedBodies:
    """A client that signs what it likes: whatever two stores make of it, they agree."""

    def __init__(self, genesis: EpochRecord) -> None:
        self._genesis = genesis
        self._stores = [Store(genesis), Store(genesis)]
        self._index = 0

    def take(self, body: bytes) -> str:
        envelope = signed(self._genesis, body)
        self._index += 1
        batch = Batch(1_700_000_000_000 + self._index, (envelope,))
        outcomes = [store.apply(self._index, batch) for store in self._stores]
        assert outcomes[0] == outcomes[1]
        if self._index % 100 == 0:
            assert len({store.digest() for store in self._stores}) == 1
        try:
            decoder_of(EnvelopeBody)(body)
        except msgspec.DecodeError:
            return "undecodable"
        return "a request"


PULL = Pull(1, b"a", b"c", (3, 1), ("NOPUT",), prev_kv=True)
TXN = TxnRequest(
    (Compare(b"a", "VERSION", "LESS", version=3),), (PutRequest(b"a"),), (TxnRequest(),)
)


class Watching:
    """A client may ask for what it likes: two stores see the same."""

    def __init__(self) -> None:
        self._stores = [KeyStore(MemoryRecords()), KeyStore(MemoryRecords())]
        for store in self._stores:
            for i in range(9):
                store.execute(PutRequest(b"%c" % (97 + i % 3), b"%d" % i), 1000)
            store.execute(CompactionRequest(4), 1000)

    def judge(self, asked: object) -> str:
        if not isinstance(asked, Pull):
            return "undecodable"
        seen = {look(store.keys, asked, bytes_max=200, events_max=5) for store in self._stores}
        assert len(seen) == 1
        assert seen.pop().upto >= asked.after
        return "a request"


class SignedQuestions:
    """The same for reads beside the log: they change nothing, and two stores agree."""

    def __init__(self, genesis: EpochRecord) -> None:
        self._genesis = genesis
        self._stores = [Store(genesis), Store(genesis)]
        self._digest = self._stores[0].digest()

    def take(self, body: bytes) -> str:
        found = read_query(asked(self._genesis, body))
        if not isinstance(found, QueryBody):
            return "undecodable" if found[0] == RefusalReason.MALFORMED else "refused"
        shown = {store.read(CLIENT.public_key, found.operations) for store in self._stores}
        assert len(shown) == 1
        assert self._stores[0].digest() == self._digest
        return "a request"


def batches() -> Target:
    """A primary that signs a batch which it has garbled."""
    talk = Conversation()
    envelopes = tuple(talk.envelope(key, "value") for key in "abc")
    genuine = encode(Batch(1_700_000_001_000, envelopes))
    scope = scope_of(talk.genesis, talk.genesis)

    def take(body: bytes) -> str:
        engine = talk.replicas[1]
        before = engine.standing()
        header = Header(0, 1, 1, batch_digest(body), talk.genesis.start_hash, bytes(64))
        sig = talk.signers[0].sign(header.signing_bytes(scope))
        entry = Entry(msgspec.structs.replace(header, sig=sig), body)
        ready = engine.step(Received(0, PrePrepare(entry)))
        reasons = [e.reason for e in ready.events if isinstance(e, MessageRefused)]
        if not reasons:  # it holds after all: only its time or what is skipped was changed
            assert decoder_of(Batch)(body).envelopes == envelopes
            talk.replicas[1] = talk._engine(1)
            talk._act(1, talk_tick(talk))
            return "same"
        assert engine.standing() == before
        assert not ready.persist
        return "undecodable" if reasons == ["body"] else "refused"

    return Target("Batch", [genuine], take)


def talk_tick(talk: Conversation) -> Any:
    from dwcp_replica.core.effects import Tick

    return Tick(talk.now_ms, 1_700_000_000_000 + talk.now_ms)


# --- the first frames of a connection ----------------------------------------------------------


@dataclass
class Service:
    """What check_hello asks of a running replica."""

    genesis: EpochRecord
    verifier: Ed25519Verifier


def greetings() -> list[Target]:
    genesis = MEMBERS.genesis
    locals_ = [
        peer_hello.LocalMember(genesis.hash(), 0, signer, member.certificate)
        for signer, member in zip(MEMBERS.signers, genesis.members, strict=True)
    ]
    challenge = encode(peer_hello.Challenge(NONCE))
    dialed = peer_hello.answer(locals_[2], genesis.members[0].certificate, challenge)
    greeting = ServerHello(NONCE, genesis.members[0].identity)
    answered = encode(client_hello(genesis.hash(), MEMBERS.client, greeting))
    service: Any = Service(genesis, MEMBERS.verifier)
    shown = connect.ServerHello(NONCE, genesis.members[0].identity)

    checked = (locals_[0], genesis.member_with, MEMBERS.verifier)

    def to_a_challenge(frame: bytes) -> str:
        peer_hello.answer(locals_[2], genesis.members[0].certificate, frame)
        return "of no consequence"

    def to_a_peer(frame: bytes) -> str:
        return (
            "same"
            if hello_of(frame) == hello_of(dialed)
            else reason_of(lambda: peer_hello.check(*checked, NONCE, frame))
        )

    def to_a_client(frame: bytes) -> str:
        same = client_hello_of(frame) == client_hello_of(answered)
        return "same" if same else reason_of(lambda: connect.check_hello(service, shown, frame))

    hello_of = decoder_of(peer_hello.Hello)
    client_hello_of = decoder_of(ClientHello)
    decode_greeting = decoder_of(ServerHello)
    return [
        Target("Challenge", [challenge], undecodable_or(to_a_challenge)),
        Target("Hello", [dialed], undecodable_or(to_a_peer)),
        Target("ClientHello", [answered], undecodable_or(to_a_client)),
        Target(
            "ServerHello",
            [encode(greeting)],
            taken_or_not(decode_greeting, lambda g: greeted(genesis, g)),
        ),
    ]


def greeted(genesis: EpochRecord, greeting: ServerHello) -> str:
    """A client answers any nonce: its signature over it opens no other connection."""
    client_hello(genesis.hash(), MEMBERS.client, greeting)
    return "of no consequence"


def undecodable_or(take: Callable[[bytes], str]) -> Callable[[bytes], str]:
    def taken(frame: bytes) -> str:
        try:
            return take(frame)
        except msgspec.DecodeError:
            return "undecodable"

    return taken


def reason_of(check: Callable[[], object]) -> str:
    """Refused with a reason that is counted, or let in, which must not happen."""
    try:
        check()
    except (peer_hello.HelloError, connect.HelloError) as refused:
        return "undecodable" if refused.reason == "hello-malformed" else "refused"
    raise AssertionError("a changed hello was taken")


# --- answers, at a client -------------------------------------------------------------------------


def answers() -> list[Target]:
    return [
        Answers("Reply").target(),
        Answers("Busy").target(),
        Answers("Rejected").target(),
        QueryAnswers().target(),
        proven_answers(),
        WatchAnswers().target(),
    ]


class Answers:
    """A client that waits for one answer, and hears only changed ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.world = World(seed=1)
        self.world.connect()
        self.world.submit(PutRequest(b"k", b"v"))
        self._execute()  # the session opens
        (self.envelope,) = {e.digest(): e for _, e in self.world.poll()}.values()
        self.world.order(self.envelope)
        self.genuine: dict[bytes, int] = {}
        if kind == "Reply":
            self.genuine = {encode(self.world.apply(m)[0]): m for m in range(4)}
        elif kind == "Busy":
            self.genuine = {encode(self.world.members.busy(0, self.envelope, 100)): 0}
        else:
            refused = self.world.members.rejected(0, self.envelope, "unknown-client", "not known")
            self.genuine = {encode(refused): 0}
        self._decode = decoder_of(ReplicaMessage)

    def _execute(self) -> None:
        for envelope in {e.digest(): e for _, e in self.world.poll()}.values():
            self.world.order(envelope)
        for member in range(4):
            for reply in self.world.apply(member):
                self.world.receive(member, reply)

    def target(self) -> Target:
        return Target(self.kind, list(self.genuine), taken_or_not(self._decode, self.judge))

    def judge(self, message: ReplicaMessage) -> str:
        member = getattr(message, "member", 0)
        if isinstance(message, Reply):
            if encode(msgspec.structs.replace(message, view=1)) in self.genuine:
                return "same"  # the view is a hint that no signature covers
            member = min(member, 3)
        core = self.world.core
        before = core.refused.total()
        core.received(member, message, self.world.now_ms)
        out = core.poll(self.world.now_ms)
        assert not out.outcomes, message
        assert not out.lies, message
        return "refused" if core.refused.total() > before else "of no consequence"

    def answered(self) -> bool:
        """The genuine answers still count."""
        core = self.world.core
        for frame, member in self.genuine.items():
            core.received(member, self._decode(frame), self.world.now_ms)
        return bool(core.poll(self.world.now_ms).outcomes)


def proven_answers() -> Target:
    """A client under Crash trust, to which one reply with its proof is enough: what it believes
    is what the cluster has executed, whatever was changed around it."""
    cluster = Cluster()
    truth = content_of(cluster.reply())

    def take(message: ReplicaMessage) -> str:
        collector = cluster.collector()
        finding = collector.add(min(message.member, 2), message)
        if collector.answer is None:
            assert finding.refused, message
            return "refused"
        answer = collector.answer
        assert (answer.index, answer.revision, answer.results) == truth, message
        assert isinstance(message, Committed), message
        assert any(proves_no_more(message, one) for one in genuine), message
        return "same"

    genuine = [cluster.answer(member) for member in range(3)]
    frames = [encode(one) for one in genuine]
    return Target("Committed", frames, taken_or_not(decoder_of(ReplicaMessage), take))


def proves_no_more(changed: Committed, genuine: Committed) -> bool:
    """The same chain and certificate, with some of its votes in any order."""
    one, other = changed.certificate, genuine.certificate
    return (
        [header.hash() for header in changed.headers] == [h.hash() for h in genuine.headers]
        and (one.kind, one.header, one.state) == (other.kind, other.header, other.state)
        and set(one.votes) <= set(other.votes)
    )


class QueryAnswers:
    """A client that waits for the answer to a query, and hears only changed ones."""

    def __init__(self) -> None:
        self.asking = Asking()
        self.ticket, query = self.asking.ask(RangeRequest(b"key"))
        content = results(RangeResponse())
        replies = [self.asking.members.query_reply(m, query, content) for m in range(4)]
        self.genuine = [encode(reply) for reply in replies]
        self._decode = decoder_of(ReplicaMessage)

    def target(self) -> Target:
        return Target("QueryReply", self.genuine, taken_or_not(self._decode, self.judge))

    def judge(self, message: ReplicaMessage) -> str:
        hinted = isinstance(message, QueryReply)  # the view is a hint that no signature covers
        if hinted and encode(msgspec.structs.replace(message, view=1)) in self.genuine:
            return "same"
        core = self.asking.core
        before = core.refused.total()
        core.received(min(getattr(message, "member", 0), 3), message, self.asking.now_ms)
        self.asking.poll()
        assert self.ticket not in self.asking.outcomes, message
        assert not self.asking.lies, message
        return "refused" if core.refused.total() > before else "of no consequence"


class WatchAnswers:
    """A client that watches, and hears only changed pages."""

    def __init__(self) -> None:
        members = MEMBERS
        self._core = WatchCore(ReplyChecker(members.genesis, members.verifier))
        for member in range(4):
            self._core.connected(member)
        self._core.add(b"k", b"", 1)
        kv = KeyValue(b"k", 2, 2, 1, b"v")
        events = encode_events((WatchEvent("PUT", kv),))
        self.genuine = [
            encode(members.sign_page(Page(pull.digest(), (3, LAST), events, 0, 0, m, bytes(64))))
            for m, pull in self._core.poll().send
        ]

    def target(self) -> Target:
        return Target("Page", self.genuine, taken_or_not(decoder_of(Incoming), self.judge))

    def judge(self, message: object) -> str:
        if not isinstance(message, Page):
            return "of no consequence"  # the session takes it
        if encode(message) in self.genuine:
            return "same"
        before = self._core.refused.total()
        self._core.received(min(message.member, 3), message)
        out = self._core.poll()
        assert out == WatchOutput(), out
        assert self._core.refused.total() == before + 1
        return "refused"


# --- the genesis, at a waiting replica ---------------------------------------------------------


def bootstrap(path: Path) -> list[Target]:
    path.mkdir()
    directory = DataDirectory.open(path, name="test-0", cluster="test")
    nowhere = Address("127.0.0.1", 0)
    config = NodeConfig(path, "test-0", "test", "default", nowhere, nowhere, TOKEN)
    keeper = GenesisKeeper(config, directory)
    me = msgspec.structs.replace(
        MEMBERS.genesis.members[0],
        identity=directory.signer.public_key,
        certificate=directory.certificate_fingerprint,
    )
    record = msgspec.structs.replace(MEMBERS.genesis, members=(me, *MEMBERS.genesis.members[1:]))
    message = genesis_signing_bytes(record)
    sigs = tuple(s.sign(message) for s in MEMBERS.signers)
    admin = MEMBERS.admin.sign(message)
    offers = [
        SignedGenesis(record, admin, (b"", *sigs[1:])),
        SignedGenesis(record, admin, (b"", b"", b"", b"")),
    ]

    def offered(offer: SignedGenesis) -> str:
        known = all(sig in (b"", *sigs[1:]) for sig in offer.member_sigs)
        if (offer.record, offer.admin_sig) == (record, admin) and known:
            return "same"  # signatures may be missing
        mac = hmac.digest(TOKEN, b"genesis" + offer.record.hash(), hashlib.sha256)
        try:
            keeper.offer(offer, mac)
        except GenesisRefusedError:
            assert directory.genesis is None
            return "refused"
        raise AssertionError(f"taken: {offer}")

    frames = [encode(offer) for offer in offers]
    return [Target("SignedGenesis", frames, taken_or_not(decoder_of(SignedGenesis), offered))]


# --- what members show to the operator ---------------------------------------------------------


class Canned(Probe):
    """A member that always gives the same answer."""

    def __init__(self, body: bytes, sign: Callable[[bytes], str] | None = None) -> None:
        self.name = "test-1"
        self._body = body
        self._sign = sign

    async def _request(self, _method: str, path: str, **_ignored: Any) -> Answer:
        headers = {}
        if self._sign is not None:
            nonce = bytes.fromhex(path.partition("nonce=")[2])
            headers["DWCP-Signature"] = self._sign(nonce + self._body)
        return Answer(200, headers, self._body)


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def shown_to_the_operator() -> list[Target]:
    from base64 import b64encode

    genesis, signer = MEMBERS.genesis, MEMBERS.signers[1]
    scope = scope_of(genesis, genesis)
    certificate = genesis.members[1].certificate
    unsigned = Identity("test-1", signer.public_key, certificate, bytes(64), bytes(32))
    proven = msgspec.structs.replace(unsigned, proof=signer.sign(unsigned.claim()))
    mac = hmac.digest(TOKEN, proven.claim(), hashlib.sha256)
    identity = msgspec.json.encode(msgspec.structs.replace(proven, mac=mac))
    status = msgspec.json.encode(STATUS)

    def sign(message: bytes) -> str:
        return b64encode(signer.sign(scope.signing_bytes("status", message))).decode()

    def identified(body: bytes) -> str:
        shown = at_once(Canned(body).identity(TOKEN, None))
        assert shown == msgspec.json.decode(identity, type=Identity)
        return "same"

    def reported(body: bytes) -> str:
        at_once(Canned(body, sign).report(genesis, "now"))
        return "of no consequence"  # one member's claim, signed: it may say what it likes

    def forged(signature: bytes) -> str:
        said = signature.decode("utf-8", "surrogateescape")
        at_once(Canned(status, lambda _message: said).report(genesis, "now"))
        raise AssertionError("a false signature was believed")

    def shown(body: bytes) -> str:
        assert checked_genesis("test-1", body).record == genesis
        return "same"

    request = request_key(genesis, scope, "test-1", MEMBERS.admin)
    next_key = encode(show_key(request, scope, signer, MEMBERS.client))

    def keyed(told: NextKey) -> str:
        if encode(told) == next_key:
            return "same"
        assert shown_fault(genesis, scope, request, told, MEMBERS.verifier) is not None, told
        return "refused"

    def asked(message: KeyRequest) -> str:
        if message == request:
            return "same"
        refusal = key_refusal(message, (genesis, genesis), 1, settling=False, mute=None)
        assert refusal is not None, message
        return "refused"

    whole = encode(MEMBERS.signed_genesis())
    return [
        Target("Identity", [identity], refused_or(identified)),
        Target("Status (signed)", [status], refused_or(reported)),
        Target("DWCP-Signature", [sign(b"another").encode()], refused_or(forged)),
        Target("KeyRequest", [encode(request)], taken_or_not(decoder_of(KeyRequest), asked)),
        Target("NextKey", [next_key], taken_or_not(decoder_of(NextKey), keyed)),
        Target("SignedGenesis (shown)", [whole], refused_or(shown)),
    ]


STATUS = StatusBody(
    name="test-1", id=1, phase="Running", mode="pbft", epoch=0, view=3, active=True,
    primary="test-2", role="backup", final_index=9, applied_index=9, stable_checkpoint=0,
    stable_state=None, ready=True, mute=None, evidence=(),
)  # fmt: skip


def refused_or(take: Callable[[bytes], str]) -> Callable[[bytes], str]:
    """The operator refuses with a sentence, and with nothing else."""

    def taken(frame: bytes) -> str:
        try:
            return take(frame)
        except ProbeError as refused:
            return "undecodable" if "malformed" in str(refused) else "refused"

    return taken
