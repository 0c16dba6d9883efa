"""One simulated life of a cluster: first faults, then none, then every promise is checked."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Member,
    Parameters,
    start_hash,
)
from dwcp.wire.signing import Signer
from dwcp_replica.core.quorum import faults
from dwcp_replica.sim.checks import Checker, Violation
from dwcp_replica.sim.client import SimClient
from dwcp_replica.sim.crypto import KeyRing
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.strategies import STRATEGIES, strategy_hooks
from dwcp_replica.sim.world import Link, World

FAULTS_MS = 8_000
LIVENESS_MS = 240_000
REAL_SIGNATURES_EVERY = 20


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did; virtual milliseconds."""

    seed: int
    n: int
    operations: int
    executed: int
    views: int
    crashes: int
    liars: tuple[str, ...]
    evidence: int
    virtual_ms: int
    steps: int


def simulate(seed: int, n: int | None = None, operations: int = 20) -> Report:
    """Run the life that `seed` decides. Raises Violation when a promise was broken."""
    return Simulation(seed, n, operations).run()


class Simulation:
    """The world, its replicas, its clients, and the faults that the seed chose."""

    def __init__(
        self,
        seed: int,
        n: int | None = None,
        operations: int = 20,
        liars: dict[int, str] | None = None,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.n = n or self.random.choice((4, 4, 4, 7))
        self.operations = operations
        self.world = World(Random(self.random.getrandbits(64)))
        self.keys = KeyRing(real=seed % REAL_SIGNATURES_EVERY == 0)
        self.crashes = 0
        self.faults_over = False
        self.liars = self._choose_liars() if liars is None else liars
        self.checker = Checker(set(), set(self.liars))
        self.genesis, signers, client_signers = self._genesis()
        self.hosts = [self._host(me, signer) for me, signer in enumerate(signers)]
        for host in self.hosts:
            host.peers = self.hosts
            host.frames = seed % REAL_SIGNATURES_EVERY == 0
        shares = [operations // 2, operations - operations // 2]
        self.clients = [
            SimClient(
                self.world,
                f"client-{i}",
                self.genesis,
                client_signers[i],
                self.keys.verifier,
                share,
                self.checker.submitted,
            )
            for i, share in enumerate(shares)
        ]
        for client in self.clients:
            client.connect(self.hosts)

    def run(self) -> Report:
        """Faults, then healing, then every promise."""
        self._plan_faults()
        self.world.run(FAULTS_MS, lambda: False)
        self.heal()
        deadline = self.world.now_ms + LIVENESS_MS
        if not self.world.run(deadline, self._settled):
            raise Violation(f"liveness: {self._stuck()}")
        self.checker.history([call for client in self.clients for call in client.calls])
        return self.report()

    def report(self) -> Report:
        """What has happened so far."""
        return Report(
            seed=self.seed,
            n=self.n,
            operations=sum(len(client.calls) for client in self.clients),
            executed=max(self.checker.chain, default=0),
            views=self.checker.views,
            crashes=self.crashes,
            liars=tuple(f"{m}:{name}" for m, name in sorted(self.liars.items())),
            evidence=len(self.hosts[self._honest()[0]].core.standing().evidence),
            virtual_ms=self.world.now_ms,
            steps=self.world.steps,
        )

    def heal(self) -> None:
        """No more faults but the liars': links are good, everybody is up."""
        self.faults_over = True
        self.world.link = Link()
        self.world.cut.clear()
        self.world.slow.clear()
        for host in self.hosts:
            if not host.up:
                host.start()

    # --- what the seed decides ------------------------------------------------------------------

    def _choose_liars(self) -> dict[int, str]:
        count = self.random.randint(0, faults(self.n))
        members = self.random.sample(range(self.n), count)
        return {m: self.random.choice(sorted(STRATEGIES)) for m in members}

    def _genesis(self) -> tuple[EpochRecord, list[Signer], list[Signer]]:
        signers = [self.keys.signer(self.random.randbytes(32)) for _ in range(self.n)]
        clients = [self.keys.signer(self.random.randbytes(32)) for _ in range(2)]
        cluster_id = self.random.randbytes(16)
        genesis = EpochRecord(
            cluster_id=cluster_id,
            cluster="sim",
            namespace="default",
            epoch=0,
            protocol="pbft",
            trust="Byzantine",
            members=tuple(
                Member(f"sim-{i}", s.public_key, s.public_key, f"sim-{i}:1", f"http://sim-{i}:2")
                for i, s in enumerate(signers)
            ),
            clients=tuple(
                ClientIdentity(f"client-{i}", s.public_key) for i, s in enumerate(clients)
            ),
            admin=self.keys.signer(self.random.randbytes(32)).public_key,
            parameters=Parameters(
                checkpoint_interval=self.random.choice((4, 10, 100)), request_timeout_ms=500
            ),
            start_index=0,
            start_hash=start_hash(cluster_id),
            leader=0,
        )
        return genesis, signers, clients

    def _host(self, me: int, signer: Signer) -> Host:
        hooks = None
        if me in self.liars:
            hooks = strategy_hooks(self.liars[me], self.genesis, me, signer)
        host = Host(self.world, self.genesis, me, signer, self.keys.verifier, self.checker, hooks)
        host.skew_ms = self.random.randint(-200, 200)
        host.sync_ms = self.random.randint(0, 8)
        return host

    def _plan_faults(self) -> None:
        rnd = self.random
        self.world.link = Link(
            delay_ms_min=1,
            delay_ms_max=rnd.choice((2, 10, 80)),
            drop=rnd.choice((0.0, 0.02, 0.2)),
            duplicate=rnd.choice((0.0, 0.05, 0.3)),
        )
        for _ in range(rnd.randint(0, 4)):
            self._plan_crash(rnd.randrange(self.n), rnd.randint(10, FAULTS_MS - 1500))
        for _ in range(rnd.randint(0, 2)):
            self._plan_cut(rnd.randrange(self.n), rnd.randint(10, FAULTS_MS - 2500))
        if rnd.random() < 0.2:
            self.world.slow[f"sim-{rnd.randrange(self.n)}"] = rnd.choice((100, 400))

    def _plan_crash(self, member: int, at_ms: int) -> None:
        host = self.hosts[member]
        down_ms = self.random.randint(1, 1500)

        def crash() -> None:
            if host.up and not self.faults_over:
                self.crashes += 1
                host.crash()
                self.world.after(down_ms, restart)

        def restart() -> None:
            if not host.up:
                host.start()

        self.world.at(at_ms, crash)

    def _plan_cut(self, member: int, at_ms: int) -> None:
        name = self.hosts[member].name
        others = [host.name for host in self.hosts if host.name != name]
        pairs = [(name, other) for other in others]
        if self.random.random() < 0.7:  # otherwise one way only: it hears, nobody hears it
            pairs += [(other, name) for other in others]
        until_ms = self.random.randint(100, 2500)

        def cut() -> None:
            if not self.faults_over:
                self.world.cut.update(pairs)
                self.world.after(until_ms, lambda: self.world.cut.difference_update(pairs))

        self.world.at(at_ms, cut)

    # --- how it must end -------------------------------------------------------------------------

    def _honest(self) -> list[int]:
        return [m for m in range(self.n) if m not in self.liars]

    def _settled(self) -> bool:
        if not all(client.done for client in self.clients):
            return False
        applied = {self.hosts[m].store.applied_index for m in self._honest()}
        return len(applied) == 1

    def _stuck(self) -> str:
        standings = [_describe(host) for host in self.hosts]
        left = [f"{c.name} waits for {len(c._tickets)}" for c in self.clients]
        return f"not settled {LIVENESS_MS} ms after the faults: {'; '.join(left + standings)}"


def _describe(host: Host) -> str:
    s = host.core.standing()
    return (
        f"{host.name}: view {s.view}{'' if s.active else ' (changing)'} last {s.last} "
        f"final {s.final} applied {s.applied} pending {s.pending} halted {s.halted}"
    )
