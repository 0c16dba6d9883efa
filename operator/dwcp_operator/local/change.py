"""Changes the members of a cluster on this machine, step by step (docs/members.md).

The supervisor runs whatever replicas cluster.json names; this is who writes them there, invites
them, and signs the order. Each step looks first, so that a change that was cut off goes on where it
was when it is asked for again.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import aiohttp
import msgspec

from dwcp import members as changes
from dwcp.identity import Ed25519Signer
from dwcp.wire.quorum import quorum
from dwcp.wire.records import EpochRecord, Member
from dwcp_operator.local import ports
from dwcp_operator.local.errors import LocalError
from dwcp_operator.local.files import write_once
from dwcp_operator.local.genesis import TOKEN_BYTES, GenesisKeeper
from dwcp_operator.local.layout import (
    ClusterFile,
    Layout,
    MemberPorts,
    open_layout,
    read_supervisor,
    store_cluster,
)
from dwcp_operator.local.probe import Probe, ProbeError
from dwcp_operator.local.processes import find_supervisor

AGAIN_S: Final = 0.2
REMOVED_S_MAX: Final = 10.0
"""So long a removed member may take to hear that it is none any more."""

Emit = Callable[[str], None]


class ChangeError(LocalError):
    """A change of members is refused, or was not done in time; says what to do."""


class Change:
    """One change of a cluster's members, from the first look to the last."""

    def __init__(self, layout: Layout, http: aiohttp.ClientSession, emit: Emit) -> None:
        self._layout = layout
        self._http = http
        self._emit = emit
        self._cluster: ClusterFile
        _, self._cluster, manifest = open_layout(layout.root)
        self._keeper = GenesisKeeper(layout, self._cluster, manifest)
        if self._keeper.signed is None or not layout.genesis.exists():
            raise ChangeError(f"the cluster in {layout.root} has not begun yet: `dwcp up` first")
        if find_supervisor(read_supervisor(layout)) is None:
            raise ChangeError(
                "no supervisor runs, and nobody would start new members: "
                f"`dwcp up --data {layout.root}` first"
            )
        self._admin = Ed25519Signer.load(layout.admin_key)

    # --- looking -------------------------------------------------------------------------------

    @property
    def record(self) -> EpochRecord:
        """The newest record that was seen."""
        record = self._keeper.record
        assert record is not None, "the cluster has begun"
        return record

    def _probe(self, name: str) -> Probe:
        return Probe(self._http, name, self._cluster.member(name).client_url)

    async def statuses(self) -> dict[str, Mapping[str, object]]:
        """What the members of the present record say, signed; who does not answer is left out."""
        await self._follow()
        genesis = self._genesis
        found: dict[str, Mapping[str, object]] = {}
        for member in self.record.members:
            try:
                probe = self._probe(member.name)
                found[member.name] = await probe.standing(genesis, member.identity)
            except ProbeError:
                continue
        return found

    @property
    def _genesis(self) -> EpochRecord:
        assert self._keeper.signed is not None, "the cluster has begun"
        return self._keeper.signed.record

    async def _follow(self) -> None:
        for member in self.record.members:
            try:
                shown = await self._probe(member.name).records(self.record.epoch)
            except ProbeError:
                continue
            if (fault := self._keeper.follow(shown)) is not None:
                self._emit(f"{member.name} shows an epoch that does not hold: {fault}")

    # --- a change ------------------------------------------------------------------------------

    async def to(self, leaving: Collection[str], joining: int) -> None:
        """Let these members go, and as many new ones come. Raises ChangeError."""
        said = await self.statuses()
        present = [member.name for member in self.record.members]
        runs = {member.name for member in self._cluster.members}
        former = {m.name for one in self._records() for m in one.members} - set(present)
        if leaving and former & runs >= set(leaving):
            return await self._clean_up(leaving)  # an earlier try was cut off after its epoch began
        if unknown := sorted(set(leaving) - set(present)):
            raise ChangeError(
                f"{unknown[0]} is no member of epoch {self.record.epoch}: "
                f"its members are {', '.join(present)}"
            )
        new = self._names(joining)
        staying = [name for name in present if name not in leaving]
        ready = {name for name, status in said.items() if status.get("ready") is True}
        chain = self._keeper.chain
        assert chain is not None, "the cluster has begun"
        if (fault := changes.change_fault(chain, [*staying, *new], ready)) is not None:
            raise ChangeError(fault)
        self._prepare(new)
        invited = [await self._invite(name) for name in new]
        places = iter(invited)  # a new member takes the place of one that leaves
        kept = [m if m.name not in leaving else next(places, None) for m in self.record.members]
        members = [*(m for m in kept if m is not None), *places]
        await self._learn(members, invited)
        await self._switch(members)
        return await self._clean_up(leaving)

    def _names(self, count: int) -> list[str]:
        """The replicas that are to join: those that an earlier try has left, then new ones."""
        record = self.record
        waiting = [m.name for m in self._cluster.members if record.member_named(m.name) is None]
        former = {m.name for one in self._records() for m in one.members}
        found = [name for name in waiting if name not in former][:count]
        used = {*former, *self._cluster.gone, *(m.name for m in self._cluster.members)}
        return [*found, *changes.next_names(self._cluster.name, used, count - len(found))]

    def _records(self) -> Sequence[EpochRecord]:
        assert self._keeper.chain is not None, "the cluster has begun"
        return self._keeper.chain.records

    def _prepare(self, names: Sequence[str]) -> None:
        """Volumes, tokens and ports; the supervisor starts what cluster.json names."""
        known = {member.name for member in self._cluster.members}
        missing = [name for name in names if name not in known]
        chosen = ports.choose(2 * len(missing)) if missing else ()
        made = [
            MemberPorts(name, chosen[2 * i], chosen[2 * i + 1], client_tls=True)
            for i, name in enumerate(missing)
        ]
        for name in names:
            self._layout.volume(name).mkdir(parents=True, exist_ok=True, mode=0o700)
            token = self._layout.token(name)
            token.parent.mkdir(exist_ok=True, mode=0o700)
            if not (self._layout.volume(name) / "member.json").exists():
                write_once(token, secrets.token_hex(TOKEN_BYTES).encode())
        if made:
            self._store([*self._cluster.members, *made], self._cluster.gone)

    def _store(
        self, members: Sequence[MemberPorts], gone: Sequence[str], replicas: int | None = None
    ) -> None:
        later = msgspec.structs.replace(
            self._cluster,
            members=tuple(members),
            gone=tuple(gone),
            generation=self._cluster.generation + 1,
        )
        store_cluster(self._layout, later, replicas)
        self._cluster = later

    async def _invite(self, name: str) -> Member:
        """Wait for a new replica, and give it what it needs to join."""
        probe, token = self._probe(name), self._keeper.token(name)
        assert self._keeper.signed is not None, "the cluster has begun"
        assert self._keeper.chain is not None, "the cluster has begun"
        signed, chain = self._keeper.signed, self._keeper.chain
        while True:
            try:
                shown = await probe.identity(token, None)
                body = msgspec.msgpack.encode(changes.invitation(signed, chain, self._admin))
                message = b"join" + hashlib.sha256(body).digest()
                mac = hmac.digest(token or b"", message, hashlib.sha256)
                refusal = await probe.post("PUT", "/dwcp/v1/join", body, mac)
                break
            except ProbeError:
                await asyncio.sleep(AGAIN_S)  # it is only starting; the caller sets the bound
        if refusal is not None:
            raise ChangeError(f"{name} refuses to join: {refusal}")
        self._emit(f"{name} is invited")
        place = self._cluster.member(name)
        return Member(name, shown.identity, shown.certificate, place.peer_address, place.client_url)

    async def _learn(self, members: Sequence[Member], invited: Sequence[Member]) -> None:
        """Announce learners until each holds what an honest member held when this began."""
        said = await self.statuses()
        reached = [int(str(status.get("finalIndex", 0))) for status in said.values()]
        record = self.record
        target = changes.agreed_index(reached, len(record.members), record.trust)
        waiting = {member.name: member for member in invited}
        while waiting:
            await self._bring("learners", members)
            for name, member in list(waiting.items()):
                try:
                    status = await self._probe(name).standing(self._genesis, member.identity)
                except ProbeError:
                    continue
                if int(str(status.get("appliedIndex", 0))) >= target:
                    del waiting[name]
                    self._emit(f"{name} has learned what the members hold, up to entry {target}")
            await asyncio.sleep(AGAIN_S)

    async def _bring(self, what: str, members: Sequence[Member]) -> None:
        assert self._keeper.chain is not None, "the cluster has begun"
        order = changes.order(self._keeper.chain, members, self._admin)
        body = msgspec.msgpack.encode(order)
        for member in self.record.members:
            try:
                refusal = await self._probe(member.name).post("POST", f"/dwcp/v1/{what}", body)
            except ProbeError:
                continue
            if refusal is not None and "switch-epoch" not in refusal:
                raise ChangeError(f"{member.name} refuses the order: {refusal}")

    async def _switch(self, members: Sequence[Member]) -> None:
        """Order these members until a record names them, and a quorum of them is ready."""
        while self.record.members != tuple(members):
            await self._bring("orders", members)
            await asyncio.sleep(AGAIN_S)
            await self._follow()
        needed = quorum(len(members), self.record.trust)
        names = ", ".join(m.name for m in members)
        self._emit(f"epoch {self.record.epoch} has begun with {names}")
        while True:
            said = (await self.statuses()).values()
            epoch = self.record.epoch  # another one may have begun since
            voting = sum(one.get("ready") is True and one.get("epoch") == epoch for one in said)
            if voting >= needed:
                return
            await asyncio.sleep(AGAIN_S)

    async def _clean_up(self, leaving: Collection[str]) -> None:
        """Wait a while for the removed to say so, then let the supervisor stop them."""
        for name in leaving:
            await self._until_over(name)
        kept = [member for member in self._cluster.members if member.name not in leaving]
        gone = [*self._cluster.gone, *(name for name in leaving if name not in self._cluster.gone)]
        self._store(kept, gone, len(self.record.members))
        for name in leaving:
            self._emit(f"{name} is removed; its volume {self._layout.volume(name)} can be deleted")

    async def _until_over(self, name: str) -> None:
        """Wait until the key is erased, but not for ever: one that is down can not do it."""
        key = self._layout.volume(name) / "identity.key"
        until = time.monotonic() + REMOVED_S_MAX
        while key.exists() and time.monotonic() < until:  # noqa: ASYNC110 another process's file
            await asyncio.sleep(AGAIN_S)


