"""Bytes changed at random, and how the engines and handlers that got them took it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

OUTCOMES = ("undecodable", "refused", "same", "of no consequence", "a request", "a part")
"""Not a message; refused with a counted reason; means what the original meant; changed nothing;
what its signer may ask for; a part of it holds, and no more was taken."""


def mutated(frame: bytes, draw: Random) -> bytes:
    """A frame with one to five small changes: bits, bytes, gaps, insertions."""
    data = bytearray(frame)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xC0, 0xCF, 0xFF))
            case 2:
                del data[at : at + draw.randint(1, 8)]
            case _:
                data[at:at] = draw.randbytes(draw.randint(1, 8))
        if not data:
            return b"\x00"
    return bytes(data)


def smallest(shape: Any) -> Any:
    """The smallest value of a message's type, field by field."""
    return msgspec.convert(_plain(msgspec.inspect.type_info(shape)), shape, strict=False)


def _plain(info: Any) -> Any:
    """The same as plain containers and numbers, which `convert` takes."""
    match info:
        case msgspec.inspect.StructType():
            values = [_plain(field.type) for field in info.fields]
            names = [field.encode_name for field in info.fields]
            tag = [] if info.tag is None else [info.tag]
            if info.array_like:
                return [*tag, *values]
            return dict(zip(names, values, strict=True))
        case msgspec.inspect.UnionType(types):
            return None if info.includes_none else _plain(types[0])
        case msgspec.inspect.LiteralType(values):
            return values[0]
        case msgspec.inspect.VarTupleType():
            return [_plain(info.item_type)] * (info.min_length or 0)
        case msgspec.inspect.BytesType() | msgspec.inspect.StrType():
            size = info.min_length or 0
            return bytes(size) if isinstance(info, msgspec.inspect.BytesType) else "x" * size
        case msgspec.inspect.IntType():
            return info.ge or 0
        case msgspec.inspect.BoolType():
            return False
    raise TypeError(f"no smallest value of {info}")


@dataclass
class Tally:
    """How many frames of each kind ended how. `frames` is how many each kind should get."""

    frames: int
    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def room(self, kind: str) -> int:
        """How many frames of a kind are still wanted."""
        return self.frames - self.counts.get(kind, Counter()).total()

    def note(self, kind: str, outcome: str) -> None:
        """Count one frame."""
        assert outcome in OUTCOMES, outcome
        self.counts.setdefault(kind, Counter())[outcome] += 1

    def lines(self) -> list[str]:
        """A line for each kind."""
        return [f"{kind}: {dict(sorted(c.items()))}" for kind, c in sorted(self.counts.items())]


@dataclass
class Target:
    """Something that takes bytes from strangers: genuine frames, and how it takes a changed one.

    `take` asserts that nothing has changed, and says how the frame was taken.
    """

    kind: str
    genuine: list[bytes]
    take: Callable[[bytes], str]

    def disturb(self, tally: Tally, draw: Random) -> None:
        """As many mutated frames as the tally wants."""
        for turn in range(tally.room(self.kind)):
            frame = self.genuine[turn % len(self.genuine)]
            changed = mutated(frame, draw)
            tally.note(self.kind, "same" if changed == frame else self.take(changed))
