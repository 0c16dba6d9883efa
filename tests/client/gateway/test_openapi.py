"""What the OpenAPI document says holds for whatever schemathesis makes of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from client.gateway.running import running
from dwcp.gateway.openapi import document

pytestmark = [pytest.mark.slow]
EXAMPLES = 12
CHECKS = [
    schemathesis.checks.not_a_server_error,
    schemathesis.checks.status_code_conformance,
    schemathesis.checks.content_type_conformance,
    schemathesis.checks.response_schema_conformance,
]
WAITS = ("/v3/watch", "/v3/lock/lock", "/v3/election/campaign", "/v3/election/observe")
"""They answer when something happens."""
TAKES_AWAY = ("/v3/maintenance/alarm", "/v3/auth/role/")
"""An alarm stops all writes, and access that is given up stays so."""
UNAVAILABLE = {501, 503}
"""No failures of ours: what is refused by its name, and a timeout."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A gateway in a thread of its own: schemathesis calls from this one."""
    ready: list[str] = []
    begun, loops, ends = threading.Event(), [], []

    async def serve() -> None:
        over = asyncio.Event()
        loops.append(asyncio.get_running_loop())
        ends.append(over)
        async with running() as found:
            ready.append(found.url)
            begun.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert begun.wait(20)
    yield ready[0]
    loops[0].call_soon_threadsafe(ends[0].set)
    thread.join(20)


def operations() -> list[Any]:
    schema = schemathesis.openapi.from_dict(document())
    found = [result.ok() for result in schema.get_all_operations()]
    return [op for op in found if op.path not in WAITS and not op.path.startswith(TAKES_AWAY)]


@pytest.mark.parametrize("operation", operations(), ids=lambda op: op.path)
def test_answers_are_as_the_document_says(operation: Any, url: str) -> None:
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def check(case: Any) -> None:
        response = case.call(base_url=url)
        checks = CHECKS[1:] if response.status_code in UNAVAILABLE else CHECKS
        case.validate_response(response, checks=checks)

    given(case=operation.as_strategy())(check)()


def test_every_path_is_described() -> None:
    described = document()["paths"]
    assert {"/v3/kv/range", "/v3/watch", "/v3/lock/lock", "/health"} <= described.keys()
    schemas = document()["components"]["schemas"]
    assert schemas["TxnRequest"]["properties"]["success"]["items"]["$ref"].endswith("/RequestOp")
    assert all(schemas.values())
