"""Real replicas that run Raft: answers, proofs, and what a stopped or killed leader costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from dwcp.identity import Ed25519Verifier
from dwcp.wire.committed import Committed, proves
from dwcp.wire.envelope import Reply
from dwcp.wire.records import Trust, scope_of
from replica.harness import Tasks


def cluster(directory: Path, trust: Trust) -> Tasks:
    tasks = Tasks(directory, 4 if trust == "Byzantine" else 3)
    tasks.operator.protocol, tasks.operator.trust = "raft", trust
    return tasks


@pytest.mark.processes
@pytest.mark.parametrize("trust", ["Byzantine", "Crash"])
def test_a_leader_stops_and_the_others_go_on(tmp_path: Path, trust: Trust) -> None:
    async def run() -> None:
        async with cluster(tmp_path, trust) as tasks:
            client = await tasks.bootstrap()
            first = await tasks.http.post_all(tasks.places, client.put(b"a", b"1"))
            client.agreed(first)
            said = await tasks.http.status(tasks.places[1])
            shown = [said[k] for k in ("mode", "protocol", "role", "primary")]
            assert shown == ["Datacenter", "raft", "follower", "test-0"]
            assert await tasks.stop(tasks.places[0]) == 0
            left = tasks.places[1:]
            second = await tasks.http.post_all(left, client.put(b"a", b"2"))
            client.agreed(second)
            leaders = {(await tasks.http.status(place))["primary"] for place in left}
            assert leaders <= {place.name for place in left}
            tasks.start(tasks.places[0])
            await tasks.http.all_ready(tasks.places)
            third = await tasks.http.post_all(tasks.places, client.put(b"a", b"3"))
            client.agreed(third)

    asyncio.run(run())


@pytest.mark.processes
def test_under_crash_trust_an_answer_carries_its_certificate(tmp_path: Path) -> None:
    async def run() -> None:
        async with cluster(tmp_path, "Crash") as tasks:
            client = await tasks.bootstrap()
            answer = await tasks.http.post(tasks.places[1], client.put(b"a", b"1"))
            assert isinstance(answer, Committed)
            assert isinstance(answer.reply, Reply)
            service = tasks.running["test-0"].running
            assert service is not None
            record = service.genesis
            assert proves(record, scope_of(record, record), Ed25519Verifier(), answer)

    asyncio.run(run())
