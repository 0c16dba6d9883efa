"""Whether a user's resolver is fit for use: commutative, associative, idempotent.

A resolver that is all three shows the same value wherever and however concurrent values meet. The
check is exhaustive over samples that the user gives; a law that holds for them may still fail for
other values, so give samples that look like real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product
from typing import Final, Literal

from dwcp.crdt.conflicts import FALLBACK_ERRORS, Resolver
from dwcp.crdt.values import BadValue, Value, canonical, check_value, plain

TRIPLES_MAX: Final = 20_000

Law = Literal["commutative", "associative", "idempotent", "total"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A law that failed, the values that show it, and the results that differ (or the error)."""

    law: Law
    values: tuple[Value, ...]
    results: tuple[Value, ...]


def check_resolver(resolver: Resolver, samples: Sequence[Value]) -> list[Violation]:
    """One example of each law that this resolver breaks on these samples; empty when it is fit.

    total: it gives JSON for any values. idempotent: equal values give that value. commutative: the
    order of values does not matter. associative: resolving in groups gives what resolving all does.
    """
    assert samples, "give at least one sample value"
    laws: tuple[tuple[Law, Callable[[Resolver, Sequence[Value]], Iterator[Violation]]], ...] = (
        ("idempotent", _idempotent),
        ("commutative", _commutative),
        ("associative", _associative),
    )
    found: dict[Law, Violation] = {}
    for law, check in laws:
        try:
            violation = next(check(_checked(resolver), samples), None)
        except _NotTotal as failure:
            found.setdefault("total", failure.violation)
            continue
        if violation is not None:
            found[law] = violation
    return list(found.values())


class _NotTotal(Exception):  # noqa: N818 - carries a violation, not an error
    def __init__(self, violation: Violation) -> None:
        super().__init__(violation.law)
        self.violation = violation


def _checked(resolver: Resolver) -> Resolver:
    """The resolver on copies of its values, refused when it raises or gives no JSON."""

    def resolve(values: Sequence[Value]) -> Value:
        try:
            result = resolver([plain(value) for value in values])
            check_value(result)
        except (BadValue, *FALLBACK_ERRORS) as error:
            failure = Violation("total", tuple(values), (f"{type(error).__name__}: {error}",))
            raise _NotTotal(failure) from None
        return plain(result)

    return resolve


def _differ(one: Value, other: Value) -> bool:
    return canonical(one) != canonical(other)


def _idempotent(resolver: Resolver, samples: Sequence[Value]) -> Iterator[Violation]:
    for value in samples:
        for values in ((value,), (value, value), (value, value, value)):
            result = resolver(values)
            if _differ(result, value):
                yield Violation("idempotent", values, (result, value))


def _commutative(resolver: Resolver, samples: Sequence[Value]) -> Iterator[Violation]:
    for values in islice(product(samples, repeat=3), TRIPLES_MAX):
        for some in (values[:2], values):
            wanted = resolver(some)
            for order in permutations(some):
                result = resolver(order)
                if _differ(result, wanted):
                    yield Violation("commutative", order, (result, wanted))


def _associative(resolver: Resolver, samples: Sequence[Value]) -> Iterator[Violation]:
    for one, two, three in islice(product(samples, repeat=3), TRIPLES_MAX):
        wanted = resolver((one, two, three))
        for result in (
            resolver((resolver((one, two)), three)),
            resolver((one, resolver((two, three)))),
        ):
            if _differ(result, wanted):
                yield Violation("associative", (one, two, three), (result, wanted))
