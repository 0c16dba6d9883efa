"""Fetching epoch records from one replica; whoever asks checks them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord, Records
from dwcp.wire.records import Member

ASK_S_MAX: Final = 10.0
RECORDS_BYTES_MAX: Final = 4 * 1024 * 1024

_decode_records: Callable[[bytes], Records] = decoder_of(Records)


async def records_of(
    http: aiohttp.ClientSession, member: Member, after: int,
    trust: aiohttp.Fingerprint | ssl.SSLContext | bool,
) -> tuple[CertifiedRecord, ...]:  # fmt: skip
    """The records after epoch `after` that a replica shows, unchecked; none when it does not."""
    where = f"{member.client.rstrip('/')}/dwcp/v1/epochs?from={after}"
    try:
        async with asyncio.timeout(ASK_S_MAX), http.get(where, ssl=trust) as response:
            return _decode_records(await response.content.read(RECORDS_BYTES_MAX)).records
    except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
        return ()
