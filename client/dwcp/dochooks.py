"""What a client's documents need of the client that they belong to."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp

from dwcp.connection import ClientHello, ServerHello
from dwcp.matching import ReplyChecker
from dwcp.wire.frontiers import Frontier
from dwcp.wire.operations import DocumentRequest, DocumentResponse
from dwcp.wire.records import EpochRecord, Member
from dwcp.wire.signing import Signer, Verifier
from dwcp.wire.strategies import DocumentSettings


class AskSettings(Protocol):
    """Asks what is agreed for documents. Raises DWCPError."""

    def __call__(self, *, timeout_ms: int | None = None) -> Awaitable[DocumentSettings]:
        """The settings that hold."""
        ...


class AskFrontier(Protocol):
    """Asks below which a document is forgotten. Raises DWCPError."""

    def __call__(
        self, document: str, *, timeout_ms: int | None = None
    ) -> Awaitable[Frontier | None]:
        """The agreed frontier."""
        ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What documents need from the client.

    `heard_of`: a member spoke of an epoch that may be new. `through_log`: have this executed by
    the log; raises DWCPError when that was not confirmed in time. `settings` and `frontier`: what
    is agreed.
    """

    genesis: EpochRecord
    signer: Signer
    verifier: Verifier
    checker: ReplyChecker
    start: Callable[[Coroutine[Any, Any, None], str], object]
    http: Callable[[], aiohttp.ClientSession | None]
    trust: Callable[[Member], aiohttp.Fingerprint | ssl.SSLContext]
    answer: Callable[[ServerHello], ClientHello]
    heard_of: Callable[[int], None]
    through_log: Callable[[DocumentRequest, type[DocumentResponse], int], Awaitable[object]]
    settings: AskSettings
    frontier: AskFrontier
