"""GET /dwcp/v1/backup: everything this replica holds, for whoever has the admin's permit.

The state is read from a view while work goes on; one backup at a time, since a view that is held
makes the state's file grow.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from dwcp.identity import Ed25519Verifier
from dwcp.wire.backup import FORMAT, PERMIT_MS_MAX, BackupHead, Permit, framed
from dwcp.wire.decoding import decoder_of
from dwcp_replica.api.host import Host
from dwcp_replica.api.problems import Problems
from dwcp_replica.core.outline import Outline
from dwcp_replica.store.backup import ViewLostError, shown
from dwcp_replica.store.records import View

PERMIT_HEADER: Final = "DWCP-Permit"
OCTETS: Final = "application/octet-stream"
_PERMIT_CHARACTERS_MAX: Final = 1024

_decode: Callable[[bytes], Permit] = decoder_of(Permit)


class BackupHandler:
    """Shows a backup."""

    def __init__(self, host: Host, problems: Problems) -> None:
        self._host = host
        self._problems = problems
        self._busy = False

    async def get(self, request: web.Request) -> web.StreamResponse:
        """The parts of a backup; a connection that ends before BackupEnd means: ask again."""
        genesis, records = self._host.genesis(), self._host.certified()
        if genesis is None or records is None:
            return self._problems.json(503, "not-running", "this replica does not run")
        if (problem := self._refused(request.headers.get(PERMIT_HEADER, ""))) is not None:
            return self._problems.json(403, "permit", problem)
        if self._busy:
            return self._problems.json(503, "busy", "another backup is being made of this replica")
        found = self._host.backup()
        if found is None:
            return self._problems.json(
                503, "no-checkpoint", "no certified state can be shown now: ask another replica, "
                "or after the next checkpoint",
            )  # fmt: skip
        outline, view = found
        self._busy = True
        try:
            head = BackupHead(FORMAT, genesis, records, outline.checkpoint, outline.body)
            return await _send(request, head, outline, view)
        finally:
            self._busy = False
            if view is not None:
                view.close()

    def _refused(self, text: str) -> str | None:
        """Why a permit does not do; None when it does."""
        genesis = self._host.genesis()
        assert genesis is not None, "looked at before"
        how = f"send the admin's permit in the header {PERMIT_HEADER}: `dwcp backup` makes one"
        try:
            permit = _decode(base64.b64decode(text[:_PERMIT_CHARACTERS_MAX], validate=True))
        except (ValueError, msgspec.DecodeError):
            return f"there is no permit that can be read: {how}"
        signed = permit.signing_bytes(genesis.record.hash())
        if not Ed25519Verifier.check(genesis.record.admin, signed, permit.sig):
            return f"the permit is not signed by this cluster's admin: {how}"
        left_ms = permit.expires_ms - int(time.time() * 1000)
        if not 0 < left_ms <= PERMIT_MS_MAX:
            return f"the permit is over, or longer than an hour: {how}"
        return None


async def _send(
    request: web.Request, head: BackupHead, outline: Outline, view: View | None
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": OCTETS})
    await response.prepare(request)
    try:
        for part in shown(head, outline, view):
            await response.write(framed(part))
    except ViewLostError:
        response.force_close()
        return response  # without BackupEnd: whoever reads it sees that it is cut short
    await response.write_eof()
    return response
