"""Values of documents: JSON, bounded in depth, with one canonical form."""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from dwcp.wire.documents import MAX_DEPTH

Value = Any
"""None, bool, int (64 bits), float (finite), str, or lists and string-keyed dicts of these."""

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1


class BadValue(ValueError):  # noqa: N818 - named as the protocol names it
    """A value that is not JSON as documents hold it; the message says what to change."""


def check_value(value: Value, depth: int = 0) -> None:
    """Raise BadValue unless this is JSON: finite numbers of 64 bits, text keys, bounded depth."""
    if depth > MAX_DEPTH:
        raise BadValue(f"a value nests deeper than {MAX_DEPTH}: store its parts under paths")
    match value:
        case None | bool():
            return
        case int():
            if not INT_MIN <= value <= INT_MAX:
                raise BadValue(f"{value} does not fit 64 bits: store it as text")
        case float():
            if not math.isfinite(value):
                raise BadValue(f"{value} is not JSON: use null or text")
        case str():
            check_text(value)
        case list() | tuple():
            for item in value:
                check_value(item, depth + 1)
        case dict():
            _check_keys(value)
            for item in value.values():
                check_value(item, depth + 1)
        case _:
            raise BadValue(f"{type(value).__name__} is not JSON")


def _check_keys(value: dict[Any, Value]) -> None:
    for key in value:
        if not isinstance(key, str):
            raise BadValue(f"{key!r} is not a text key")
        check_text(key)


def check_text(text: str) -> None:
    """Raise BadValue when the text holds half of a surrogate pair, which UTF-8 can not carry."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadValue("text holds a lone surrogate: it is not Unicode") from None


def canonical(value: Value) -> bytes:
    """One byte string for each value: JSON with sorted keys. 1, 1.0 and true differ."""
    return msgspec.json.encode(value, order="deterministic")


def plain(value: Value) -> Value:
    """The value as JSON types only: no tuples, no subclasses, nothing shared with the argument."""
    match value:
        case None | bool():
            return value
        case int():
            return int(value)
        case float():
            return float(value)
        case str():
            return str.__str__(value)
        case list() | tuple():
            return [plain(item) for item in value]
        case dict():
            return {plain(key): plain(item) for key, item in value.items()}
        case _:
            return value  # `check_value` refuses it
