"""Users' conflict resolvers: Python entry points, and CEL expressions bounded by steps.

An installed distribution offers a function under the entry point group `dwcp.resolvers`; its name
there is the strategy's name. A CEL expression sees `values`, the concurrent values in the
document's order, and gives the one to show. Either way the result is a view: it is never stored,
and replicas need not agree on it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from dwcp.crdt import BadValue, Custom
from dwcp.crdt.values import Value

GROUP: Final = "dwcp.resolvers"
STEPS_MAX: Final = 2_000
EXPRESSION_BYTES_MAX: Final = 4096
ITEMS_PER_STEP: Final = 1_024
"""Items (characters, values in lists and maps, at any depth) that one more step is taken for."""


class ResolverError(ValueError):
    """A resolver can not be used; the message says what to do."""


def load_resolvers(found: Sequence[EntryPoint] | None = None) -> dict[str, Custom]:
    """Every installed resolver by name. Raises ResolverError for one that does not load."""
    points = list(entry_points(group=GROUP)) if found is None else list(found)
    resolvers: dict[str, Custom] = {}
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        if point.name in resolvers:
            raise ResolverError(f"two distributions offer the resolver {point.name!r}: remove one")
        try:
            function = point.load()
        except (ImportError, AttributeError) as error:
            raise ResolverError(f"resolver {point.name!r} ({point.value}): {error}") from None
        if not callable(function):
            raise ResolverError(f"resolver {point.name!r} ({point.value}) is not a function")
        resolvers[point.name] = Custom(point.name, function)
    return resolvers


def cel_resolver(name: str, expression: str, steps_max: int = STEPS_MAX) -> Custom:
    """A resolver from a CEL expression; more than `steps_max` evaluation steps are a failure.

    A step is one visit of a node of the expression, and one more for each ITEMS_PER_STEP items of
    what it gives, so that the bound is the same on every machine, and doubling again and again what
    was doubled ends soon.
    Needs the package `cel-python`. Raises ResolverError when it is missing, or for bad syntax.
    """
    try:
        import celpy
        from celpy.adapter import CELJSONEncoder, json_to_cel
        from celpy.celparser import CELParseError
        from celpy.evaluation import CELEvalError, Evaluator
    except ImportError:
        raise ResolverError("CEL resolvers need cel-python: pip install cel-python") from None
    if len(expression.encode()) > EXPRESSION_BYTES_MAX:
        raise ResolverError(f"a CEL expression has at most {EXPRESSION_BYTES_MAX} bytes")
    environment = celpy.Environment()
    try:
        tree = environment.compile(expression)
    except CELParseError as error:
        raise ResolverError(f"CEL expression {expression!r}: {error}") from None

    class Bounded(Evaluator):  # type: ignore[misc, valid-type, unused-ignore]
        """Counts steps, over all nested evaluators of one evaluation."""

        def __init__(self, ast: Any, activation: Any, steps: _Steps) -> None:
            super().__init__(ast, activation=activation)
            self.steps = steps

        def visit(self, tree: Any) -> Any:
            self.steps.take(1)
            result = super().visit(tree)
            self.steps.take(self.steps.items(result) // ITEMS_PER_STEP)
            return result

        def sub_evaluator(self, ast: Any) -> Evaluator:
            return Bounded(ast, self.activation, self.steps)

    def resolve(values: Sequence[Value]) -> Value:
        activation = environment.program(tree).new_activation()
        context = {"values": json_to_cel(list(values))}
        try:
            result = Bounded(tree, activation, _Steps(steps_max)).evaluate(context)
        except _StepsExceeded:
            raise BadValue(f"the expression needs more than {steps_max} steps") from None
        except CELEvalError as error:
            raise BadValue(f"the expression failed: {error}") from None
        return json.loads(json.dumps(result, cls=CELJSONEncoder))

    return Custom(name, resolve)


class _Steps:
    """What one evaluation may still do. Raises _StepsExceeded."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._known: dict[int, tuple[Any, int]] = {}

    def take(self, steps: int) -> None:
        """Spend steps."""
        self.left -= steps
        if self.left < 0:
            raise _StepsExceeded

    def items(self, value: Any) -> int:
        """How much a value holds; one that stands in it twice counts twice, and is asked once."""
        if isinstance(value, str | bytes):
            return len(value)
        if not isinstance(value, list | dict):
            return 1
        known = self._known.get(id(value))
        if known is None:
            parts = value if isinstance(value, list) else (*value, *value.values())
            known = value, 1 + sum(map(self.items, parts))
            self._known[id(value)] = known  # with the value, whose id so stays its own
        return known[1]


class _StepsExceeded(BaseException):
    """Not an Exception: CEL's own error handling must not take it for a value that failed."""
