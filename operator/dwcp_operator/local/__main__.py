"""The supervisor as a process of its own: what `dwcp up --detach` leaves in the background."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from dwcp_operator.local.errors import LocalError
from dwcp_operator.local.layout import Layout, Lock
from dwcp_operator.local.observe import utc_now
from dwcp_operator.local.supervisor import Supervisor


def _say(line: str) -> None:
    sys.stdout.write(f"{utc_now()} {line}\n")
    sys.stdout.flush()


async def _supervise(layout: Layout, *, allow_strategies: bool) -> None:
    supervisor = Supervisor(
        layout,
        emit=_say,
        on_status=lambda _: None,
        allow_strategies=allow_strategies,
        leave_on_fault=True,
    )
    await supervisor.run()


def main() -> int:
    """Supervise the directory whose lock the parent process took."""
    parser = argparse.ArgumentParser(prog="python -m dwcp_operator.local")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--lock-fd", type=int, required=True)
    parser.add_argument("--allow-test-strategies", action="store_true")
    options = parser.parse_args()
    lock = Lock.inherit(options.lock_fd)
    try:
        layout = Layout(options.data)
        asyncio.run(_supervise(layout, allow_strategies=options.allow_test_strategies))
    except LocalError as error:
        _say(str(error))
        return 1
    finally:
        lock.release()
    return 0


if __name__ == "__main__":
    sys.exit(main())
