"""Decoders for bytes from strangers: one kind of error, whatever is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


def decoder_of(shape: Any) -> Callable[[bytes], Any]:
    """A function that decodes MessagePack of this shape, or raises msgspec.DecodeError.

    Skipping what a shape does not know recurses, so that deep nesting would end in a
    RecursionError, and text that is not UTF-8 in a UnicodeDecodeError: to the caller both are
    malformed messages like any other.
    """
    return _guarded(msgspec.msgpack.Decoder(shape).decode, "MessagePack")


def json_decoder_of(shape: Any) -> Callable[[bytes], Any]:
    """As `decoder_of`, for JSON."""
    return _guarded(msgspec.json.Decoder(shape).decode, "JSON")


def _guarded(decode: Callable[[bytes], Any], form: str) -> Callable[[bytes], Any]:
    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except RecursionError:
            raise msgspec.DecodeError(f"{form} nested too deeply") from None
        except ValueError as error:
            raise msgspec.DecodeError(f"{form} with a bad value: {error}") from None

    return decoded
