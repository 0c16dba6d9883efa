"""One simulated life of a cluster: first faults, then none, then every promise is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from dwcp.wire.records import ClientIdentity, EpochRecord, Member, Parameters, start_hash
from dwcp.wire.signing import Signer
from dwcp_replica.core.effects import Alarm
from dwcp_replica.sim import scenario as plan
from dwcp_replica.sim.admin import Admin
from dwcp_replica.sim.checks import Checker, Violation
from dwcp_replica.sim.client import SimClient
from dwcp_replica.sim.crypto import KeyRing
from dwcp_replica.sim.host import Host, Machine
from dwcp_replica.sim.liar import Context, Liar
from dwcp_replica.sim.memo import hashes_remembered
from dwcp_replica.sim.registry import FORGETFUL, LIARS, TWINS
from dwcp_replica.sim.scenario import FAULTS_MS, Scenario
from dwcp_replica.sim.tricks import Twin
from dwcp_replica.sim.world import Link, World

LIVENESS_MS: Final = 240_000
"""How long after the last fault every answer may take, in virtual ms."""
STEPS_MAX: Final = 60_000
"""Twenty times what a short life takes; more are a storm of messages that does not end."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did; virtual milliseconds."""

    seed: int
    n: int
    operations: int
    executed: int
    views: int
    crashes: int
    transfers: int
    faults: tuple[str, ...]
    liars: tuple[str, ...]
    evidence: int
    refused: int
    recovered_ms: int
    virtual_ms: int
    steps: int
    protocol: str
    trust: str
    epochs: int


def simulate(seed: int, n: int | None = None, operations: int = 20) -> Report:
    """Run the life that `seed` decides. Raises Violation when a promise was broken."""
    return Simulation(plan.derive(seed, n, operations)).run()


