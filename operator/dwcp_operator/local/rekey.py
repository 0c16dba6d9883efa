"""Gives a member of a cluster on this machine a new identity key (docs/members.md).

The member makes the key, the admin's order names it, one epoch swaps it, and the member erases the
old one. Cut off anywhere, the same command goes on: the key that was made is shown again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import aiohttp
import msgspec

from dwcp.identity import Ed25519Verifier
from dwcp.wire.decoding import decoder_of
from dwcp.wire.keys import NextKey, request_key, shown_fault
from dwcp.wire.quorum import quorum
from dwcp.wire.records import EpochRecord, Member, scope_of
from dwcp_operator.local.change import AGAIN_S, Change, ChangeError, Emit, alone
from dwcp_operator.local.layout import Layout
from dwcp_operator.local.probe import ProbeError

_decode: Callable[[bytes], NextKey] = decoder_of(NextKey)
_CRASH: Final = "under Crash trust epochs do not end yet, so no key can change"


def fault(record: EpochRecord, name: str, said: Mapping[str, Mapping[str, object]]) -> str | None:
    """Why this member's key can not change now, in a sentence; None when it can.

    `said` are the members' signed statuses, by name; who did not answer is left out.
    """
    present = [member.name for member in record.members]
    if name not in present:
        return f"{name} is no member of epoch {record.epoch}: its members are {', '.join(present)}"
    if record.trust == "Crash":
        return _CRASH
    mine = said.get(name)
    if mine is None:
        return f"{name} does not answer: bring it back first, or replace it"
    if mine.get("ready") is not True:
        return f"{name} does not vote ({mine.get('reason')}): bring it back first, or replace it"
    accused = [one for status in said.values() for one in _evidence(status)]
    if name in accused:
        return f"{name} is proven to have lied: a new key does not mend that, replace it"
    others = sum(said[m].get("ready") is True for m in present if m != name and m in said)
    needed = quorum(len(present), record.trust)
    if others < needed:
        return (
            f"{others} of the other {len(present) - 1} members vote, and {needed} are needed while "
            f"{name} changes its key: bring them back first"
        )
    return None


def _evidence(status: Mapping[str, object]) -> list[object]:
    shown = status.get("evidence")
    proofs = shown if isinstance(shown, list) else []
    return [one.get("member") for one in proofs if isinstance(one, dict)]


class Rekeying(Change):
    """One change of a member's key."""

    async def rotate(self, name: str) -> None:
        """Change the key of this member. Raises ChangeError."""
        said = await self.statuses()
        if (problem := fault(self.record, name, said)) is not None:
            raise ChangeError(problem)
        number = self.record.member_named(name)
        assert number is not None, "a fault otherwise"
        key = await self._next_key(name)
        self._emit(f"{name} has made a new key, {key.hex()[:16]}...")
        members = list(self.record.members)
        members[number] = msgspec.structs.replace(members[number], identity=key)
        await self._switch(members)
        await self._until_adopted(members[number])
        self._emit(f"{name} has erased its old key")

    async def _next_key(self, name: str) -> bytes:
        """The key that the member makes, proven by both keys."""
        scope = scope_of(self._genesis, self.record)
        request = request_key(self.record, scope, name, self._admin)
        try:
            shown = _decode(
                await self._probe(name).ask("/dwcp/v1/keys", msgspec.msgpack.encode(request))
            )
        except ProbeError as error:
            raise ChangeError(f"{name} makes no key: {error}") from None
        except msgspec.DecodeError as error:
            raise ChangeError(f"{name} shows a key that can not be read: {error}") from None
        problem = shown_fault(self.record, scope, request, shown, Ed25519Verifier())
        if problem is not None:
            raise ChangeError(f"the key that {name} shows does not hold: {problem}")
        return shown.identity

    async def _until_adopted(self, member: Member) -> None:
        """Wait until the volume shows the new key: the old one is erased then."""
        while True:
            with suppress(ProbeError):
                await self._probe(member.name).identity(None, member.identity)
                return
            await asyncio.sleep(AGAIN_S)


async def rotate(layout: Layout, name: str, *, timeout_s: float, emit: Emit) -> EpochRecord:
    """Change the key of one member; the record that begins with it. Raises LocalError."""
    async with aiohttp.ClientSession() as http:
        one = Rekeying(layout, http, emit)
        try:
            with alone(layout):
                async with asyncio.timeout(timeout_s):
                    await one.rotate(name)
        except TimeoutError:
            raise ChangeError(
                f"not done within {timeout_s:g} s: see `dwcp status --data {layout.root}`. Once an "
                "epoch has begun with the new key the member finishes by itself; before that, the "
                "same command goes on where this one was"
            ) from None
        return one.record
