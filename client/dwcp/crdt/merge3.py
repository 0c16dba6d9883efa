"""Three-way merge of JSON values: what only one side changed is taken from that side."""

from __future__ import annotations

from typing import Final

from dwcp.crdt.values import Value, canonical


class _Absent:
    """Marks a key that a side does not have; no JSON value is equal to it."""


_ABSENT: Final = _Absent()


def merge3(base: Value, left: Value, right: Value) -> Value:
    """Merge two values that both came from `base`.

    Objects merge key by key, at any depth. Where both sides changed the same thing differently,
    a change wins over a removal, and of two values the one with the greater canonical JSON. So
    the result does not depend on which side is called left. Lists are taken whole.
    """
    merged = _merge(base, left, right)
    assert not isinstance(merged, _Absent), "two values merge to a value"
    return merged


def _merge(base: Value, left: Value, right: Value) -> Value:
    if _same(left, right) or _same(base, right):
        return left
    if _same(base, left):
        return right
    if isinstance(left, dict) and isinstance(right, dict):
        return _merge_objects(base if isinstance(base, dict) else {}, left, right)
    if isinstance(left, _Absent):
        return right
    if isinstance(right, _Absent):
        return left
    return max(left, right, key=canonical)


def _merge_objects(
    base: dict[str, Value], left: dict[str, Value], right: dict[str, Value]
) -> dict[str, Value]:
    merged = {}
    for key in sorted({*left, *right}):
        value = _merge(base.get(key, _ABSENT), left.get(key, _ABSENT), right.get(key, _ABSENT))
        if not isinstance(value, _Absent):
            merged[key] = value
    return merged


def _same(one: Value, other: Value) -> bool:
    if isinstance(one, _Absent) or isinstance(other, _Absent):
        return one is other
    return canonical(one) == canonical(other)
