"""A process for the tests to kill: appends numbered records for ever, prints each synced one."""

from __future__ import annotations

import sys
from pathlib import Path

from replica.durable.logs import entry_record, open_wal


def main() -> None:
    wal, found, damage = open_wal(Path(sys.argv[1]), segment_bytes=200_000)
    if damage is not None and not damage.harmless:
        sys.exit(str(damage))
    number = len(found)
    print(f"ready {number}", flush=True)
    while True:
        group = [entry_record(number + i + 1, bytes(1 + number * 997 % 9000)) for i in range(5)]
        wal.append(group)
        wal.sync()
        number += len(group)
        print(number, flush=True)


if __name__ == "__main__":
    main()
