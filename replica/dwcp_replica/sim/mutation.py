"""One field of one message changed: the smallest lies there are, of every kind of message."""

from __future__ import annotations

from random import Random
from typing import TypeVar

import msgspec

Value = TypeVar("Value")


def mutated(message: Value, random: Random) -> Value:
    """A copy in which one field, at any depth, has another value of the same type."""
    changed = _change(message, random)
    assert type(changed) is type(message), "a mutation keeps the type"
    return changed


def _change(value: object, random: Random) -> object:
    match value:
        case bool():
            return not value
        case int():
            return max(0, value + random.choice((-1, 1, 2, 1000)))
        case bytes():
            return _flipped(value, random)
        case str():
            return random.choice(("prepare", "commit", "checkpoint"))
        case tuple():
            return _rearranged(value, random)
        case msgspec.Struct():
            names = [n for n in value.__struct_fields__ if getattr(value, n) is not None]
            name = random.choice(names)
            return msgspec.structs.replace(value, **{name: _change(getattr(value, name), random)})
    return value


def _flipped(value: bytes, random: Random) -> bytes:
    if not value:
        return value
    at = random.randrange(len(value))
    return value[:at] + bytes((value[at] ^ (1 << random.randrange(8)),)) + value[at + 1 :]


def _rearranged(value: tuple[object, ...], random: Random) -> tuple[object, ...]:
    if not value:
        return value
    at = random.randrange(len(value))
    match random.randrange(4):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value[: at + 1] + value[at:]
        case 2:
            return value[::-1]
        case _:
            return (*value[:at], _change(value[at], random), *value[at + 1 :])
