"""The systems as processes on loopback, all with their data on the same disk and fsync on."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import msgspec

from dwcp.wire.records import Parameters
from peers.build import ensure
from replica.harness import Http, Operator, Processes
from replica.ports import free_port

READY_S: Final = 30.0
_CLOCK_HZ: Final = os.sysconf("SC_CLK_TCK")


@dataclass
class System:
    """What runs: `pids` of its servers; `metrics` are pages on which fsyncs are counted."""

    name: str
    about: str
    pids: list[int]
    metrics: list[str] = field(default_factory=list)
    counters: tuple[str, ...] = ()

    def cpu_s(self) -> float:
        """Seconds of processor time that its servers have used."""
        return sum(cpu_s(pid) for pid in self.pids)

    def fsyncs(self) -> int | None:
        """How often its servers have waited for the disk; None when they do not tell."""
        if not self.metrics:
            return None
        total = 0.0
        for url in self.metrics:
            with urllib.request.urlopen(url, timeout=10) as answer:
                text = answer.read().decode()
            for name in self.counters:
                found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
                total += sum(map(float, found))
        return int(total)


def cpu_s(pid: int) -> float:
    """User and system time of a process that lives."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK_HZ


class Cluster:
    """Starts and ends one system."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def close(self) -> None:
        """End its processes."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, log: Path, command: Sequence[str | Path]) -> int:
        with log.open("ab") as out:
            process = subprocess.Popen(list(command), stdout=out, stderr=out)
        self._running.append(process)
        return process.pid


class Dwcp(Cluster):
    """Four replicas, and the directory that its client reads."""

    def __init__(self, place: Path, protocol: Literal["raft", "pbft"]) -> None:
        super().__init__()
        self.protocol = protocol
        self.directory = place / "client"
        self.directory.mkdir(parents=True)
        self._place = place
        self._processes = Processes(place)
        self.grpc = ""

    async def start(self) -> System:
        """Raises AssertionError when they are not ready in time."""
        pids = [self._processes.start(place).pid for place in self._processes.places]
        places = self._processes.places
        async with Http() as http:
            operator = Operator(http, [self._processes.client])
            operator.protocol = self.protocol
            genesis = await operator.bootstrap(places, Parameters())
        (self.directory / "genesis.msgpack").write_bytes(msgspec.msgpack.encode(genesis))
        self._processes.client.save(self.directory / "client.key")
        name = {"raft": "DWCP Datacenter", "pbft": "DWCP Internet"}[self.protocol]
        about = f"4 replicas, {self.protocol}, Byzantine trust: 2 equal signed replies answer"
        urls = [f"{place.url}/metrics" for place in places]
        return System(name, about, pids, urls, ("dwcp_wal_fsync_seconds_count",))

    def start_gateway(self) -> str:
        """Its gateway; the gRPC address."""
        self.grpc = f"127.0.0.1:{free_port()}"
        code = "from dwcp.cli import main; main()"
        self._start(
            self._place / "gateway.log",
            [sys.executable, "-c", code, "gateway", "--data", self.directory, "--grpc", self.grpc,
             "--listen", f"127.0.0.1:{free_port()}"],
        )  # fmt: skip
        return self.grpc

    def close(self) -> None:
        """See Cluster."""
        super().close()
        self._processes.__exit__()


class Etcd(Cluster):
    """Three members."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place
        self.endpoints: list[str] = []

    async def start(self) -> System:
        """Raises AssertionError when they are not ready in time."""
        self._place.mkdir(parents=True)
        program = ensure("etcd") / "server"
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
        clients = [f"http://127.0.0.1:{free_port()}" for _ in range(3)]
        together = ",".join(f"m{n}={url}" for n, url in enumerate(peers))
        pids = [
            self._start(
                self._place / f"m{n}.log",
                [program, "--name", f"m{n}", "--data-dir", self._place / f"m{n}",
                 "--listen-peer-urls", peers[n], "--initial-advertise-peer-urls", peers[n],
                 "--listen-client-urls", clients[n], "--advertise-client-urls", clients[n],
                 "--initial-cluster", together, "--log-level", "error",
                 "--quota-backend-bytes", str(8 * 1024**3)],
            )
            for n in range(3)
        ]  # fmt: skip
        self.endpoints = clients
        await eventually(f"{clients[0]}/health", lambda text: '"health":"true"' in text)
        about = "3 members, fsync on"
        counters = (
            "etcd_disk_wal_fsync_duration_seconds_count",
            "etcd_disk_backend_commit_duration_seconds_count",
        )
        return System("etcd", about, pids, [f"{url}/metrics" for url in clients], counters)


class Comet(Cluster):
    """Four validators with the built-in key-value application."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self._place = place
        self.rpc: list[str] = []

    async def start(self) -> System:
        """Raises AssertionError when they are not ready in time."""
        program = ensure("cometbft") / "cometbft"
        done = subprocess.run(
            [program, "testnet", "--v", "4", "--o", self._place, "--starting-ip-address",
             "127.0.0.1", "--populate-persistent-peers=false"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        p2p = [free_port() for _ in range(4)]
        ids = [
            subprocess.run([program, "show-node-id", "--home", self._place / f"node{n}"],
                           capture_output=True, text=True, check=True).stdout.strip()
            for n in range(4)
        ]  # fmt: skip
        peers = ",".join(f"{i}@127.0.0.1:{p}" for i, p in zip(ids, p2p, strict=True))
        pids = []
        for n in range(4):
            rpc = free_port()
            self.rpc.append(f"127.0.0.1:{rpc}")
            home = self._place / f"node{n}"
            _configure(home / "config" / "config.toml", peers)
            pids.append(self._start(
                self._place / f"node{n}.log",
                [program, "start", "--home", home, "--proxy_app", "kvstore", "--log_level", "error",
                 "--rpc.laddr", f"tcp://127.0.0.1:{rpc}", "--p2p.laddr", f"tcp://127.0.0.1:{p2p[n]}"],
            ))  # fmt: skip
        await eventually(
            f"http://{self.rpc[0]}/status",
            lambda text: int(json.loads(text)["result"]["sync_info"]["latest_block_height"]) >= 1,
        )
        return System(
            "CometBFT",
            "4 validators, kvstore, no pause between blocks, none empty, messages sent at once",
            pids,
        )


def _configure(path: Path, peers: str) -> None:
    """No pause after a commit, a large pool, peers on one host.

    Empty blocks would come one after the other without a pause, and take the processor from
    whichever system is loaded. As shipped it holds each message back for 100 ms to send it with
    others, and looks every 100 ms what a peer lacks: a block took 0.8 s on one host.
    """
    text = path.read_text()
    for name, value in {
        "persistent_peers": f'"{peers}"', "addr_book_strict": "false",
        "allow_duplicate_ip": "true", "timeout_commit": '"0s"', "skip_timeout_commit": "true",
        "create_empty_blocks": "false",
        "peer_gossip_sleep_duration": '"2ms"', "flush_throttle_timeout": '"1ms"',
        "send_rate": "104857600", "recv_rate": "104857600",
        "size": "50000", "cache_size": "100000", "max_subscription_clients": "2000",
        "max_subscriptions_per_client": "2000", "pprof_laddr": '""',
    }.items():  # fmt: skip
        text = re.sub(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
    path.write_text(text)


async def eventually(url: str, holds: object) -> None:
    """Until a page says what it should."""
    assert callable(holds)
    async with asyncio.timeout(READY_S):
        while True:
            try:
                with urllib.request.urlopen(url, timeout=2) as answer:
                    if holds(answer.read().decode()):
                        return
            except OSError:
                pass
            await asyncio.sleep(0.1)
