"""Clusters of four that are prepared by hand, so that a search begins where something matters."""

from __future__ import annotations

from typing import Final

import msgspec

from dwcp.wire.envelope import (
    Batch,
    Envelope,
    EnvelopeBody,
    batch_digest,
    envelope_signing_bytes,
)
from dwcp.wire.epochs import (
    Panic,
    Panics,
    Seal,
    SlotChange,
    SlotProposal,
    SlotValue,
    SlotVote,
    slot_signing_bytes,
)
from dwcp.wire.operations import PutRequest
from dwcp.wire.peer import (
    Commit,
    Entry,
    Header,
    PeerMessage,
    Prepare,
    PrePrepare,
    vote_signing_bytes,
)
from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Parameters,
    Protocol,
    scope_of,
    start_hash,
)
from dwcp.wire.signing import Scope, digest
from dwcp.wire.switch import AdminSwitch, RequestedSwitch, Switch, SwitchRequest
from dwcp_replica.core.effects import Received, Submit, Tick
from dwcp_replica.core.epochs import values
from dwcp_replica.sim.crypto import HashSigner, HashVerifier, member_of
from dwcp_replica.sim.engines import START_MS, Cause, Engines
from dwcp_replica.sim.explore import Cluster, arrives, bits
from dwcp_replica.sim.host import WALL_START_MS

MEMBERS: Final = 4


