"""What a put costs on disk, by how many keys there are: the store alone, without the network.

    python benchmarks/state.py --keys 10000 1000000

Entries of 64 puts on random keys; every 100 entries a checkpoint, sealed and committed.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

from dwcp.wire.operations import Failure, PutRequest
from dwcp_replica.durable.lmdb_records import LmdbRecords
from dwcp_replica.store.keystore import KeyLimits, KeyStore

ENTRY_PUTS = 64
INTERVAL = 100
ANSWER_BYTES = 1024 * 1024
LIMITS = KeyLimits(quota_bytes=64 * 1024**3)


def run(keys: KeyStore, records: LmdbRecords, numbers: list[int], dice: random.Random) -> float:
    """Put these keys; the seconds it took."""
    began_s = time.perf_counter()
    starts = range(0, len(numbers), ENTRY_PUTS)
    for entries, start in enumerate(starts, start=1):
        for number in numbers[start : start + ENTRY_PUTS]:
            put = PutRequest(b"bench/%016d" % number, dice.randbytes(256))
            result, _ = keys.execute(put, ANSWER_BYTES)
            assert not isinstance(result, Failure)
        keys.save()
        if entries % INTERVAL == 0:
            records.seal(entries)
            records.commit(entries)
    records.commit()
    return time.perf_counter() - began_s


def measure(directory: Path, count: int, puts: int) -> None:
    records = LmdbRecords(directory)
    keys = KeyStore(records, LIMITS)
    dice = random.Random(count)
    filled_s = run(keys, records, dice.sample(range(count), count), dice)
    taken_s = run(keys, records, [dice.randrange(count) for _ in range(puts)], dice)
    records.close(sync=False)
    began_s = time.perf_counter()
    again = LmdbRecords(directory)
    KeyStore(again, LIMITS)
    root = again.digest().hex()[:12]
    opened_s = time.perf_counter() - began_s
    again.close(sync=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"{count:>9,} keys: {taken_s / puts * 1e6:6.1f} us a put "
        f"({filled_s / count * 1e6:.1f} while filling), opened in {opened_s * 1000:.1f} ms, "
        f"peak {peak} MiB, digest {root}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--puts", type=int, default=100_000)
    options = parser.parse_args()
    for count in options.keys:
        with tempfile.TemporaryDirectory() as directory:
            measure(Path(directory), count, options.puts)


if __name__ == "__main__":
    main()
