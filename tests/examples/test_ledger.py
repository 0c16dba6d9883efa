"""The example of a state machine of one's own, on four real processes."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import msgspec
import pytest

from dwcp import errors
from dwcp.client import Client
from dwcp.wire.operations import Command, CommandResult, PutRequest
from dwcp.wire.records import Parameters
from dwcp_replica.store.machine import CommandRefusedError, Moment
from dwcp_replica.store.records import MemoryRecords
from replica.harness import Http, Operator, Processes

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MOMENT = Moment(1, 0, bytes(32))
encode = msgspec.msgpack.encode


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.syspath_prepend(EXAMPLES)
    import ledger

    return ledger


def test_money_is_neither_made_nor_lost_by_moving_it(ledger) -> None:  # type: ignore[no-untyped-def]
    machine = ledger.Ledger()
    machine.attach(MemoryRecords())

    def run(command: object) -> bytes:
        return machine.apply(encode(command), MOMENT)

    assert run(ledger.Deposit("ann", 100)) == b"100"
    assert run(ledger.Move("ann", "bob", 30)) == b"70"
    before = dict(machine.snapshot())
    for bad in (
        ledger.Move("ann", "bob", 71),
        ledger.Move("ann", "", 10),
        ledger.Move("ann", "x" * 65, 10),
        ledger.Deposit("ann", 0),
        ledger.Deposit("ann", -5),
        ledger.Move("ann", "bob", -5),
        ["other"],
    ):
        with pytest.raises(CommandRefusedError):
            run(bad)
        assert dict(machine.snapshot()) == before
    assert (run(ledger.Balance("ann")), run(ledger.Balance("bob"))) == (b"70", b"30")


@pytest.mark.processes
def test_a_cluster_runs_it(tmp_path: Path, ledger) -> None:  # type: ignore[no-untyped-def]
    """Exactly once, refused with its reason, and kept while replicas are killed and come back."""
    path = os.pathsep.join([str(EXAMPLES), *(p for p in sys.path if p)])

    async def run(processes: Processes) -> None:
        async with Http() as http:
            operator = Operator(http, [processes.client])
            parameters = Parameters(checkpoint_interval=10, request_timeout_ms=500)
            genesis = await operator.bootstrap(processes.places, parameters)
            async with Client.connect(genesis, processes.client) as client:
                await scenario(client, processes)

    async def scenario(client: Client, processes: Processes) -> None:
        await client.command(encode(ledger.Deposit("ann", 1000)))
        with pytest.raises(errors.Refused, match="ann has only 1000"):
            await client.command(encode(ledger.Move("ann", "bob", 1001)))
        processes.kill(processes.places[3])
        for number in range(60):
            await client.command(encode(ledger.Move("ann", f"b{number % 7}", 1)))
        processes.start(processes.places[3], "--machine", "ledger:Ledger", PYTHONPATH=path)
        await client.put("key", "beside")
        async with Http() as http:
            await http.all_ready([processes.places[3]])
        processes.kill(processes.places[1])
        found = await client.execute(
            encode(ledger.Balance("ann")), Command(b"nonsense"), PutRequest(b"key", b"2")
        )
        assert found.results[0] == CommandResult(b"940")
        assert getattr(found.results[1], "message", None) == "not a Deposit, Move or Balance"
        balances = [
            int(await client.command(encode(ledger.Balance(f"b{number}")))) for number in range(7)
        ]
        assert sum(balances) == 60

    with Processes(tmp_path) as processes:
        for place in processes.places:
            processes.start(place, "--machine", "ledger:Ledger", PYTHONPATH=path)
        asyncio.run(run(processes))


@pytest.mark.slow
@pytest.mark.processes
def test_a_member_killed_while_it_fetches_the_state(tmp_path: Path, ledger) -> None:  # type: ignore[no-untyped-def]
    """It has lost its state, and is killed again and again soon after its start."""
    path = os.pathsep.join([str(EXAMPLES), *(p for p in sys.path if p)])
    options = ("--machine", "ledger:Ledger", "--log-bytes", "200000")

    async def run(processes: Processes) -> None:
        async with Http() as http:
            operator = Operator(http, [processes.client])
            parameters = Parameters(checkpoint_interval=10, request_timeout_ms=1000)
            genesis = await operator.bootstrap(processes.places, parameters)
            async with Client.connect(genesis, processes.client) as client:
                await fill(client, 200)
                victim = processes.places[2]
                processes.kill(victim)
                shutil.rmtree(victim.data / "state")
                await fill(client, 30)
                for turn in range(6):
                    processes.start(victim, *options, PYTHONPATH=path)
                    await http.eventually(lambda: http.is_up(victim), what="it listens")
                    await asyncio.sleep(0.05 * turn)
                    processes.kill(victim)
                processes.start(victim, *options, PYTHONPATH=path)
                await http.all_ready([victim])
                await fill(client, 20)
                await http.eventually(lambda: equal(http, processes), what="one state")

    async def fill(client: Client, count: int) -> None:
        for number in range(count):
            puts = [PutRequest(b"k%d" % (number * 16 + n), bytes(2000)) for n in range(16)]
            await client.execute(encode(ledger.Deposit("ann", 1)), *puts)

    async def equal(http: Http, processes: Processes) -> bool:
        found = [await http.status(place) for place in processes.places]
        return len({(one["appliedIndex"], one["stableState"]) for one in found}) == 1

    with Processes(tmp_path) as processes:
        for place in processes.places:
            processes.start(place, *options, PYTHONPATH=path)
        asyncio.run(run(processes))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ledger", "not MODULE:CLASS"),
        ("nowhere:Machine", "PYTHONPATH"),
        ("ledger:Nothing", "PYTHONPATH"),
        ("ledger:Moment", "no arguments"),
        ("builtins:dict", "no state machine"),
    ],
)
def test_a_wrong_name_is_refused_with_advice(tmp_path: Path, name: str, says: str) -> None:
    with Processes(tmp_path, count=1) as processes:
        path = os.pathsep.join([str(EXAMPLES), *(p for p in sys.path if p)])
        code, said = processes.run(processes.places[0], "--machine", name, PYTHONPATH=path)
    assert code == 78
    assert says in said
