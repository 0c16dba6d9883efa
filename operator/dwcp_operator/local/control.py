"""What `dwcp up`, `down` and `status` do to a local cluster from outside its supervisor."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import aiohttp
import psutil
from pydantic import TypeAdapter, ValidationError

from dwcp_operator.conditions import situation
from dwcp_operator.local.errors import StartFailedError
from dwcp_operator.local.files import last_lines, replace_file, rotate
from dwcp_operator.local.genesis import GenesisKeeper
from dwcp_operator.local.layout import ClusterFile, Layout, Lock, open_layout, read_supervisor
from dwcp_operator.local.observe import Observer, Run, utc_now
from dwcp_operator.local.processes import (
    LOG_BYTES_MAX,
    SUPERVISOR_MODULE,
    find_members,
    find_supervisor,
    is_alive,
    kill,
    terminate,
)
from dwcp_operator.local.supervisor import STOP_S_MAX, Supervisor
from dwcp_operator.plan.observed import Desired
from dwcp_operator.plan.planner import plan
from dwcp_operator.resources import ClusterStatus, Condition
from dwcp_operator.status import cluster_status, is_available

DOWN_S_MAX: Final = 10.0
POLL_S: Final = 0.05

Emit = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """A local cluster as seen from outside: its status, and process ids by member name."""

    cluster: ClusterFile
    status: ClusterStatus
    pids: dict[str, int]
    supervised: bool
    learners: tuple[str, ...]
    """Replicas that run, or are to, and are no members: not yet, or not any more."""


# --- status ----------------------------------------------------------------------------------


async def look(layout: Layout) -> Standing:
    """Look at the cluster now, with fresh nonces; needs no supervisor. Raises LocalError."""
    layout, cluster, manifest = open_layout(layout.root)
    names = tuple(m.name for m in cluster.members)
    found = find_members(layout, names)
    supervised = find_supervisor(read_supervisor(layout)) is not None
    keeper = GenesisKeeper(layout, cluster, manifest)
    async with aiohttp.ClientSession() as http:
        observer = Observer(layout, cluster, keeper, http)
        observed = await observer.observe({name: Run(running=True) for name in found})
    desired = Desired(cluster=cluster.name, members=keeper.members)
    status = cluster_status(
        situation(desired, observed, plan(desired, observed)),
        generation=cluster.generation,
        cluster_id=cluster.cluster_id,
        previous=_last_conditions(layout),
        now=utc_now(),
    )
    pids = {name: int(process.pid) for name, process in found.items()}
    if not supervised:
        status = _without_supervisor(status, layout)
    learners = tuple(name for name in names if name not in keeper.members)
    return Standing(cluster, status, pids, supervised, learners)


def last_status(layout: Layout) -> ClusterStatus | None:
    """What the supervisor wrote last; None before it has looked."""
    try:
        return TypeAdapter(ClusterStatus).validate_json(layout.status.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _last_conditions(layout: Layout) -> tuple[Condition, ...]:
    status = last_status(layout)
    return status.conditions if status is not None else ()


def _without_supervisor(status: ClusterStatus, layout: Layout) -> ClusterStatus:
    """Nobody carries steps out: say so, instead of what a supervisor would do."""
    idle = {
        "status": "False",
        "reason": "NotSupervised",
        "message": f"no supervisor runs: start it with `dwcp up --data {layout.root}`",
    }
    conditions = tuple(
        c.model_copy(update=idle) if c.type == "Progressing" else c for c in status.conditions
    )
    return status.model_copy(update={"conditions": conditions})


# --- up --------------------------------------------------------------------------------------


async def run_here(
    layout: Layout,
    *,
    emit: Emit,
    on_available: Callable[[ClusterStatus], None],
    timeout_s: float,
    allow_strategies: bool,
) -> None:
    """Supervise in this process until a signal. Raises StartFailedError after `timeout_s`."""
    available = asyncio.Event()

    def on_status(status: ClusterStatus) -> None:
        if is_available(status) and not available.is_set():
            available.set()
            on_available(status)

    supervisor = Supervisor(
        layout, emit=emit, on_status=on_status, allow_strategies=allow_strategies
    )
    run = asyncio.create_task(supervisor.run())
    waits = asyncio.create_task(available.wait())
    try:
        await asyncio.wait({run, waits}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not available.is_set() and not run.done():
            supervisor.stop()
            await run
            raise StartFailedError(_with_logs(layout, _too_slow(timeout_s), supervisor=False))
        await run
    finally:
        waits.cancel()


def start_detached(
    layout: Layout, lock: Lock, *, allow_strategies: bool
) -> subprocess.Popen[bytes]:
    """Start a supervisor in the background, in a session of its own; it inherits the lock."""
    rotate(layout.supervisor_log, size_max=LOG_BYTES_MAX)
    layout.status.unlink(missing_ok=True)  # an earlier supervisor's word, if it was killed
    command = [
        *(sys.executable, "-m", SUPERVISOR_MODULE),
        *("--data", str(layout.root)),
        *("--lock-fd", str(lock.fileno())),
    ]
    if allow_strategies:
        command.append("--allow-test-strategies")
    with layout.supervisor_log.open("ab") as out:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=(lock.fileno(),),
        )


def wait_available(
    layout: Layout, supervisor: subprocess.Popen[bytes], timeout_s: float
) -> ClusterStatus:
    """Wait until the supervisor says Available; else stop it. Raises StartFailedError."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = last_status(layout)
        if status is not None and is_available(status):
            return status
        if supervisor.poll() is not None:
            raise StartFailedError(_with_logs(layout, "the supervisor ended", supervisor=True))
        time.sleep(POLL_S)
    down(layout)
    raise StartFailedError(_with_logs(layout, _too_slow(timeout_s), supervisor=True))


