"""Real replicas on loopback, and someone who plays the operator and the client for them.

`Operator` goes the way of the real one: it collects identities, makes the genesis, has it signed
and hands it out complete. `Processes` starts each replica as a process of its own; `Tasks` runs
them in the test's event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import io
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from dwcp.certificates import TlsFiles
from dwcp.epochs import Invitation, RecordChain, sign_anchor
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.matching import ReplyChecker
from dwcp.wire.committed import Committed
from dwcp.wire.envelope import (
    Busy,
    Envelope,
    EnvelopeBody,
    Rejected,
    Reply,
    decode_results,
    envelope_signing_bytes,
    reply_signing_bytes,
)
from dwcp.wire.epochs import Records
from dwcp.wire.keys import NextKey, request_key
from dwcp.wire.operations import (
    OpenSession,
    Operation,
    PutRequest,
    RangeRequest,
    Result,
    SessionOpened,
)
from dwcp.wire.query import Query, QueryBody, QueryReply, query_signing_bytes
from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Identity,
    Member,
    ModePolicy,
    Origin,
    Parameters,
    Protocol,
    SignedGenesis,
    Trust,
    genesis_signing_bytes,
    is_complete,
    scope_of,
    start_hash,
)
from dwcp.wire.signing import ZERO_HASH
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.node.config import LOG_BYTES_MIN, USUAL, Address, Feature, NodeConfig
from dwcp_replica.node.process import ReplicaProcess
from dwcp_replica.sim.strategies import strategy_hooks
from replica.ports import free_port
from replica.waiting import until

Answer = Reply | Committed | QueryReply | Busy | Rejected
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
CLUSTER = "test"
NAMESPACE = "default"
QUICK = Parameters(checkpoint_interval=10, request_timeout_ms=2000)


@dataclass
class Place:
    """Where one member lives."""

    name: str
    data: Path
    token_file: Path
    client_port: int = field(default_factory=free_port)
    peer_port: int = field(default_factory=free_port)
    reach_port: int | None = None
    """Where the other members reach it, when a proxy stands before its peer port."""
    client_tls: bool = False
    client_tls_files: TlsFiles | None = None
    restore: str | None = None

    @classmethod
    def make(cls, directory: Path, number: int) -> Self:
        place = cls(
            name=f"{CLUSTER}-{number}",
            data=directory / f"{CLUSTER}-{number}",
            token_file=directory / f"token-{number}",
        )
        place.data.mkdir(parents=True)
        place.token_file.write_text(secrets.token_hex(16) + "\n")
        return place

    @property
    def token(self) -> bytes:
        return self.token_file.read_bytes().strip()

    @property
    def url(self) -> str:
        tls = self.client_tls or self.client_tls_files is not None
        return f"{'https' if tls else 'http'}://127.0.0.1:{self.client_port}"

    def config(self, log_bytes: int = LOG_BYTES_MIN) -> NodeConfig:
        return NodeConfig(
            log_bytes=log_bytes,
            data=self.data,
            name=self.name,
            cluster=CLUSTER,
            namespace=NAMESPACE,
            client_listen=Address("127.0.0.1", self.client_port),
            peer_listen=Address("127.0.0.1", self.peer_port),
            token=self.token,
            client_tls=self.client_tls,
            client_tls_files=self.client_tls_files,
            restore=self.restore,
        )

    def arguments(self) -> list[str]:
        return [
            sys.executable, "-m", "dwcp_replica",
            "--data", str(self.data),
            "--name", self.name,
            "--cluster", CLUSTER,
            "--namespace", NAMESPACE,
            "--client-listen", f"127.0.0.1:{self.client_port}",
            "--peer-listen", f"127.0.0.1:{self.peer_port}",
            "--token-file", str(self.token_file),
            *(["--client-tls"] if self.client_tls else []),
        ]  # fmt: skip


def decode_answer(frame: bytes) -> Answer:
    """What a replica answered."""
    return _answers.decode(frame)


class Http:
    """A few calls to replicas."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        return self._session

    async def call(
        self, method: str, url: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else io.BytesIO(body)
        async with self._session.request(
            method, url, data=data, headers=named, ssl=False
        ) as response:
            return response.status, await response.read(), dict(response.headers)

    async def status(self, place: Place) -> dict[str, Any]:
        code, body, _ = await self.call("GET", f"{place.url}/dwcp/v1/status")
        assert code == 200
        found: dict[str, Any] = msgspec.json.decode(body)
        return found

    async def metric(self, place: Place, name: str) -> float:
        """A metric's value, named with its labels as Prometheus prints it; 0 when absent."""
        _, body, _ = await self.call("GET", f"{place.url}/metrics")
        for line in body.decode().splitlines():
            if line.rpartition(" ")[0] == name:
                return float(line.rpartition(" ")[2])
        return 0.0

    async def is_up(self, place: Place) -> bool:
        with suppress(aiohttp.ClientError):
            code, _, _ = await self.call("GET", f"{place.url}/healthz")
            return code == 200
        return False

    async def is_ready(self, place: Place) -> bool:
        with suppress(aiohttp.ClientError):
            code, _, _ = await self.call("GET", f"{place.url}/readyz")
            return code == 200
        return False

    async def eventually(self, check: Any, *, what: str, seconds: float = 20.0) -> None:
        """Wait until `await check()` holds."""
        deadline = time.monotonic() + seconds
        while not await check():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            await asyncio.sleep(0.02)

    async def all_ready(self, places: Iterable[Place]) -> None:
        for place in places:
            await self.eventually(lambda p=place: self.is_ready(p), what=f"{place.name} is ready")

    async def post(
        self, place: Place, envelope: Envelope | Query, timeout_ms: int = 10_000
    ) -> Answer:
        url = f"{place.url}/dwcp/v1/envelopes?timeout_ms={timeout_ms}"
        code, body, headers = await self.call("POST", url, msgspec.msgpack.encode(envelope))
        assert headers["Content-Type"] == "application/msgpack", (code, body)
        return decode_answer(body)

    async def post_all(self, places: Iterable[Place], envelope: Envelope) -> list[Reply]:
        """Send to every replica; every answer must be a reply."""
        answers = await asyncio.gather(*(self.post(place, envelope) for place in places))
        said = [a.reply if isinstance(a, Committed) else a for a in answers]
        replies = [answer for answer in said if isinstance(answer, Reply)]
        assert len(replies) == len(answers), answers
        return replies


class Operator:
    """Makes clusters out of waiting replicas."""

    def __init__(self, http: Http, clients: Sequence[Ed25519Signer] = ()) -> None:
        self.protocol: Protocol = "pbft"
        self.trust: Trust = "Byzantine"
        self.modes: ModePolicy | None = None
        self.admin = Ed25519Signer.generate()
        self.clients = list(clients)
        self.origin: Origin | None = None
        self._http = http
        self._verifier = Ed25519Verifier()

    async def identity(self, place: Place) -> Identity:
        """A replica's identity, its proof and its MAC checked."""
        code, body, _ = await self._http.call("GET", f"{place.url}/dwcp/v1/identity")
        assert code == 200
        identity = msgspec.json.decode(body, type=Identity)
        claim = identity.claim()
        assert identity.name == place.name
        assert self._verifier.verify(identity.identity, claim, identity.proof)
        assert identity.mac == hmac.digest(place.token, claim, hashlib.sha256)
        return identity

    async def make_genesis(
        self, places: Sequence[Place], parameters: Parameters = QUICK
    ) -> SignedGenesis:
        """A genesis of these replicas, signed by the admin alone."""
        identities = [await self.identity(place) for place in places]
        cluster_id = secrets.token_bytes(16)
        record = EpochRecord(
            cluster_id=cluster_id,
            cluster=CLUSTER,
            namespace=NAMESPACE,
            epoch=0,
            protocol=self.protocol,
            trust=self.trust,
            members=tuple(
                Member(
                    i.name,
                    i.identity,
                    i.certificate,
                    f"127.0.0.1:{p.reach_port or p.peer_port}",
                    p.url,
                )
                for i, p in zip(identities, places, strict=True)
            ),
            clients=tuple(
                ClientIdentity(f"client-{n}", key.public_key) for n, key in enumerate(self.clients)
            ),
            admin=self.admin.public_key,
            parameters=msgspec.structs.replace(parameters, modes=self.modes or parameters.modes),
            start_index=0,
            start_hash=start_hash(cluster_id),
            leader=0,
            previous=ZERO_HASH if self.origin is None else self.origin.hash(),
        )
        return self.sign(record)

    def sign(self, record: EpochRecord) -> SignedGenesis:
        """The record with the admin's signature and no member's."""
        signature = self.admin.sign(genesis_signing_bytes(record))
        return SignedGenesis(record, signature, (b"",) * len(record.members), self.origin)

    async def offer(
        self, place: Place, genesis: SignedGenesis, token: bytes | None = None
    ) -> tuple[int, bytes]:
        """PUT a genesis to one replica."""
        message = b"genesis" + genesis.record.hash()
        mac = hmac.digest(token or place.token, message, hashlib.sha256).hex()
        url = f"{place.url}/dwcp/v1/genesis"
        body = msgspec.msgpack.encode(genesis)
        code, answer, _ = await self._http.call("PUT", url, body, DWCP_Token_MAC=mac)
        return code, answer

    async def collect(self, places: Sequence[Place], genesis: SignedGenesis) -> SignedGenesis:
        """Have every replica sign."""
        for place in places:
            code, body = await self.offer(place, genesis)
            assert code == 200, body
            genesis = msgspec.msgpack.decode(body, type=SignedGenesis)
        assert is_complete(genesis)
        return genesis

    async def bootstrap(
        self, places: Sequence[Place], parameters: Parameters = QUICK
    ) -> SignedGenesis:
        """Turn waiting replicas into a cluster that is ready."""
        for place in places:
            await self._http.eventually(lambda p=place: self._http.is_up(p), what=place.name)
        genesis = await self.collect(places, await self.make_genesis(places, parameters))
        for place in places:
            code, _ = await self.offer(place, genesis)
            assert code == 200
        await self._http.all_ready(places)
        return genesis

    async def invite(self, place: Place, genesis: SignedGenesis, records: RecordChain) -> Member:
        """Invite a waiting replica into a cluster that runs; how its member is to be named."""
        await self._http.eventually(lambda: self._http.is_up(place), what=place.name)
        shown = await self.identity(place)
        anchor = sign_anchor(records.genesis, records.current, self.admin)
        invitation = Invitation(genesis, tuple(records.certified), anchor)
        code, answer = await self.offer_invitation(place, msgspec.msgpack.encode(invitation))
        assert code == 200, answer
        peer = f"127.0.0.1:{place.peer_port}"
        return Member(shown.name, shown.identity, shown.certificate, peer, place.url)

    async def offer_invitation(self, place: Place, body: bytes) -> tuple[int, bytes]:
        """PUT an invitation to one replica."""
        message = b"join" + hashlib.sha256(body).digest()
        mac = hmac.digest(place.token, message, hashlib.sha256).hex()
        url = f"{place.url}/dwcp/v1/join"
        code, answer, _ = await self._http.call("PUT", url, body, DWCP_Token_MAC=mac)
        return code, answer

    def order(
        self, records: RecordChain, members: Sequence[Member], force: Protocol | None = None,
        *, release: bool = False,
    ) -> bytes:  # fmt: skip
        """The admin's order that the present record be followed by one with these members.

        With `force` the protocol too changes, and is held until an order with `release`.
        """
        record = records.current
        unsigned = AdminSwitch(record.epoch, record.protocol, tuple(members), bytes(64))
        if force is not None:
            unsigned = msgspec.structs.replace(unsigned, protocol=force, hold="force")
        if release:
            unsigned = msgspec.structs.replace(unsigned, hold="release")
        sig = self.admin.sign(unsigned.signing_bytes(scope_of(records.genesis, record)))
        return msgspec.msgpack.encode(msgspec.structs.replace(unsigned, sig=sig))

    async def next_key(self, place: Place, records: RecordChain, **changed: Any) -> NextKey:
        """The key that a member makes when the admin asks it to."""
        code, body = await self.ask_key(place, records, **changed)
        assert code == 200, body
        return msgspec.msgpack.decode(body, type=NextKey)

    async def ask_key(
        self, place: Place, records: RecordChain, name: str = "", by: Ed25519Signer | None = None,
        epoch: int | None = None,
    ) -> tuple[int, bytes]:  # fmt: skip
        """What a member says to a request for its next key."""
        record = records.current
        scope = scope_of(records.genesis, record)
        if epoch is not None:
            record = msgspec.structs.replace(record, epoch=epoch)
        request = request_key(record, scope, name or place.name, by or self.admin)
        url = f"{place.url}/dwcp/v1/keys"
        code, body, _ = await self._http.call("POST", url, msgspec.msgpack.encode(request))
        return code, body

    async def post(self, places: Iterable[Place], what: str, order: bytes) -> None:
        """Bring an order to these replicas, as "orders" or as "learners"."""
        for place in places:
            code, answer, _ = await self._http.call("POST", f"{place.url}/dwcp/v1/{what}", order)
            assert code == 202, answer


class RawClient:
    """Signs envelopes; knows nothing of sending."""

    def __init__(self, genesis: EpochRecord, signer: Ed25519Signer) -> None:
        self.signer = signer
        self.session = 0
        self.records = RecordChain(genesis, Ed25519Verifier())
        self._genesis = genesis
        self._sequence = 0
        self._verifier = Ed25519Verifier()
        self.checker = ReplyChecker(genesis, self._verifier)

    def sign(self, body: bytes) -> Envelope:
        signature = self.signer.sign(envelope_signing_bytes(self._genesis.hash(), body))
        return Envelope(self.signer.public_key, body, signature)

    def envelope(self, *operations: Operation, session: int | None = None) -> Envelope:
        """The next envelope of the session."""
        self._sequence += 1
        number = self.session if session is None else session
        body = EnvelopeBody(number, self._sequence, self._sequence - 1, operations)
        return self.sign(msgspec.msgpack.encode(body))

    def put(self, key: bytes, value: bytes = b"") -> Envelope:
        return self.envelope(PutRequest(key, value))

    def query(self, *reads: RangeRequest) -> Query:
        return self.sign_query(msgspec.msgpack.encode(QueryBody(secrets.token_bytes(16), reads)))

    def sign_query(self, body: bytes) -> Query:
        signature = self.signer.sign(query_signing_bytes(self._genesis.hash(), body))
        return Query(self.signer.public_key, body, signature)

    async def follow(self, http: Http, place: Place) -> int:
        """Verify the epoch records that one replica shows; the newest epoch."""
        code, body, _ = await http.call("GET", f"{place.url}/dwcp/v1/epochs?from=0")
        assert code == 200
        fault = self.records.extend(msgspec.msgpack.decode(body, type=Records).records)
        assert fault is None, fault
        return self.records.current.epoch

    def opening(self) -> Envelope:
        operation = OpenSession(secrets.token_bytes(16), int(time.time() * 1000))
        return self.sign(msgspec.msgpack.encode(EnvelopeBody(0, 0, 0, (operation,))))

    def opened(self, reply: Reply) -> None:
        (result,) = decode_results(reply.results)
        assert isinstance(result, SessionOpened), result
        self.session = result.session

    def agreed(self, replies: Sequence[Reply]) -> tuple[Result, ...]:
        """The results, when all replies are signed by distinct members and match."""
        assert len({reply.member for reply in replies}) == len(replies)
        for reply in replies:
            record = self.records.record(reply.epoch)
            assert record is not None, f"epoch {reply.epoch} is not known: follow first"
            scope = scope_of(self._genesis, record)
            key = record.members[reply.member].identity
            assert self._verifier.verify(key, reply_signing_bytes(scope, reply), reply.sig)
        assert len({(r.request, r.index, r.revision, r.results) for r in replies}) == 1, replies
        return decode_results(replies[0].results)


class Processes:
    """Replicas as processes; whatever still runs is killed at the end."""

    def __init__(self, directory: Path, count: int = 4) -> None:
        self.directory = directory
        self.places = [Place.make(directory, number) for number in range(count)]
        self.client = Ed25519Signer.generate()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()

    def start(self, place: Place, *more: str, **environment: str) -> subprocess.Popen[bytes]:
        with self.log(place).open("ab") as log:
            process = subprocess.Popen(
                [*place.arguments(), *more],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        self._running[place.name] = process
        return process

    def run(
        self, place: Place, *more: str, options: Sequence[str] = (), **environment: str
    ) -> tuple[int, str]:
        """Run one that ends by itself; its exit code and what it said."""
        program, *arguments = place.arguments()
        done = subprocess.run(
            [program, *options, *arguments, *more],
            check=False,
            capture_output=True,
            timeout=20,
            env={**os.environ, **environment},
        )
        return done.returncode, done.stderr.decode()

    def start_all(self) -> None:
        for place in self.places:
            self.start(place)

    def log(self, place: Place) -> Path:
        return self.directory / f"{place.name}.log"

    def signal(self, place: Place, number: signal.Signals) -> None:
        self._running[place.name].send_signal(number)

    def wait(self, place: Place, seconds: float = 10.0) -> int:
        """The exit code."""
        return self._running[place.name].wait(seconds)

    def kill(self, place: Place) -> None:
        self.signal(place, signal.SIGKILL)
        self.wait(place)


class Tasks:
    """Replicas in this event loop."""

    def __init__(
        self, directory: Path, count: int = 4, liars: Mapping[int, str] | None = None,
        log_bytes: int = LOG_BYTES_MIN, features: Mapping[int, frozenset[Feature]] | None = None,
    ) -> None:  # fmt: skip
        self._log_bytes = log_bytes
        self._features = features or {}
        self._directory, self._made = directory, count
        self.genesis: SignedGenesis
        self.places = [Place.make(directory, number) for number in range(count)]
        self.client = Ed25519Signer.generate()
        self._liars = liars or {}
        self.running: dict[str, ReplicaProcess] = {}
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self.http = Http()
        self.operator = Operator(self.http, [self.client])

    async def __aenter__(self) -> Self:
        for number, place in enumerate(self.places):
            self.start(place, self._liars.get(number))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await self.http.session.close()
        await asyncio.wait(self._tasks.values())

    def start(
        self, place: Place, strategy: str | None = None, *, token: bool = True
    ) -> ReplicaProcess:
        make_hooks = None if strategy is None else partial(strategy_hooks, strategy)
        number = self.places.index(place) if place in self.places else self._made - 1
        features = self._features.get(number, USUAL)
        config = replace(place.config(self._log_bytes), features=features)
        if not token:
            config = replace(config, token=None)
        replica = ReplicaProcess(config, make_hooks)
        self.running[place.name] = replica
        self._tasks[place.name] = asyncio.create_task(replica.run())
        return replica

    async def invite(self, records: RecordChain) -> tuple[Place, Member]:
        """Start another replica, and invite it."""
        place = Place.make(self._directory, self._made)
        self._made += 1
        self.start(place)
        return place, await self.operator.invite(place, self.genesis, records)

    async def stop(self, place: Place) -> int:
        """Stop one as SIGTERM would; its exit code."""
        self.running[place.name].stop()
        return await self.ended(place)

    async def ended(self, place: Place) -> int:
        """Wait for the end of one; raises what it failed with."""
        self.running.pop(place.name)
        return await self._tasks.pop(place.name)

    def _is_meshed(self) -> bool:
        members = [replica.running for replica in self.running.values()]
        return all(
            member is not None
            and all(member.mesh.connected(n) for n in range(len(members)) if n != member.me)
            for member in members
        )

    async def bootstrap(self) -> RawClient:
        """Make it a cluster; a client with an open session."""
        genesis = self.genesis = await self.operator.bootstrap(self.places)
        await until(self._is_meshed, what="every member connected to every other")
        client = RawClient(genesis.record, self.client)
        replies = await self.http.post_all(self.places, client.opening())
        client.agreed(replies)
        client.opened(replies[0])
        return client


__all__ = [
    "CLUSTER", "NAMESPACE", "QUICK", "Answer", "Http", "Operator", "Place", "Processes",
    "RawClient", "Tasks", "decode_answer", "until",
]  # fmt: skip