@contextmanager
def alone(layout: Layout) -> Iterator[None]:
    """One change at a time. Raises ChangeError."""
    with (layout.root / "change.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ChangeError("another change of members is under way: wait for it") from None
        yield


async def change(
    layout: Layout, leaving: Collection[str], joining: int, *, timeout_s: float, emit: Emit
) -> EpochRecord:
    """Change the members; the record that begins with it. Raises LocalError."""
    async with aiohttp.ClientSession() as http:
        one = Change(layout, http, emit)
        try:
            with alone(layout):
                async with asyncio.timeout(timeout_s):
                    await one.to(leaving, joining)
        except TimeoutError:
            raise ChangeError(
                f"not done within {timeout_s:g} s: see `dwcp status --data {layout.root}`; the "
                "same command goes on where this one was"
            ) from None
        return one.record


async def scale(layout: Layout, replicas: int, *, timeout_s: float, emit: Emit) -> EpochRecord:
    """Come to so many members: new ones, or without the last ones. Raises LocalError."""
    async with aiohttp.ClientSession() as http:
        one = Change(layout, http, emit)
        said = await one.statuses()
        present = [member.name for member in one.record.members]
    # those that do not vote go first, then the newest
    by_worth = sorted(
        present, key=lambda name: (said.get(name, {}).get("ready") is True, -present.index(name))
    )
    leaving = by_worth[: max(0, len(present) - replicas)]
    joining = max(0, replicas - len(present))
    return await change(layout, leaving, joining, timeout_s=timeout_s, emit=emit)