def _too_slow(timeout_s: float) -> str:
    return f"the cluster was not available within {timeout_s:g} s and was stopped"


def _with_logs(layout: Layout, what: str, *, supervisor: bool) -> str:
    lines = [f"{what}; the last lines of the logs:"]
    if supervisor:
        lines += [f"  supervisor: {line}" for line in last_lines(layout.supervisor_log, 10)]
    for path in sorted((layout.root / "logs").glob("*.log")):
        lines += [f"  {path.stem}: {line[:300]}" for line in last_lines(path, 2)]
    lines.append(f"All of them are in {layout.root}.")
    return "\n".join(lines)


# --- restart ---------------------------------------------------------------------------------


def restart(layout: Layout, timeout_s: float) -> ClusterStatus:
    """Have the supervisor restart all members, one at a time; returns when all vote again.

    Raises StartFailedError after `timeout_s`, or when no supervisor runs.
    """
    _, cluster, _ = open_layout(layout.root)
    supervisor = find_supervisor(read_supervisor(layout))
    if supervisor is None:
        raise StartFailedError(
            f"no supervisor runs, and nothing is to be restarted: `dwcp up --data {layout.root}`"
        )
    wanted = secrets.token_hex(8)
    replace_file(layout.restart, wanted.encode())
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = last_status(layout)
        if status is not None and _all_restarted(status, wanted, len(cluster.members)):
            return status
        if not is_alive(supervisor):
            raise StartFailedError(_with_logs(layout, "the supervisor ended", supervisor=True))
        time.sleep(POLL_S)
    what = f"not all members were restarted within {timeout_s:g} s; the supervisor goes on"
    raise StartFailedError(_with_logs(layout, what, supervisor=True))


def _all_restarted(status: ClusterStatus, revision: str, n: int) -> bool:
    upgrade = status.upgrade
    return upgrade is not None and (upgrade.revision, upgrade.updated) == (revision, n)


# --- down ------------------------------------------------------------------------------------


def down(layout: Layout) -> list[str]:
    """Stop the supervisor and the members, by process id; keeps all data.

    Returns what was stopped, one sentence each; bounded by 10 s.
    """
    _, cluster, _ = open_layout(layout.root)
    deadline = time.monotonic() + DOWN_S_MAX
    names = [m.name for m in cluster.members]
    before = find_members(layout, names)
    said = []
    supervisor = find_supervisor(read_supervisor(layout))
    if supervisor is not None:
        terminate(supervisor)
        # The supervisor stops its members in STOP_S_MAX and then kills them: leave it the time.
        ended = _wait_gone([supervisor], min(deadline, time.monotonic() + STOP_S_MAX + 1.0))
        if not ended:
            kill(supervisor)
        how = "stopped" if ended else "killed"
        said.append(f"supervisor (pid {supervisor.pid}) {how}")
    # Members that had no supervisor, and those that were just being started by it.
    left = find_members(layout, names)
    for process in left.values():
        terminate(process)
    if not _wait_gone(list(left.values()), deadline - 1.0):
        for process in left.values():
            kill(process)
        _wait_gone(list(left.values()), deadline)
    said += [f"{name} (pid {p.pid}) stopped" for name, p in sorted((before | left).items())]
    return said


def _wait_gone(processes: list[psutil.Process], deadline: float) -> bool:
    while any(is_alive(p) for p in processes):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


# --- what is shown ---------------------------------------------------------------------------


def members_tree(status: ClusterStatus, layout: Layout) -> list[dict[str, object]]:
    """The members with their process ids, as `dwcp status` shows them."""
    found = find_members(layout, (m.name for m in status.members))
    return _members(status, {name: int(process.pid) for name, process in found.items()})


def _members(status: ClusterStatus, pids: dict[str, int]) -> list[dict[str, object]]:
    return [
        {**m.model_dump(mode="json", by_alias=True), "pid": pids.get(m.name)}
        for m in status.members
    ]


def status_tree(standing: Standing) -> dict[str, object]:
    """What `dwcp status -o json` prints: the resource's status, with names and process ids."""
    tree = standing.status.manifest()
    return {
        "cluster": standing.cluster.name,
        "namespace": standing.cluster.namespace,
        **{k: tree.get(k) for k in ("mode", "epoch", "view", "primary")},
        **tree,
        "supervised": standing.supervised,
        "learners": list(standing.learners),
        "members": _members(standing.status, standing.pids),
    }
