"""Brings what clients may do, as the log holds it, to what the resource says.

The log is asked and not remembered: somebody with the right to may have changed rights beside the
resource. It is asked when the resource has changed, when this process is new, and now and then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from dwcp.calls import prefix_end
from dwcp.client import Client
from dwcp.errors import BrokenAnswer, DWCPError
from dwcp.wire.operations import Access, AccessGetRequest, AccessGetResponse, Grant
from dwcp_operator.access import AccessStatus, ClientAccess
from dwcp_operator.plan.access import Rights, SetRights, may_administer, plan_access
from dwcp_operator.resources import ClusterSpec

LOOK_AGAIN_S: Final = 300.0
RETRY_S: Final = 2.0
TIMEOUT_MS: Final = 5000
RIGHTS_LENGTH_MAX: Final = 1024


class AccessError(Exception):
    """Rights could not be looked at or changed now; says why."""


def rights_of(entry: ClientAccess | None) -> Access | None:
    """What an entry of spec.access lets its client do; None, everything, without an entry."""
    if entry is None:
        return None
    prefixes = sorted({*entry.read, *entry.write})
    grants = tuple(
        Grant(
            prefix.encode(),
            prefix_end(prefix),
            read=prefix in entry.read,
            write=prefix in entry.write,
        )
        for prefix in prefixes
    )
    return Access(admin=entry.admin, grants=grants)


def wanted_rights(
    clients: Sequence[str], access: Sequence[ClientAccess]
) -> dict[str, Access | None]:
    """What each client of the resource is to be allowed."""
    entries = {entry.client: entry for entry in access}
    return {name: rights_of(entries.get(name)) for name in clients}


def administrator(spec: ClusterSpec) -> str:
    """A client that may administer by the resource: there always is one."""
    wanted = wanted_rights(spec.clients, spec.access or ())
    return next(name for name in spec.clients if may_administer(wanted[name]))


def shown(access: Access | None) -> str:
    """Rights in words, for the status."""
    if access is None:
        return "everything"
    words = ["administer"] if access.admin else []
    for grant in access.grants:
        verbs = [verb for verb, may in (("read", grant.read), ("write", grant.write)) if may]
        words.append(f"{' and '.join(verbs)} {_keys(grant)}")
    return ("; ".join(words) or "nothing")[:RIGHTS_LENGTH_MAX]


def _keys(grant: Grant) -> str:
    key = grant.key.decode(errors="backslashreplace")
    if grant.range_end == prefix_end(grant.key):
        return f"{key}*"
    end = grant.range_end.decode(errors="backslashreplace")
    return f"[{key}, {end})" if grant.range_end else key


def kept(before: Sequence[AccessStatus], seen: Sequence[AccessStatus]) -> tuple[AccessStatus, ...]:
    """What was seen now, with the earlier entry of the log where rights are still the same."""
    old = {one.client: one for one in before}
    return tuple(
        old[one.client] if one.client in old and old[one.client].rights == one.rights else one
        for one in seen
    )


class Granter:
    """Of one cluster: what was last seen to be so; `now_s` is a monotonic clock."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._seen: tuple[dict[str, Access | None], float] | None = None
        self._retry_at_s = 0.0
        self.status: tuple[AccessStatus, ...] | None = None
        """What clients may do; None until the log was asked, or an earlier one was told."""

    def is_due(self, wanted: Rights) -> bool:
        """Whether the log is to be asked."""
        if self._now_s() < self._retry_at_s:
            return False
        if self._seen is None:
            return True
        rights, at_s = self._seen
        return rights != wanted or self._now_s() - at_s >= LOOK_AGAIN_S

    async def bring(
        self,
        wanted: dict[str, Access | None],
        keys: Mapping[str, bytes],
        open_client: Callable[[str], Client],
    ) -> tuple[SetRights, ...]:
        """Ask the log, and change what differs; what was changed.

        `keys` are the clients' public keys, `open_client` makes one by name. Raises AccessError;
        what was done until then stays.
        """
        try:
            async with AsyncExitStack() as stack:
                return await self._bring(wanted, keys, _Opened(stack, open_client))
        except (DWCPError, ValueError) as error:
            self._seen, self._retry_at_s = None, self._now_s() + RETRY_S
            raise AccessError(str(error)) from None

    async def _bring(
        self, wanted: dict[str, Access | None], keys: Mapping[str, bytes], opened: _Opened
    ) -> tuple[SetRights, ...]:
        reader = await opened.get(next(iter(wanted)))
        asked = [AccessGetRequest(keys[name]) for name in wanted]
        answer = await reader.execute(*asked, timeout_ms=TIMEOUT_MS)
        held: dict[str, Access | None] = {}
        for name, result in zip(wanted, answer.results, strict=True):
            if not isinstance(result, AccessGetResponse):
                raise BrokenAnswer(f"what {name} may do is not told: {result!r:.100}")
            held[name] = result.access
        index = answer.header.index
        seen = [_status(name, access, index) for name, access in sorted(held.items())]
        found = {one.client: one for one in kept(self.status or (), seen)}
        steps = plan_access(wanted, held)
        for step in steps:
            worker = await opened.get(step.by)
            done = await worker.set_access(keys[step.client], step.access, timeout_ms=TIMEOUT_MS)
            found[step.client] = _status(step.client, step.access, done.index)
        self._seen = (wanted, self._now_s())
        self.status = tuple(found.values())
        return steps


class _Opened:
    """Clients that are connected, each once."""

    def __init__(self, stack: AsyncExitStack, open_client: Callable[[str], Client]) -> None:
        self._stack = stack
        self._open = open_client
        self._clients: dict[str, Client] = {}

    async def get(self, name: str) -> Client:
        if name not in self._clients:
            self._clients[name] = await self._stack.enter_async_context(self._open(name))
        return self._clients[name]


def _status(name: str, access: Access | None, index: int) -> AccessStatus:
    return AccessStatus(client=name, rights=shown(access), index=index)
