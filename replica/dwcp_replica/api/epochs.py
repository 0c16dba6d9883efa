"""GET /dwcp/v1/epochs: the chain of epoch records. POST /dwcp/v1/orders: the admin's orders.

POST /dwcp/v1/learners takes an order too, and only lets its new members fetch. POST /dwcp/v1/keys
has this member make the key that a later order names.

Nothing is secret: a record proves itself by its certificate, an order by the admin's signature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import Records
from dwcp.wire.keys import KeyRequest, NextKey
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.api.host import Host
from dwcp_replica.api.problems import BodyTooLargeError, Problems, read_body

MESSAGE_PACK: Final = "application/msgpack"
ORDER_BYTES_MAX: Final = 262_144
REQUEST_BYTES_MAX: Final = 4096
RECORDS_MAX: Final = 64

_decode_request: Callable[[bytes], KeyRequest] = decoder_of(KeyRequest)
_decode_order: Callable[[bytes], AdminSwitch] = decoder_of(AdminSwitch)


class EpochsHandler:
    """Shows epoch records and takes orders."""

    def __init__(self, host: Host, problems: Problems) -> None:
        self._host = host
        self._problems = problems

    async def get(self, request: web.Request) -> web.Response:
        """The certified records of the epochs after `from`, at most 64, as MessagePack."""
        word = request.query.get("from", "0")
        if not word.isdecimal() or len(word) > 18:
            return self._problems.json(400, "from", "from is the number of an epoch")
        records = self._host.certified()
        if records is None:
            return self._problems.json(503, "not-running", "this replica does not run")
        first = int(word)
        body = msgspec.msgpack.encode(Records(records[first : first + RECORDS_MAX]))
        return web.Response(body=body, content_type=MESSAGE_PACK)

    async def post(self, request: web.Request) -> web.Response:
        """Take an order that the admin signed: 202, or 409 with what is wrong with it."""
        return await self._take(request, learn=False)

    async def learners(self, request: web.Request) -> web.Response:
        """Let the new members of an order fetch what they need; nothing is switched."""
        return await self._take(request, learn=True)

    async def keys(self, request: web.Request) -> web.Response:
        """This member's next key, signed with both, or 409 with why it makes none."""
        try:
            asked = _decode_request(await read_body(request, REQUEST_BYTES_MAX))
        except BodyTooLargeError:
            return self._problems.json(413, "too-large", "a request for a key has at most 4 KiB")
        except msgspec.DecodeError as error:
            return self._problems.json(
                400, "malformed", f"not the MessagePack of a request for a key: {error}"
            )
        shown = self._host.next_key(asked)
        if not isinstance(shown, NextKey):
            return self._problems.json(409, shown[0], shown[1])
        return web.Response(body=msgspec.msgpack.encode(shown), content_type=MESSAGE_PACK)

    async def _take(self, request: web.Request, *, learn: bool) -> web.Response:
        try:
            order = _decode_order(await read_body(request, ORDER_BYTES_MAX))
        except BodyTooLargeError:
            return self._problems.json(413, "too-large", "an order has at most 256 KiB")
        except msgspec.DecodeError as error:
            return self._problems.json(
                400, "malformed", f"not the MessagePack of an order: {error}"
            )
        if (problem := self._host.order(order, learn=learn)) is not None:
            return self._problems.json(409, problem[0], problem[1])
        return web.json_response({"status": "taken"}, status=202)
