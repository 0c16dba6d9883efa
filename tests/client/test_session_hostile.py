"""Exactly once, whatever the network, f liars and forgotten sessions do to a whole history."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dwcp.matching
import dwcp.outcomes
import dwcp.session
import dwcp.waiting
from client.world import LIARS, Faults, Lie, World
from dwcp.outcomes import Answered, Declined, Unknown
from dwcp.waiting import Limits
from dwcp.wire.envelope import decode_body
from dwcp.wire.operations import PutRequest, PutResponse
from dwcp_replica.store import StoreLimits
from dwcp_replica.store.sessions import SessionLimits


def put(number: int) -> PutRequest:
    return PutRequest(b"k%d" % number, b"v%d" % number)


def check_discipline(world: World) -> None:
    """What must hold of all envelopes a client ever sent."""
    by_place: dict[tuple[int, int], bytes] = {}
    seen: Counter[bytes] = Counter()
    sequences: dict[int, list[int]] = {}
    for request, envelope in world.sent.items():
        body = decode_body(envelope.body)
        if body.session == 0:
            continue
        assert by_place.setdefault((body.session, body.sequence), request) == request
        sequences.setdefault(body.session, []).append(body.sequence)
        assert body.acked < body.sequence
        seen.update(op.key for op in body.operations if isinstance(op, PutRequest))
    assert all(count == 1 for count in seen.values()), "an operation was put into two envelopes"
    for numbers in sequences.values():
        assert numbers == list(range(1, len(numbers) + 1))


def check_outcomes(world: World, tickets: dict[int, PutRequest]) -> None:
    """Every answer is the one of the honest members' log; every key was written at most once."""
    written = world.read_all()
    for ticket, operation in tickets.items():
        outcome = world.outcomes[ticket]
        if operation.key in written:
            assert written[operation.key].version == 1, "executed twice"
            assert written[operation.key].value == operation.value
        match outcome:
            case Answered(index=index, revision=revision, results=(PutResponse(),)):
                assert written[operation.key].mod_revision == revision
                assert index <= len(world.log)
            case Declined():
                assert operation.key not in written
            case _:
                assert isinstance(outcome, Unknown), outcome


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    n=st.sampled_from([4, 7]),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    duplicate=st.sampled_from([0.0, 0.2]),
    reorder=st.booleans(),
    reconnect=st.sampled_from([0.0, 0.02]),
    liars=st.lists(st.sampled_from(LIARS), max_size=2),
    in_flight_max=st.integers(1, 6),
)
def test_exactly_once_whatever_happens(
    seed: int,
    n: int,
    loss: float,
    duplicate: float,
    reorder: bool,
    reconnect: float,
    liars: list[Lie],
    in_flight_max: int,
) -> None:
    f = (n - 1) // 3
    faults = Faults(loss=loss, duplicate=duplicate, reorder=reorder, reconnect=reconnect)
    world = World(
        seed=seed,
        n=n,
        faults=faults,
        limits=Limits(in_flight_max=in_flight_max, retry_ms=50, retry_ms_max=200, window=8),
    )
    faults.liars = dict(zip(world.random.sample(range(n), f), liars[:f], strict=False))
    world.connect()
    tickets: dict[int, PutRequest] = {}
    for number in range(40):
        operation = put(number)
        tickets[world.submit(operation)] = operation
        for _ in range(world.random.randint(0, 3)):
            world.step()
    world.heal()
    world.run()

    check_discipline(world)
    check_outcomes(world, tickets)
    assert set(world.lies) <= set(faults.liars)
    assert all(isinstance(world.outcomes[t], Answered) for t in tickets), "no session was lost"
    if not liars and not loss:
        assert not world.core.refused


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.1, 0.5]))
def test_sessions_that_expire_under_way_never_execute_anything_twice(
    seed: int, loss: float
) -> None:
    """The replicas forget sessions after 2 s of agreed time; the client is not told."""
    sessions = SessionLimits(open_tolerance_ms=900, idle_ms=2000, window=64)
    world = World(
        seed=seed,
        faults=Faults(loss=loss, reorder=True),
        limits=Limits(retry_ms=50, retry_ms_max=3000, open_ms_max=500),
        store_limits=StoreLimits(sessions=sessions),
    )
    world.connect()
    tickets: dict[int, PutRequest] = {}
    for number in range(12):
        operation = put(number)
        tickets[world.submit(operation)] = operation
        for _ in range(4):
            world.step(ms=world.random.choice([5, 50, 1500]))
    world.heal()
    world.run()
    check_discipline(world)
    check_outcomes(world, tickets)
    assert not world.lies


def test_the_same_inputs_give_the_same_bytes() -> None:
    runs = []
    for _ in range(2):
        world = World(seed=11, faults=Faults(loss=0.2, duplicate=0.1, reorder=True))
        world.connect()
        for number in range(30):
            world.submit(put(number))
            world.step()
        world.heal()
        world.run()
        runs.append(world.sends)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("module", [dwcp.matching, dwcp.session, dwcp.waiting, dwcp.outcomes])
def test_no_clock_no_randomness_no_io(module: object) -> None:
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).split(".")[0])
    pure = {"__future__", "ast", "collections", "dataclasses", "dwcp", "msgspec", "typing"}
    assert imported <= pure
