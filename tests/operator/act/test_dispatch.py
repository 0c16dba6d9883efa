from __future__ import annotations

import asyncio

from dwcp_operator.act.api import CLUSTER, ApiError
from dwcp_operator.act.dispatch import Dispatcher
from dwcp_operator.act.health import AGE_S_MAX, Health
from dwcp_operator.act.metrics import OperatorMetrics
from kube.apiserver import serving
from kube.subjects import resource
from replica.waiting import in_loop, until


class Rounds:
    """A loop that says what it was asked, answers what the test wants."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.asked: list[str] = []
        self.touched = 0
        self.answers: list[float | Exception | None] = []
        self.hangs: asyncio.Event | None = None

    def make(self, namespace: str, name: str) -> Rounds:
        self.made.append(f"{namespace}/{name}")
        return self

    def touch(self) -> None:
        self.touched += 1

    async def round(self) -> float | None:
        self.asked.append("round")
        if self.hangs is not None:
            await self.hangs.wait()
        answer = self.answers.pop(0) if self.answers else 60.0
        if isinstance(answer, Exception):
            raise answer
        return answer


async def run(rounds: Rounds, tasks: asyncio.TaskGroup) -> Dispatcher:
    return Dispatcher(tasks, rounds.make, OperatorMetrics())


def cancel_all() -> None:
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


@in_loop
async def test_many_wake_ups_are_one_round_and_a_later_one_reads_anew() -> None:
    rounds = Rounds()
    async with asyncio.TaskGroup() as tasks:
        dispatcher = await run(rounds, tasks)
        for _ in range(5):
            dispatcher.wake("shop", "demo")
        await until(lambda: rounds.asked, what="a round")
        await asyncio.sleep(0)
        before = len(rounds.asked)
        dispatcher.wake("shop", "demo")
        await until(lambda: len(rounds.asked) > before, what="another round")
        assert rounds.made == ["shop/demo"]
        assert rounds.touched >= 1
        cancel_all()


@in_loop
async def test_health_fails_while_a_round_does_not_end() -> None:
    rounds, now = Rounds(), [1000.0]
    rounds.hangs = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        dispatcher = Dispatcher(tasks, rounds.make, OperatorMetrics(), lambda: now[0])
        dispatcher.wake("shop", "demo")
        await until(lambda: rounds.asked, what="a round")
        for age_s, well in ((AGE_S_MAX - 1, True), (AGE_S_MAX + 1, False)):
            now[0] = 1000.0 + age_s
            health = Health(leads=True, age_s=dispatcher.age_s(), contact_age_s=0.0)
            assert (health.problem() is None) == well
        rounds.hangs.set()
        now[0] += 1.0
        dispatcher._lister = now[0]
        await until(lambda: dispatcher.age_s() <= 1.0, what="the round's end")
        cancel_all()


@in_loop
async def test_a_deleted_resource_ends_its_worker_and_a_new_one_starts_fresh() -> None:
    rounds = Rounds()
    rounds.answers = [None, None]
    async with asyncio.TaskGroup() as tasks:
        dispatcher = await run(rounds, tasks)
        dispatcher.wake("shop", "demo")
        await until(lambda: len(rounds.asked) == 2, what="both looks")
        await until(lambda: not dispatcher._workers, what="the worker's end")
        dispatcher.wake("shop", "demo")
        await until(lambda: len(rounds.asked) == 3, what="a round for the new resource")
        cancel_all()


@in_loop
async def test_a_failed_round_is_tried_again_with_everything_read() -> None:
    rounds = Rounds()
    rounds.answers = [ApiError("GET", 0, "NoAnswer", "away")]
    async with asyncio.TaskGroup() as tasks:
        dispatcher = await run(rounds, tasks)
        dispatcher.wake("shop", "demo")
        await until(lambda: len(rounds.asked) == 2, what="the second try")
        assert rounds.touched >= 1
        assert dispatcher.age_s() < 5
        cancel_all()


@in_loop
async def test_resources_of_which_no_event_came_are_found() -> None:
    rounds = Rounds()
    async with serving() as (server, api), asyncio.TaskGroup() as tasks:
        server.put("dwcpclusters", resource())
        dispatcher = await run(rounds, tasks)
        tasks.create_task(dispatcher.list_for_ever(api, CLUSTER, ()))
        await until(lambda: rounds.made == ["shop/demo"], what="the listed resource")
        cancel_all()
