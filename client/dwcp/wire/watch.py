"""Watching keys: a client pulls, and each replica answers with pages of what happened.

A pull names a place in the history and asks for what comes after it; it waits at the replica until
something matches, or for a while. Its answer claims: "of what you watch, exactly this happened
after that place and up to this one". So a replica keeps nothing about a watch but a waiting
question, a watch goes on from any place at any replica, and a client that does not pull is
sent nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from dwcp.wire.decoding import decoder_of
from dwcp.wire.operations import KeyValue
from dwcp.wire.signing import Count, Hash, Scope, Signature, digest

LAST: Final = 2**32
"""Above the place of any event in its revision."""

Place = tuple[Count, Annotated[int, Meta(ge=0, le=LAST)]]
"""A revision and a place in it; (revision, LAST) is its end."""
Filter = Literal["NOPUT", "NODELETE"]


class WatchEvent(Struct, frozen=True, array_like=True):
    """What happened to a key; etcd's Event. A deletion's kv has key and mod_revision only.

    `prev_kv` is what was before it, if that was asked for, existed, and is not compacted.
    """

    type: Literal["PUT", "DELETE"]
    kv: KeyValue
    prev_kv: KeyValue | None = None


class Pull(Struct, frozen=True, array_like=True, tag="pull"):
    """What happened to the keys in [key, range_end) after a place? As in a RangeRequest.

    `watch` tells a client's watches apart, and is part of the question's name; a replica keeps the
    newest pull of a watch. `prompt`: answer at once, even with nothing.
    """

    watch: Count
    key: bytes
    range_end: bytes
    after: Place
    filters: tuple[Filter, ...] = ()
    prev_kv: bool = False
    prompt: bool = False

    def digest(self) -> bytes:
        """Names the question."""
        return digest("pull", msgspec.msgpack.encode(self))


class Page(Struct, frozen=True, array_like=True, tag="page"):
    """A replica's signed answer to a pull: all that matches after its place and up to `upto`.

    `events` is the MessagePack of a tuple of WatchEvent. With a `compact_revision` above 0 it
    says instead that the place lies below that compaction.
    """

    request: Hash
    upto: Place
    events: bytes
    compact_revision: Count
    epoch: Count
    member: Count
    sig: Signature


_decode_events: Callable[[bytes], tuple[WatchEvent, ...]] = decoder_of(tuple[WatchEvent, ...])


def watched(key: bytes, range_end: bytes) -> tuple[bytes, bytes] | None:
    """The interval that etcd watches for these, an empty key being the first; None if empty."""
    low = key or b"\0"
    return (low, range_end) if range_end in (b"", b"\0") or low < range_end else None


def page_signing_bytes(scope: Scope, page: Page) -> bytes:
    """What a replica signs."""
    revision, sub = page.upto
    payload = b"".join(
        (
            page.request,
            revision.to_bytes(8, "big"),
            sub.to_bytes(8, "big"),
            page.compact_revision.to_bytes(8, "big"),
            page.epoch.to_bytes(8, "big"),
            digest("events", page.events),
        )
    )
    return scope.signing_bytes("page", payload)


def decode_events(events: bytes) -> tuple[WatchEvent, ...]:
    """Decode a page's events. Raises msgspec.DecodeError, naming the field."""
    return _decode_events(events)


def encode_events(events: tuple[WatchEvent, ...]) -> bytes:
    """The canonical bytes of events."""
    return msgspec.msgpack.encode(events)