class Simulation:
    """The world, its replicas, its clients, and the faults of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.n = scenario.n
        self.world = World(self._dice("network"), steps_max=STEPS_MAX + 2500 * self.n**2)
        self.crashes = 0
        self.checker = Checker(scenario)
        self._keys = KeyRing(real=scenario.real)
        self._faults_over = False
        self._last_fault_ms = 0
        dice = self._dice("keys")
        signers = [self._keys.signer(dice.randbytes(32)) for _ in range(self.n)]
        clients = [self._keys.signer(dice.randbytes(32)) for _ in range(scenario.clients)]
        self.genesis = self._genesis(dice.randbytes(16), signers, clients)
        self.hosts = [self._host(m, signers[m], side=0) for m in range(self.n)]
        self.twins = [
            self._host(m, signers[m], side=1)
            for m, name in sorted(scenario.liars.items())
            if name == TWINS
        ]
        self.all_hosts = [*self.hosts, *self.twins]
        for host in self.all_hosts:
            host.peers = [peer for peer in self.all_hosts if peer.me != host.me]
            host.frames = scenario.real
            host.start()
        self._key_dice = dice
        self.admin = Admin(self.world, self.genesis, clients[0], self.all_hosts)
        self.clients = [self._client(i, signer) for i, signer in enumerate(clients)]

    def run(self) -> Report:
        """Faults, then healing, then every promise."""
        with hashes_remembered():
            return self._run()

    def _run(self) -> Report:
        self._plan_faults()
        self.world.run(FAULTS_MS, self._quiet)
        return self.end_well()

    def end_well(self) -> Report:
        """Faults end; then every promise must be kept. Raises Violation."""
        self.heal()
        began_ms = self.world.now_ms
        if not self.world.run(began_ms + LIVENESS_MS, self._settled):
            raise Violation(f"liveness: {self._stuck()}")
        calls = [call for client in self.clients for call in client.calls]
        self.checker.history(calls)
        self._same_state()
        furthest = max(self._honest(), key=lambda host: host.store.applied_index)
        self.checker.reads(calls, furthest.store)
        for client in self.clients:
            self.checker.lies(client.name, client.lies)
        return self._report(self.world.now_ms - began_ms)

    def _quiet(self) -> bool:
        """Every fault is over and every client waits to be told to ask for its last operation."""
        over = self.world.now_ms > self._last_fault_ms
        return over and all(client.idle for client in self.clients)

    def heal(self) -> None:
        """No more faults but the liars': links are good, disks have space, everybody is up."""
        self._faults_over = True
        self.world.heal()
        for host in self.all_hosts:
            host.disk.free()
            if not host.up:
                host.start()
        for client in self.clients:
            client.release()

    # --- what the scenario says ------------------------------------------------------------------

    def _dice(self, what: str) -> Random:
        return Random(f"{self.scenario.seed}/{what}")

    def _genesis(
        self, cluster_id: bytes, signers: list[Signer], clients: list[Signer]
    ) -> EpochRecord:
        members = [
            Member(f"sim-{i}", s.public_key, s.public_key, f"sim-{i}:1", f"http://sim-{i}:2")
            for i, s in enumerate(signers)
        ]
        known = [ClientIdentity(f"client-{i}", s.public_key) for i, s in enumerate(clients)]
        return EpochRecord(
            cluster_id=cluster_id,
            cluster="sim",
            namespace="default",
            epoch=0,
            protocol=self.scenario.protocol,
            trust=self.scenario.trust,
            members=tuple(members),
            clients=tuple(known),
            admin=clients[0].public_key,
            parameters=Parameters(
                checkpoint_interval=self.scenario.interval,
                request_timeout_ms=self.scenario.timeout_ms,
                fast_reads=self.scenario.fast_reads,
                modes=self.scenario.modes,
            ),
            start_index=0,
            start_hash=start_hash(cluster_id),
            leader=0,
        )

    def _host(self, me: int, signer: Signer, side: int) -> Host:
        return Host(
            self.world,
            self.genesis,
            me,
            (signer, self._keys.verifier),
            self.checker,
            self.scenario.machines[me],
            (self._dice(f"disk {me} {side}"), self._dice(f"draw {me} {side}")),
            self.liar(me, signer, side),
            suffix="~" * side,
        )

    def context(self, me: int, signer: Signer, side: int) -> Context:
        """What a member needs to lie; `side` tells twins apart."""
        return Context(self.genesis, me, signer, self._dice(f"liar {me} {side}"))

    def liar(self, me: int, signer: Signer, side: int) -> Liar | None:
        """How this member lies, or None."""
        name = self.scenario.liars.get(me)
        if name is None:
            return None
        context = self.context(me, signer, side)
        return Twin(context, side) if name == TWINS else LIARS[name](context)

    def _client(self, number: int, signer: Signer) -> SimClient:
        share = (self.scenario.operations + number) // self.scenario.clients
        client = SimClient(
            self.world,
            f"client-{number}",
            self.genesis,
            (signer, self._keys.verifier),
            share,
            self.scenario.think_ms,
            self.checker.submitted,
            self._dice(f"client {number}"),
        )
        client.connect(self.all_hosts)
        return client

    # --- faults ----------------------------------------------------------------------------------

    def _plan_faults(self) -> None:
        weather = self.scenario.weather
        self.world.link = replace(weather)
        self.world.narrow = weather.bytes_per_ms > 0
        if self.scenario.uneven:
            self._make_uneven(weather)
        for fault in self.scenario.faults:
            self.world.at(fault.at_ms, self._do, fault)
        self._last_fault_ms = max((f.end_ms for f in self.scenario.faults), default=0)
        for member, name in sorted(self.scenario.liars.items()):
            if name == FORGETFUL:
                self.world.at(300 + 200 * member, self._do, plan.Crash(member, 0, 50))

    def _make_uneven(self, weather: Link) -> None:
        """Each direction of each link has a delay and a loss of its own."""
        dice = self._dice("links")
        names = [host.name for host in self.all_hosts] + ["client"]
        for pair in ((a, b) for a in names for b in names if a != b):
            base = dice.choice((1, 5, 40))
            spread = dice.randint(0, weather.delay_ms_max)
            drop = dice.choice((0.0, weather.drop))
            self.world.links[pair] = Link(
                base, base + spread, drop, weather.duplicate, weather.bytes_per_ms
            )

    def _do(self, fault: plan.Fault) -> None:
        """Let a fault happen, and end when its time is over."""
        if self._faults_over:
            return
        match fault:
            case plan.Crash(member, _, down_ms):
                self._crash(self.hosts[member], down_ms)
            case plan.Rot(member, _, down_ms, tail):
                self._crash(self.hosts[member], down_ms)
                self.hosts[member].disk.rot(tail=tail)
            case plan.Amnesia(member):
                self.hosts[member].remove()
            case plan.Cut(members, _, for_ms):
                pairs = self._pairs(members, inbound=fault.inbound, outbound=fault.outbound)
                self.world.cut(pairs)
                self._later(for_ms, self.world.mend, pairs)
            case plan.Slow(member, _, for_ms, delay_ms):
                name = self.hosts[member].name
                self.world.slow[name] = delay_ms
                self._later(for_ms, self.world.slow.pop, name, None)
            case plan.Full(member, _, for_ms):
                self.hosts[member].disk.fill()
                self._later(for_ms, self.hosts[member].disk.free)
            case plan.Lose(member, _, for_ms, kind):
                lost = (self.hosts[member].name, kind)
                self.world.lost_kinds.add(lost)
                self._later(for_ms, self.world.lost_kinds.discard, lost)
            case _:
                self._end_epoch(fault)

    def _end_epoch(self, fault: plan.Fault) -> None:
        """Give a reason for another epoch."""
        match fault:
            case plan.Refresh():
                self.admin.refresh()
            case plan.Switch(protocol):
                self.admin.switch(protocol)
            case plan.Replace(member):
                self._replace(self.hosts[member])
            case plan.Resize():
                self._resize()
            case plan.Alarmed(members):
                for member in members:
                    self.hosts[member].feed(Alarm())

    # --- other members ---------------------------------------------------------------------------

    def _newcomer(self) -> Host:
        """A new machine with a key of its own, no member yet."""
        me = len(self.hosts)
        signer = self._keys.signer(self._key_dice.randbytes(32))
        host = Host(
            self.world,
            self.genesis,
            me,
            (signer, self._keys.verifier),
            self.checker,
            Machine(),
            (self._dice(f"disk {me}"), self._dice(f"draw {me}")),
        )
        host.frames = self.scenario.real
        self.hosts.append(host)
        self.all_hosts.append(host)
        for other in self.all_hosts:
            other.peers = [peer for peer in self.all_hosts if peer.me != other.me]
        host.start()
        for client in self.clients:
            client.connect_to(host)
        return host

    def _replace(self, old: Host) -> None:
        self.admin.replace(old.identity, self._newcomer().member)

    def _resize(self) -> None:
        """Grow from 4, or shrink from 7 to those that were never counted among the faulty."""
        if len(self.admin.newest().members) == 4:
            self.admin.grow([self._newcomer().member for _ in range(3)])
            return
        faulty = {host.identity for host in self.hosts if host.me in self.scenario.faulty}
        self.admin.shrink(4, lambda identity: identity not in faulty)

    def _later(self, delay_ms: int, action: Callable[..., object], *args: object) -> None:
        def end() -> None:
            if not self._faults_over:
                action(*args)

        self.world.after(delay_ms, end)

    def _pairs(
        self, members: tuple[int, ...], *, inbound: bool, outbound: bool
    ) -> list[tuple[str, str]]:
        inside = [host.name for host in self.all_hosts if host.me in members]
        outside = [host.name for host in self.all_hosts if host.me not in members]
        out = [(a, b) for a in inside for b in outside] if outbound else []
        return out + ([(b, a) for a in inside for b in outside] if inbound else [])

    def _crash(self, host: Host, down_ms: int) -> None:
        if not host.up:
            return
        self.crashes += 1
        host.crash()
        if self.scenario.liars.get(host.me) == FORGETFUL:
            host.disk.records.clear()
            host.committed = host.snapshot = None
        self.world.after(down_ms, self._restart, host)

    def _restart(self, host: Host) -> None:
        if not host.up:
            host.start()

    # --- how it must end -------------------------------------------------------------------------

    def _honest(self) -> list[Host]:
        record = self.admin.newest()
        return [
            host
            for host in self.hosts
            if host.honest and not host.gone and record.member_with(host.identity) is not None
        ]

    def _settled(self) -> bool:
        if not self.admin.done or not all(client.done for client in self.clients):
            return False
        return len({host.store.applied_index for host in self._honest()}) == 1

    def _same_state(self) -> None:
        if len({host.store.digest() for host in self._honest()}) != 1:
            raise Violation("state: honest members executed the same and differ")

    def _stuck(self) -> str:
        standings = [_describe(host) for host in self.hosts if not host.gone]
        left = [f"{c.name} waits for {c.waiting}" for c in self.clients]
        return (
            f"not settled at {self.world.now_ms} ms, after {self.world.steps} steps: "
            f"{'; '.join(left + standings)}"
        )

    def _report(self, recovered_ms: int) -> Report:
        return Report(
            seed=self.scenario.seed,
            n=self.n,
            operations=sum(len(client.calls) for client in self.clients),
            executed=max(self.checker.chain, default=0),
            views=self.checker.views,
            crashes=self.crashes,
            transfers=self.checker.transfers,
            faults=tuple(type(fault).__name__ for fault in self.scenario.faults),
            liars=tuple(f"{m}:{name}" for m, name in sorted(self.scenario.liars.items())),
            evidence=max(len(host.core.standing().evidence) for host in self._honest()),
            refused=sum(self.checker.refused.values()),
            recovered_ms=recovered_ms,
            virtual_ms=self.world.now_ms,
            steps=self.world.steps,
            protocol=self.scenario.protocol,
            trust=self.scenario.trust,
            epochs=self.checker.epochs,
        )


def _describe(host: Host) -> str:
    s = host.core.standing()
    return (
        f"{host.name}{'' if host.honest else ' (liar)'}: view {s.view}"
        f"{'' if s.active else ' (changing)'} last {s.last} final {s.final} "
        f"applied {s.applied} pending {s.pending} mute {s.mute} halted {s.halted}"
    )
