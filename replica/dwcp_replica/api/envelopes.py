"""POST /dwcp/v1/envelopes: one signed envelope or query in, one signed reply out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final

import msgspec
from aiohttp import web

from dwcp.wire.committed import Committed
from dwcp.wire.decoding import decoder_of
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES, Busy, Envelope, Rejected, Reply
from dwcp.wire.query import Query, QueryReply
from dwcp.wire.watch import Pull
from dwcp_replica.api.desk import Answer, encode_answer
from dwcp_replica.api.host import ClientService, Host
from dwcp_replica.api.problems import BodyTooLargeError, Problems, read_body
from dwcp_replica.store import RefusalReason

TIMEOUT_MS_DEFAULT: Final = 10_000
TIMEOUT_MS_MAX: Final = 60_000
MESSAGE_PACK: Final = "application/msgpack"
SIGNATURE: Final = "signature"
STATUS_BY_REASON: Final[dict[str, int]] = {
    SIGNATURE: 401,
    RefusalReason.UNKNOWN_CLIENT: 403,
    RefusalReason.TOO_LARGE: 413,
}
"""Any other reason for which an envelope is rejected is a 400."""

_decode: Callable[[bytes], Envelope | Query] = decoder_of(Envelope | Query)
_decode_frame: Callable[[bytes], Envelope | Query | Pull] = decoder_of(Envelope | Query | Pull)


TOO_LARGE: Final = (
    RefusalReason.TOO_LARGE,
    f"an envelope has at most {MAX_ENVELOPE_BYTES} bytes: send fewer operations in one",
)
"""Reason and message for an envelope that is too large to read."""


def decode_request(frame: bytes) -> Envelope | Query | tuple[str, str]:
    """The envelope or query, or reason and message of what is wrong with the frame."""
    if len(frame) > MAX_ENVELOPE_BYTES:
        return TOO_LARGE
    try:
        return _decode(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        return RefusalReason.MALFORMED, f"not the MessagePack of an Envelope or Query: {error}"


def decode_frame(frame: bytes) -> Envelope | Query | Pull | tuple[str, str]:
    """As decode_request; over a connection a client may also watch."""
    if len(frame) > MAX_ENVELOPE_BYTES:
        return TOO_LARGE
    try:
        return _decode_frame(frame)
    except (msgspec.DecodeError, RecursionError) as error:
        return RefusalReason.MALFORMED, f"not the MessagePack of what a client sends: {error}"


class EnvelopeHandler:
    """Takes envelopes over plain HTTP."""

    def __init__(self, host: Host, problems: Problems) -> None:
        self._host = host
        self._problems = problems

    async def post(self, request: web.Request) -> web.Response:
        """Answer with a Reply, Busy or Rejected, or 504 when it takes too long."""
        service = self._host.service()
        if service is None:
            reason = self._host.readiness() or "not running"
            return self._problems.json(503, "not-running", f"this replica does not run: {reason}")
        timeout_ms = _timeout_ms(request.query.get("timeout_ms"))
        if timeout_ms is None:
            message = f"timeout_ms is a number of milliseconds from 1 to {TIMEOUT_MS_MAX}"
            return self._problems.json(400, "timeout", message)
        try:
            asked = decode_request(await read_body(request, MAX_ENVELOPE_BYTES))
        except BodyTooLargeError:
            asked = TOO_LARGE
        if not isinstance(asked, Envelope | Query):
            return _respond(service.unreadable(*asked))
        answer = await _ask(service, asked, timeout_ms)
        if answer is None:
            message = f"not executed within {timeout_ms} ms; it may be yet: send the same again"
            return self._problems.json(504, "timeout", message)
        return _respond(answer)


def _timeout_ms(text: str | None) -> int | None:
    if text is None:
        return TIMEOUT_MS_DEFAULT
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        return None
    return value if 1 <= (value := int(text)) <= TIMEOUT_MS_MAX else None


async def _ask(service: ClientService, asked: Envelope | Query, timeout_ms: int) -> Answer | None:
    with service.desk.waiting(asked.digest()) as future:

        def settle(answer: Answer) -> None:
            if not future.done():
                future.set_result(answer)

        if isinstance(asked, Query):
            service.ask(asked, settle)
        else:
            service.admit(asked, settle)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                return await future
        except TimeoutError:
            return None


def _respond(answer: Answer) -> web.Response:
    headers: dict[str, str] = {}
    match answer:
        case Reply() | Committed() | QueryReply():
            status = 200
        case Busy():
            status = 503
            headers["Retry-After"] = str(math.ceil(answer.retry_after_ms / 1000))
        case Rejected():
            status = STATUS_BY_REASON.get(answer.reason, 400)
    return web.Response(
        status=status, body=encode_answer(answer), content_type=MESSAGE_PACK, headers=headers
    )
