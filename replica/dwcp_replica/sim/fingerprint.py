"""Equal states of engines found equal: a digest of all that an object holds.

Signatures are left out, since they follow from what is signed, and so is which members of a
quorum a certificate names: certificates that say the same have the same consequences. The order
of a dictionary counts only where it is an OrderedDict, whose order means something.
"""

from __future__ import annotations

import hashlib
import marshal
from collections import OrderedDict, deque
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from msgspec import Struct

ATOMS: Final = (int, bytes, str, bool, float, type(None))
SIGNATURES: Final = frozenset({"sig", "votes"})
"""Fields of messages and votes that follow from the others."""
MACHINERY: Final = frozenset({"signer", "verifier", "_draw", "draw", "out", "_driver", "_handlers"})
"""Attributes of an engine that never change, or are empty between two steps."""

Plain = Any
"""Nested tuples of atoms: what `marshal` writes the same for equal values."""


class Fingerprints:
    """Digests of objects; `ignored` are attributes that can not matter where these are used."""

    def __init__(self, ignored: Iterable[str] = ()) -> None:
        self._ignored = MACHINERY | frozenset(ignored)
        self._messages: dict[Struct, Plain] = {}
        self._fields: dict[type[Any], tuple[str, ...]] = {}

    def of(self, value: object) -> bytes:
        """16 bytes that are equal for equal values."""
        return hashlib.blake2b(marshal.dumps(self._plain(value), 2), digest_size=16).digest()

    def _plain(self, value: object) -> Plain:
        kind = type(value)
        if kind in ATOMS:
            return value
        if isinstance(value, Struct):
            return self._message(value)
        if isinstance(value, OrderedDict):
            return tuple((self._plain(key), self._plain(one)) for key, one in value.items())
        if isinstance(value, dict):
            pairs = ((self._plain(key), self._plain(one)) for key, one in value.items())
            return (*sorted(pairs, key=repr),)
        if isinstance(value, tuple | list | deque):
            return tuple(map(self._plain, value))
        if isinstance(value, set | frozenset):
            return (*sorted(map(self._plain, value), key=repr),)
        return value.value if isinstance(value, Enum) else self._object(value)

    def _message(self, message: Struct) -> Plain:
        """Messages are immutable, and met again and again."""
        found = self._messages.get(message)
        if found is None:
            names = [name for name in message.__struct_fields__ if name not in SIGNATURES]
            parts = (self._plain(getattr(message, name)) for name in names)
            found = self._messages[message] = (type(message).__name__, *parts)
        return found

    def _object(self, value: object) -> Plain:
        kind = type(value)
        if callable(value):
            return getattr(value, "__qualname__", kind.__name__)
        names = self._fields.get(kind)
        if names is None:
            slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
            names = self._fields[kind] = tuple(n for n in sorted(slots) if self._matters(kind, n))
        held = [(name, getattr(value, name)) for name in names if hasattr(value, name)]
        held += [
            (n, v) for n, v in getattr(value, "__dict__", {}).items() if n not in self._ignored
        ]
        return (kind.__name__, *((name, self._plain(one)) for name, one in sorted(held, key=_name)))

    def _matters(self, kind: type[Any], name: str) -> bool:
        """A book's `votes` are the votes themselves; a vote's signature follows from it."""
        del kind
        return name not in self._ignored and name != "sig"


def _name(pair: tuple[str, object]) -> str:
    return pair[0]
