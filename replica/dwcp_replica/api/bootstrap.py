"""Identity and genesis: how a waiting replica becomes a member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from dwcp.wire.decoding import decoder_of
from dwcp.wire.records import SignedGenesis
from dwcp_replica.api.envelopes import MESSAGE_PACK
from dwcp_replica.api.host import GenesisRefusedError, Host
from dwcp_replica.api.problems import BodyTooLargeError, Problems, read_body

GENESIS_BYTES_MAX: Final = 1024 * 1024
INVITATION_BYTES_MAX: Final = 16 * 1024 * 1024
MAC_HEADER: Final = "DWCP-Token-MAC"
_NOT_HEX: Final = f"the header {MAC_HEADER} is not hexadecimal"

_decode: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)


class BootstrapHandler:
    """Shows who this replica is, and takes and shows the genesis."""

    def __init__(self, host: Host, problems: Problems) -> None:
        self._host = host
        self._problems = problems

    async def identity(self, _request: web.Request) -> web.Response:
        """The JSON of records.Identity."""
        identity = self._host.identity()
        if identity is None:
            reason = self._host.readiness() or "starting"
            return self._problems.json(503, "not-running", reason)
        body = msgspec.json.encode(identity)
        return web.Response(body=body, content_type="application/json")

    async def get(self, _request: web.Request) -> web.Response:
        """The complete genesis."""
        genesis = self._host.genesis()
        if genesis is None:
            return self._problems.json(404, "waiting", "this replica waits for its genesis")
        return _respond(genesis)

    async def put(self, request: web.Request) -> web.Response:
        """Offer a genesis; answer it with this replica's signature added."""
        try:
            offer = _decode(await read_body(request, GENESIS_BYTES_MAX))
        except BodyTooLargeError:
            message = f"a genesis has at most {GENESIS_BYTES_MAX} bytes"
            return self._problems.json(413, "too-large", message)
        except (msgspec.DecodeError, RecursionError) as error:
            message = f"not the MessagePack of a SignedGenesis: {error}"
            return self._problems.json(400, "malformed", message)
        if (mac := _mac(request)) is None:
            return self._problems.json(403, "token-mac", _NOT_HEX)
        try:
            return _respond(self._host.offer_genesis(offer, mac))
        except GenesisRefusedError as refused:
            return self._problems.json(refused.status, refused.reason, str(refused))

    async def join(self, request: web.Request) -> web.Response:
        """Invite this replica into a cluster that runs."""
        try:
            encoded = await read_body(request, INVITATION_BYTES_MAX)
        except BodyTooLargeError:
            message = f"an invitation has at most {INVITATION_BYTES_MAX} bytes"
            return self._problems.json(413, "too-large", message)
        if (mac := _mac(request)) is None:
            return self._problems.json(403, "token-mac", _NOT_HEX)
        try:
            self._host.invite(encoded, mac)
        except GenesisRefusedError as refused:
            return self._problems.json(refused.status, refused.reason, str(refused))
        return web.json_response({"status": "taken"})


def _mac(request: web.Request) -> bytes | None:
    try:
        return bytes.fromhex(request.headers.get(MAC_HEADER, ""))
    except ValueError:
        return None


def _respond(genesis: SignedGenesis) -> web.Response:
    return web.Response(body=msgspec.msgpack.encode(genesis), content_type=MESSAGE_PACK)