class Stage:
    """Four members, at most one of them a liar, which has no engine unless it has `twins`."""

    def __init__(
        self,
        protocol: Protocol,
        kinds: frozenset[str] | None = None,
        liar: int | None = None,
        *,
        twins: bool = False,
        crashes: bool = False,
        timely: bool = False,
    ) -> None:
        self.signers = [HashSigner(digest("explored", bytes([me]))) for me in range(MEMBERS)]
        self.client = HashSigner(digest("explored client"))
        verifier = HashVerifier()
        for signer in (*self.signers, self.client):
            verifier.know(signer)
        self.genesis = _genesis(self.signers, self.client.public_key, protocol)
        self.engines = Engines(
            self.genesis,
            (self.signers, verifier),
            liars=frozenset() if liar is None else frozenset({liar}),
            crashes=crashes,
            timely=timely,
            kinds=kinds,
        )
        self.liar = liar
        honest = tuple(me for me in range(MEMBERS) if me != liar)
        members = (*honest, liar, liar) if twins and liar is not None else honest
        start = tuple(map(self.engines.begin, members))
        self.cluster = Cluster("", self.engines, members, len(honest), start, liar=liar)
        self.now_ms = START_MS
        self._sequence = 0

    @property
    def scope(self) -> Scope:
        """Of signatures in the first epoch."""
        return scope_of(self.genesis, self.genesis)

    # --- what happens --------------------------------------------------------------------------

    def put(self, value: str) -> Submit:
        """A client's signed envelope."""
        self._sequence += 1
        body = msgspec.msgpack.encode(
            EnvelopeBody(1, self._sequence, 0, (PutRequest(b"key", value.encode()),))
        )
        sig = self.client.sign(envelope_signing_bytes(self.genesis.hash(), body))
        return Submit(Envelope(self.client.public_key, body, sig))

    def give(self, member: int, cause: Cause, *, settle: bool = True) -> None:
        """Something happens to a member; what that leads to arrives everywhere, or waits."""
        queue = [self.engines.cause(member, cause)]
        while queue:
            self.cluster.start, sent, wrong = arrives(
                self.cluster, self.cluster.start, queue.pop(0)
            )
            assert not wrong, wrong
            queue += sent if settle else ()

    def give_twin(self, twin: int, cause: Cause) -> tuple[int, ...]:
        """Something happens to one of a liar's two engines; what it says then waits."""
        at = self.cluster.honest + twin
        effect = self.engines.step(
            self.cluster.start[at], self.engines.cause(self.cluster.members[at], cause)
        )
        self.cluster.start = (
            *self.cluster.start[:at], effect.state, *self.cluster.start[at + 1 :]
        )  # fmt: skip
        return effect.sent

    def sent(self, kind: type[PeerMessage], to: int) -> list[int]:
        """The messages of a kind that were sent to a member, by number."""
        mask = 0
        for state in self.cluster.start:
            mask |= self.engines.known[state].sent
        return [
            number
            for number in bits(mask & self.engines.towards[to])
            if isinstance(cause := self.engines.causes[number], Received)
            and isinstance(cause.message, kind)
        ]

    def hear(self, member: int, kind: type[PeerMessage]) -> None:
        """All that was sent to a member of this kind arrives; what that leads to waits."""
        for number in self.sent(kind, member):
            self.give(member, self.engines.causes[number], settle=False)

    def later(self, ms: int) -> tuple[int, ...]:
        """Inputs: time passes for every member."""
        self.now_ms += ms
        tick = Tick(self.now_ms, WALL_START_MS + self.now_ms)
        return tuple(self.engines.cause(member, tick) for member in range(MEMBERS))

    # --- what may come at any time -------------------------------------------------------------

    def anyhow(self, member: int, cause: Cause) -> None:
        """This may happen to a member at any time."""
        self.cluster.anyhow |= 1 << self.engines.cause(member, cause)

    def lie(self, message: PeerMessage, to: tuple[int, ...] = (), by: int | None = None) -> None:
        """The liar may say this at any time, to these or to all; or another passes it on."""
        source = self.liar if by is None else by
        assert source is not None, "only a liar lies"
        for member in to or self.cluster.members[: self.cluster.honest]:
            number = self.engines.said(source, member, message)
            assert number is not None, f"{type(message).__name__} does not travel here"
            self.cluster.anyhow |= 1 << number

    def dismiss_twins(self) -> None:
        """What the liar's engines have said stays sayable; they hear nothing more."""
        honest = self.cluster.honest
        known = [self.engines.known[state] for state in self.cluster.start[honest:]]
        for one in known:
            self.cluster.anyhow |= one.sent
        self.cluster.lies = tuple(one.seen for one in known)
        self.cluster.members = self.cluster.members[:honest]
        self.cluster.start = self.cluster.start[:honest]

    # --- what a liar can sign ------------------------------------------------------------------

    def votes(self, me: int, header: Header) -> tuple[Prepare, Commit]:
        """A member's two votes for an entry."""
        sign = self.signers[me].sign
        prepare = sign(vote_signing_bytes(self.scope, "prepare", header))
        commit = sign(vote_signing_bytes(self.scope, "commit", header))
        return Prepare(header, me, prepare), Commit(header, me, commit)

    def panics(self, *members: int) -> Panics:
        """PANICs of the first epoch."""
        signed = Panic(0, 0, bytes(64)).signing_bytes(self.scope)
        return Panics(tuple(Panic(0, me, self.signers[me].sign(signed)) for me in members))

    def request_of(self, me: int) -> RequestedSwitch:
        """A SWITCH to Raft that one member alone has asked for."""
        request = SwitchRequest(0, "raft", me, bytes(64))
        sig = self.signers[me].sign(request.signing_bytes(self.scope))
        return RequestedSwitch("raft", (msgspec.structs.replace(request, sig=sig),))

    def order_of(self, epoch: int) -> AdminSwitch:
        """The admin's order that an epoch ends."""
        order = AdminSwitch(epoch, "raft", self.genesis.members, bytes(64))
        sig = self.client.sign(order.signing_bytes(self.scope))
        return msgspec.structs.replace(order, sig=sig)

    def entry_of(self, me: int, switch: Switch) -> Entry:
        """The first entry of the epoch, which a member proposes."""
        body = msgspec.msgpack.encode(Batch(WALL_START_MS + self.now_ms, (), switch))
        header = Header(0, 1, 1, batch_digest(body), self.genesis.start_hash, bytes(64))
        sig = self.signers[me].sign(header.signing_bytes(self.scope))
        return Entry(msgspec.structs.replace(header, sig=sig), body)

    def bare_seal(self, me: int, trigger: Panics, *shown: Header) -> Seal:
        """A SEAL that shows nothing but these headers."""
        seal = Seal(0, None, shown, None, (), (), trigger, me, bytes(64))
        sig = self.signers[me].sign(seal.signing_bytes(self.scope))
        return msgspec.structs.replace(seal, sig=sig)

    def slot_votes(self, me: int, view: int, value: bytes) -> list[SlotVote]:
        """A member's two votes in the slot."""
        found = []
        for phase in ("slot-prepare", "slot-commit"):
            signed = slot_signing_bytes(self.scope, phase, 0, view, value)
            found.append(SlotVote(0, view, value, phase, me, self.signers[me].sign(signed)))
        return found

    def proposed(self, number: int) -> Header:
        """The header that a PRE-PREPARE carries."""
        cause = self.engines.causes[number]
        assert isinstance(cause, Received), "it arrives"
        assert isinstance(cause.message, PrePrepare), "nothing else was asked for"
        return cause.message.entry.header

    def sent_seal(self, me: int) -> Seal:
        """The SEAL that a member has sent."""
        (number,) = [n for n in self.sent(Seal, (me + 2) % MEMBERS) if self._from(n) == me]
        cause = self.engines.causes[number]
        assert isinstance(cause, Received), "it arrives"
        assert isinstance(cause.message, Seal), "nothing else was asked for"
        return cause.message

    def _from(self, number: int) -> int | None:
        cause = self.engines.causes[number]
        return cause.sender if isinstance(cause, Received) else None

    def value(self, member: int, seals: tuple[Seal, ...]) -> SlotValue:
        """The slot's value that these SEALs make, as an honest member computes it."""
        at = self.cluster.members.index(member)
        found = values.value_of(self.engines.engine(self.cluster.start[at])._core, seals, member)
        assert isinstance(found, SlotValue), found
        return found

    def slot_proposal(self, me: int, value: SlotValue) -> SlotProposal:
        """A proposal in the slot's first view."""
        signed = slot_signing_bytes(self.scope, "slot-proposal", 0, 0, value.record.hash())
        return SlotProposal(0, 0, value, (), me, self.signers[me].sign(signed))

    def slot_change(self, me: int, view: int) -> SlotChange:
        """A VIEW-CHANGE of the slot that shows nothing."""
        change = SlotChange(0, view, None, me, bytes(64))
        sig = self.signers[me].sign(change.signing_bytes(self.scope))
        return msgspec.structs.replace(change, sig=sig)


def _genesis(signers: list[HashSigner], client: bytes, protocol: Protocol) -> EpochRecord:
    cluster_id = bytes(16)
    return EpochRecord(
        cluster_id=cluster_id,
        cluster="explored",
        namespace="default",
        epoch=0,
        protocol=protocol,
        trust="Byzantine",
        members=tuple(member_of(me, signer.public_key) for me, signer in enumerate(signers)),
        clients=(ClientIdentity("client", client),),
        admin=client,
        parameters=Parameters(checkpoint_interval=100, request_timeout_ms=400),
        start_index=0,
        start_hash=start_hash(cluster_id),
        leader=0,
    )
