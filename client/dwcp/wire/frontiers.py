"""Frontiers of collection: members vote in the log, and a quorum of equal votes agrees on one.

A vote is an operation of a member, alone in an envelope that its identity key signs, as a report of
its network is. It names the heads below which operations may be forgotten, and the digest of the
image that stands for them, so that whoever comes later can take the image from anyone.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from dwcp.wire.documents import DocumentName
from dwcp.wire.signing import Count, Hash, digest

FRONTIER_HEADS_MAX: Final = 16


class Frontier(Struct, frozen=True, array_like=True):
    """Heads of the version that an image stands for, ascending; `image` is the image's digest."""

    heads: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=FRONTIER_HEADS_MAX)]
    image: Hash


class FrontierVote(Struct, frozen=True, array_like=True, tag="frontier_vote"):
    """A member holds all below this frontier durably, for long enough, and would strand nothing.

    `stamp_ms` is its clock (Unix milliseconds), above that of its last vote.
    """

    stamp_ms: Count
    document: DocumentName
    frontier: Frontier


class FrontierVoted(Struct, frozen=True, array_like=True, tag="frontier_vote"):
    """The vote counts until the member's next one for the document."""


class FrontierGetRequest(Struct, frozen=True, array_like=True, tag="frontier_get"):
    """Ask for the agreed frontier of a document that the client may read."""

    document: DocumentName


class FrontierResponse(Struct, frozen=True, array_like=True, tag="frontier"):
    """The agreed frontier; None while nothing may be forgotten."""

    frontier: Frontier | None = None


def image_digest(image: bytes) -> bytes:
    """Names an image: 32 bytes."""
    return digest("document-image", image)
