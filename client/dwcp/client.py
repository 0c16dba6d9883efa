"""The verifying client: believes what f+1 replicas signed alike, and names those that lie.

    async with Client.from_directory(Path(".dwcp")) as client:
        await client.put("colour", "blue")
        print(await client.get("colour"))

`Client` joins three things: `SessionCore` (what to send, what is true), one `Connection` per
replica, and the event loop's clock. It belongs to one event loop; any number of tasks
there may share it. `dwcp.sync.SyncClient` is the same for programs without a loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

import aiohttp
import msgspec

from dwcp import errors
from dwcp.calls import Calls, as_bytes
from dwcp.connection import Connection, Incoming, client_hello
from dwcp.directory import checked, read_directory
from dwcp.doc import Doc
from dwcp.dochooks import Hooks
from dwcp.documents import Documents
from dwcp.flight import Output
from dwcp.following import records_of
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.late import what_is_missing
from dwcp.outcomes import Answered, Broken, Declined, TicketOutcome, Unknown
from dwcp.reads import SEED_BYTES
from dwcp.results import Header
from dwcp.session import SessionCore
from dwcp.waiting import Limits
from dwcp.watch import Watch, Watches
from dwcp.wire.envelope import Busy, Envelope, Rejected
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.operations import Operation
from dwcp.wire.query import Query
from dwcp.wire.records import EpochRecord, Member, SignedGenesis
from dwcp.wire.watch import Filter, Page, Pull, watched

DEADLINE_MS: Final = 30_000
CONNECT_S_MAX: Final = 10.0
CLOSE_S_MAX: Final = 2.0
TLS_END_S: Final = 0.02
"""A TLS transport that was closed ends in later rounds of the loop, and tells nobody when."""
FOLLOW_AGAIN_S: Final = 1.0

_log = logging.getLogger("dwcp")


def _now_ms() -> int:
    return int(asyncio.get_running_loop().time() * 1000)


class Client(Calls):
    """A connection to a whole cluster. Make one with `connect` or `from_directory`."""

    def __init__(
        self,
        genesis: EpochRecord,
        key: Ed25519Signer,
        *,
        deadline_ms: int = DEADLINE_MS,
        limits: Limits | None = None,
        authority: ssl.SSLContext | None = None,
        document_file: Path | None = None,
        via: Collection[str] | None = None,
        records: tuple[CertifiedRecord, ...] = (),
    ) -> None:
        if all(c.key != key.public_key for c in genesis.clients):
            raise errors.BadCluster(
                f"the key {key.public_key.hex()[:12]}... is no client of cluster "
                f"{genesis.cluster}: use the client.key that was made with the cluster"
            )
        self._genesis = genesis
        self._deadline_ms = deadline_ms
        verifier, seed = Ed25519Verifier(), secrets.token_bytes(SEED_BYTES)
        self._core = SessionCore(genesis, key, verifier, limits, seed)
        if (fault := self._core.learn(records, 0)) is not None:
            raise errors.BadCluster(
                f"the epochs that are known of this cluster do not hold: {fault}"
            )
        genesis_hash = genesis.hash()
        self._authority = authority
        self._answer = lambda hello: client_hello(genesis_hash, key, hello)
        self._connections = [self._connection(n) for n in range(self._core.checker.n)]
        self._talks: dict[int, asyncio.Task[None]] = {}
        self._unknown_epoch = asyncio.Event()
        checker = self._core.checker
        self._watches = Watches(checker, self._send_pull, self._newest, self._on_lie)
        self._key = key
        self._document_file, self._via = document_file, None if via is None else frozenset(via)
        self._documents: Documents | None = None
        self._named: set[str] = set()
        self._futures: dict[int, asyncio.Future[Answered]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._http: aiohttp.ClientSession | None = None
        self._failure: BaseException | None = None
        self._wake = asyncio.Event()

    @classmethod
    def connect(
        cls,
        genesis: SignedGenesis | EpochRecord,
        key: Ed25519Signer,
        *,
        deadline_ms: int = DEADLINE_MS,
        limits: Limits | None = None,
        authority: ssl.SSLContext | None = None,
        document_file: Path | None = None,
        via: Collection[str] | None = None,
        records: tuple[CertifiedRecord, ...] = (),
    ) -> Self:
        """A client of the cluster that `genesis` names, to be used in `async with`.

        A SignedGenesis is checked; a bare EpochRecord is trusted as it stands. `records`, also
        checked, are those of later epochs that are known: members may have changed since genesis.
        Over TLS a member must show the certificate that its record names, or one that `authority`
        accepts. Documents are kept in `document_file`, and talked about with the members named in
        `via`. Raises BadCluster.
        """
        if isinstance(genesis, SignedGenesis):
            genesis = checked(genesis)
        return cls(
            genesis, key, deadline_ms=deadline_ms, limits=limits, authority=authority,
            document_file=document_file, via=via, records=records,
        )  # fmt: skip

    @classmethod
    def from_directory(
        cls, data_dir: Path | str, *, deadline_ms: int = DEADLINE_MS, limits: Limits | None = None,
        documents: bool = True, via: Collection[str] | None = None,
    ) -> Self:  # fmt: skip
        """A client of the cluster whose genesis and client key lie in `data_dir`.

        An authority for the members' TLS certificates may lie beside them, in ca.crt, and later
        epoch records in epochs.msgpack; with `documents`, what `doc` gives is kept there too.
        Raises BadCluster.
        """
        found = read_directory(Path(data_dir))
        file = found.documents if documents else None
        return cls.connect(
            found.genesis, found.key, deadline_ms=deadline_ms, limits=limits,
            authority=found.authority, document_file=file, via=via, records=found.records,
        )  # fmt: skip

    # --- life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._tasks:
            raise errors.ClientClosed("a client is used once: make a new one")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX)
        # nothing is pooled: what idles would still be open when the caller's loop ends
        connector = aiohttp.TCPConnector(force_close=True)
        self._http = aiohttp.ClientSession(connector=connector, timeout=timeout)
        self._start(self._drive(), "dwcp-session")
        self._start(self._follow(), "dwcp-epochs")
        self._connect()
        return self

    def _connect(self) -> None:
        """Be connected to the members of the newest record, and to nobody else."""
        assert self._http is not None, "running"
        current = self._core.checker.current
        for number in current:
            if number not in self._talks:
                talk = self._connections[number].run(self._http)
                self._talks[number] = self._start(talk, f"dwcp-member-{number}")
        for number in self._talks.keys() - current:
            self._talks.pop(number).cancel()
            self._connections[number].gone()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session and all connections; operations still waiting end with an error."""
        if self._http is None:
            return
        for ticket in list(self._futures):
            self._fail(
                ticket, errors.ClientClosed("the client was closed while this was under way")
            )
        self._watches.fail(errors.ClientClosed("the client was closed while this watch ran"))
        try:
            if self._failure is None:
                self._core.close()
                self._obey(self._core.poll(_now_ms()))
                async with asyncio.timeout(CLOSE_S_MAX):
                    await asyncio.gather(*(c.drain() for c in self._connections))
        except TimeoutError:
            _log.debug("the session was not closed in time: the replicas will expire it")
        finally:
            http, self._http = self._http, None
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
            await http.close()
            await asyncio.sleep(TLS_END_S)
            if self._documents is not None:
                self._documents.close()

    def doc(self, name: str) -> Doc:
        """A document, which syncs while this client runs, and can be edited at any time."""
        if self._http is None:
            raise errors.ClientClosed("the client is not running: use it inside `async with`")
        if self._documents is None:
            self._documents = Documents(self._hooks(), self._document_file, self._via)
        return self._documents.doc(name)

    def _hooks(self) -> Hooks:
        """What documents need of this client."""
        return Hooks(
            genesis=self._genesis, signer=self._key, verifier=Ed25519Verifier(),
            checker=self._core.checker, start=self._start, http=lambda: self._http,
            trust=self._trust, answer=self._answer, heard_of=self._heard_of,
            through_log=self._one, settings=self.document_settings, frontier=self.frontier,
        )  # fmt: skip

    def watch(
        self,
        key: str | bytes,
        range_end: str | bytes = b"",
        *,
        start_revision: int = 0,
        filters: Sequence[Filter] = (),
        prev_kv: bool = False,
        progress: bool = False,
    ) -> Watch:
        """What happens to the keys in [key, range_end): use it in `async with`, then `async for`.

        From `start_revision` on, or (0) from now on; an empty key with range_end b"\0" means all.
        `progress`: say also that nothing happened, now and then.
        Raises Refused for an empty interval.
        """
        interval = watched(as_bytes(key), as_bytes(range_end))
        if interval is None:
            raise errors.Refused(errors.INVALID_ARGUMENT, "no key lies in this interval")
        return Watch(
            self._watches, interval, start_revision, tuple(filters),
            prev_kv=prev_kv, progress=progress,
        )  # fmt: skip

    # --- standing --------------------------------------------------------------------------

    @property
    def liars(self) -> Mapping[str, str]:
        """The members proven to have lied to this client, and how, by name."""
        names = self._core.checker.peers
        lies = {m: f"{what} (a watch)" for m, what in self._watches.core.lies.items()}
        lies |= {m: lie.describe() for m, lie in self._core.lies.items()}
        return MappingProxyType({names[m].name: lie for m, lie in sorted(lies.items())})

    @property
    def genesis(self) -> EpochRecord:
        """The record that names the members."""
        return self._genesis

    @property
    def needed(self) -> int:
        """How many equal replies answer what goes through the log."""
        return self._core.needed

    @property
    def reads(self) -> Mapping[str, int]:
        """How reads ended: "fast", "serializable", or why they went through the log after all."""
        assert self._core.reads is not None, "made with a seed"
        return MappingProxyType(dict(sorted(self._core.reads.counts.items())))

    @property
    def envelopes(self) -> int:
        """How many envelopes of operations its session has signed."""
        return self._core.envelopes

    @property
    def connected(self) -> Mapping[str, bool]:
        """Which members this client is connected to, by name."""
        names = self._core.checker.peers
        numbers = self._core.checker.current
        return MappingProxyType({names[n].name: self._connections[n].up for n in numbers})

    @property
    def refused(self) -> Mapping[str, int]:
        """What replicas sent that was dropped, counted by reason."""
        total = self._core.refused + self._watches.core.refused
        for connection in self._connections:
            total.update(connection.faults)
        return MappingProxyType(dict(sorted(total.items())))

    # --- inside ----------------------------------------------------------------------------

    async def _answered(
        self, operations: tuple[Operation, ...], timeout_ms: int | None
    ) -> Answered:
        if self._failure is not None:
            raise self._failed()
        if self._http is None:
            raise errors.ClientClosed("the client is not running: use it inside `async with`")
        deadline_ms = self._deadline_ms if timeout_ms is None else timeout_ms
        ticket = self._core.submit(operations)
        future: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._futures[ticket] = future
        self._wake.set()
        try:
            async with asyncio.timeout(deadline_ms / 1000):
                return await future
        except TimeoutError:
            raise self._late(ticket, deadline_ms) from None
        finally:
            self._futures.pop(ticket, None)
            self._core.cancel(ticket)

    def _header(self, answered: Answered) -> Header:
        return Header(self._genesis.cluster_id, answered.revision, answered.index)

    def _late(self, ticket: int, deadline_ms: int) -> errors.DWCPError:
        """What to say, and what to check, when a deadline has passed."""
        reaches = [c for c in self._connections if c.member in self._talks]
        what = what_is_missing(
            self._core.checker.peers, self._core.progress(ticket), reaches, deadline_ms
        )
        if self._core.cancel(ticket):
            return errors.TimedOut(f"{what}. Nothing was sent. Check `dwcp status`")
        return errors.NotEnoughReplies(
            f"{what}. It was sent and may be executed: read before you repeat it. "
            "Check `dwcp status`"
        )

    def _start(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._on_end)
        self._tasks.append(task)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Nothing here ends by itself: when it does, every caller must hear of it."""
        if task.cancelled():
            return
        self._failure = task.exception() or RuntimeError("it ended by itself")
        _log.critical("the client failed: task %s ended", task.get_name(), exc_info=self._failure)
        for ticket in list(self._futures):
            self._fail(ticket, self._failed())
        self._watches.fail(self._failed())

    def _failed(self) -> errors.ClientFailed:
        error = errors.ClientFailed(f"this client can not go on: {self._failure!r}; make a new one")
        error.__cause__ = self._failure
        return error

    def _fail(self, ticket: int, error: errors.DWCPError) -> None:
        future = self._futures.get(ticket)
        if future is not None and not future.done():
            future.set_exception(error)

    async def _drive(self) -> None:
        """Step the session whenever something happened or is due."""
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            self._step()
            deadline_ms = self._core.deadline_ms()
            timer = None
            if deadline_ms is not None:
                timer = loop.call_at(deadline_ms / 1000, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    def _step(self) -> None:
        now_ms = _now_ms()
        self._core.tick(now_ms)
        if self._core.wants_session(now_ms):
            self._core.open(secrets.token_bytes(16), time.time_ns() // 1_000_000, now_ms)
        self._obey(self._core.poll(now_ms))

    def _obey(self, out: Output) -> None:
        encoded: tuple[Envelope | Query, bytes] | None = None
        for member, request in out.send:
            if encoded is None or encoded[0] is not request:
                encoded = (request, msgspec.msgpack.encode(request))
            self._connections[member].send(encoded[1])
        for ticket, outcome in out.outcomes:
            self._finish(ticket, outcome)
        for lie in out.lies:
            self._on_lie(lie.member, lie.describe())

    def _on_lie(self, member: int, what: str) -> None:
        name = self._core.checker.peers[member].name
        if name not in self._named:  # one line a member: a liar must not flood the log
            self._named.add(name)
            _log.warning("replica %s lied: it %s", name, what)

    def _send_pull(self, member: int, pull: Pull) -> None:
        self._connections[member].send(msgspec.msgpack.encode(pull))

    async def _newest(self) -> int:
        """The store's revision, through the log: whatever was done before is not above it."""
        return (await self.store_status()).header.revision

    def _finish(self, ticket: int, outcome: TicketOutcome) -> None:
        match outcome:
            case Answered():
                future = self._futures.get(ticket)
                if future is not None and not future.done():
                    future.set_result(outcome)
            case Declined(code, message):
                self._fail(ticket, errors.Refused(code, message))
            case Unknown(message):
                self._fail(ticket, errors.Indeterminate(f"{message}: read before you repeat it"))
            case Broken(message):
                self._fail(ticket, errors.BrokenAnswer(message))

    def _connection(self, number: int) -> Connection[Incoming]:
        member = self._core.checker.peers[number]
        return Connection(
            member=number,
            identity=member.identity,
            url=member.client,
            trust=self._trust(member),
            answer=self._answer,
            on_change=self._on_change,
            on_message=self._on_message,
        )

    def _trust(self, member: Member) -> aiohttp.Fingerprint | ssl.SSLContext:
        return self._authority or aiohttp.Fingerprint(member.certificate)

    def _heard_of(self, epoch: int) -> None:
        checker = self._core.checker
        checker.unknown_epoch = max(checker.unknown_epoch, epoch)
        self._unknown_epoch.set()

    async def _follow(self) -> None:
        """Fetch and verify the records of epochs that replicas answer in, as they come."""
        while True:
            await self._unknown_epoch.wait()
            self._unknown_epoch.clear()
            for member in self._core.checker.peers.copy():
                if not self._core.checker.wants_records:
                    break
                assert self._http is not None, "running"
                epoch, trust = self._core.checker.epoch, self._trust(member)
                self._learn(await records_of(self._http, member, epoch, trust))
            if self._core.checker.wants_records:
                await asyncio.sleep(FOLLOW_AGAIN_S)
                self._unknown_epoch.set()

    def _learn(self, records: tuple[CertifiedRecord, ...]) -> None:
        """Take records that verify; connect to the members that they name."""
        before = self._core.checker.epoch
        fault = self._core.learn(records, _now_ms())
        if fault is not None:
            _log.warning("epoch records were refused: %s", fault)
        for number in range(len(self._connections), self._core.checker.n):
            self._connections.append(self._connection(number))
        self._connect()
        if self._core.checker.epoch > before:
            self._watches.entered()
        if self._documents is not None:
            self._documents.grow()
        self._wake.set()

    def _on_change(self, member: int, up: bool) -> None:
        self._watches.changed(member, up=up)
        if up:
            self._core.connected(member)
        else:
            self._core.disconnected(member, _now_ms())
        self._wake.set()

    def _on_message(self, member: int, message: Incoming) -> None:
        match message:
            case Page():
                self._watches.received(member, message)
            case Busy(request) | Rejected(request) if self._watches.core.is_mine(member, request):
                self._watches.received(member, message)
            case _:
                self._core.received(member, message, _now_ms())
                self._wake.set()
        if self._core.checker.wants_records:
            self._unknown_epoch.set()
