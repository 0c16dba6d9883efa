"""The replica process from start to stop: waiting, running, or refusing to run.

    Waiting ──genesis complete, or invited──> Running ──no member any more──> Removed
       └──────────────── the directory can not be used ──────────> Refused

A restart in any phase goes on where it was: what a phase rests on is on the disk before it
begins.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from dwcp.certificates import renewing_context
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.keys import KeyRequest, NextKey
from dwcp.wire.records import EpochRecord, Identity, SignedGenesis, scope_of
from dwcp.wire.switch import AdminSwitch
from dwcp_replica.api.host import GenesisRefusedError
from dwcp_replica.api.metrics import ReplicaMetrics
from dwcp_replica.api.server import ApiServer
from dwcp_replica.api.views import EvidenceView, Phase, StatusView
from dwcp_replica.core.outline import Outline
from dwcp_replica.durable import (
    DataDirectory,
    DataFault,
    DirectoryLocked,
    LocalFault,
    LostIdentity,
    MissingDirectory,
    RemovedMember,
)
from dwcp_replica.net.tls import server_context
from dwcp_replica.node import restoring, views
from dwcp_replica.node.admission import Admission
from dwcp_replica.node.config import EXIT_LOCKED, EXIT_REFUSED, EXIT_STOPPED, NodeConfig
from dwcp_replica.node.cuts import follow_cuts
from dwcp_replica.node.documents import DocumentRoom
from dwcp_replica.node.genesis import GenesisKeeper
from dwcp_replica.node.hooks import HookMaker
from dwcp_replica.node.machines import load_machine
from dwcp_replica.node.recovered import recover
from dwcp_replica.node.running import RunningReplica
from dwcp_replica.node.throwaway import throwaway_context
from dwcp_replica.store.records import View

_REASONS: Final[dict[type[DataFault], str]] = {
    MissingDirectory: "missing",
    LostIdentity: "lost-identity",
    RemovedMember: "removed",
}
"""Any other fault of the directory is "foreign"."""

_log = logging.getLogger(__name__)


class ReplicaProcess:
    """One replica process (api.host.Host)."""

    def __init__(self, config: NodeConfig, make_hooks: HookMaker | None = None) -> None:
        self.config = config
        self.metrics = ReplicaMetrics()
        self.started_at = datetime.now(UTC)
        self.running: RunningReplica | None = None
        self.refusal: str | None = None
        self._make_hooks = make_hooks
        self._directory: DataDirectory | None = None
        self._keeper: GenesisKeeper | None = None
        self._api = ApiServer(self, self.metrics)
        self._stop = asyncio.Event()
        self._fault: LocalFault | None = None
        self._hindrance: str | None = None
        self._removed = False

    async def run(self) -> int:
        """Live until SIGTERM or SIGINT; return the exit code.

        Whatever fails, in a task or here, comes out as an ExceptionGroup.
        """
        async with asyncio.TaskGroup() as tasks:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
            try:
                code = await self._live(tasks)
                if self._fault is not None:
                    raise self._fault
            finally:
                if self._directory is not None:
                    self._directory.close()
        if code == EXIT_STOPPED:
            _log.info("stopped")
        return code

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()

    # --- phases ---------------------------------------------------------------------------------

    async def _live(self, tasks: asyncio.TaskGroup) -> int:
        try:
            self._open()
        except DirectoryLocked as fault:
            _log.critical("start-refused", extra={"reason": "locked", "detail": str(fault)})
            return EXIT_LOCKED
        except DataFault as fault:
            if (code := self._refuse(fault)) is not None:
                return code
        listen = self.config.client_listen
        context = self._client_context()
        await self._api.start(listen.host, listen.port, context)
        try:
            tls = context is not None
            _log.info("listening", extra={"phase": self.phase, "port": listen.port, "tls": tls})
            return await self._serve(tasks)
        finally:
            await self._api.close()

    def _open(self) -> None:
        config = self.config
        self._directory = DataDirectory.open(config.data, name=config.name, cluster=config.cluster)
        self._keeper = GenesisKeeper(config, self._directory)

    def _client_context(self) -> ssl.SSLContext | None:
        """The TLS context of the client port; None for plain HTTP.

        A member whose directory is refused has no certificate of its own, and makes one that
        nobody knows: probes reach it, and clients refuse it.
        """
        files, directory = self.config.client_tls_files, self._directory
        if files is not None:
            return renewing_context(files)
        if not self.config.client_tls:
            return None
        if directory is None:
            return throwaway_context(self.config.name)
        return server_context(directory.tls_certificate_path, directory.tls_key_path)

    def _refuse(self, fault: DataFault) -> int | None:
        """Note why this process can not run; the exit code, or None when it is to stay up."""
        reason = _REASONS.get(type(fault), "foreign")
        self._removed = isinstance(fault, RemovedMember)
        self.metrics.start_refused.labels(reason).set(1)
        self.refusal = str(fault)
        _log.critical("start-refused", extra={"reason": reason, "detail": self.refusal})
        return None if self.config.stay_on_refusal else EXIT_REFUSED

    async def _serve(self, tasks: asyncio.TaskGroup) -> int:
        if self.refusal is None:
            if not await self._wait_for_genesis(tasks):
                return EXIT_STOPPED
            if not await self._restore():
                return EXIT_STOPPED
            try:
                running = await self._recover()
            except DataFault as fault:
                if (code := self._refuse(fault)) is not None:
                    return code
            else:
                await self._work(running)
                return EXIT_STOPPED
        await self._stop.wait()
        return EXIT_STOPPED

    async def _wait_for_genesis(self, tasks: asyncio.TaskGroup) -> bool:
        """Wait; False when the process is to stop first."""
        assert self._keeper is not None, "opened"
        stop = tasks.create_task(self._stop.wait())
        complete = tasks.create_task(self._keeper.complete.wait())
        asking = tasks.create_task(self._keeper.ask_peers())
        await asyncio.wait((stop, complete), return_when=asyncio.FIRST_COMPLETED)
        for task in (stop, complete, asking):
            task.cancel()
        return not self._stop.is_set()

    async def _restore(self) -> bool:
        """Take the first state from a backup, where one is named; False when it is to stop."""
        directory, signed, source = self._directory, self.genesis(), self.config.restore
        assert directory is not None, "opened"
        assert signed is not None, "complete"
        if directory.invitation is not None:
            return True  # who joins learns the state from the members
        while source is not None and restoring.is_due(directory, signed):
            self._hindrance = f"taking the state from {source}"
            try:
                await restoring.restore(directory, signed, source, self.config.machine)
            except restoring.RestoreError as error:
                self._hindrance = f"the backup can not be taken in: {error}"
                _log.error("restore-failed", extra={"detail": str(error)})
                with suppress(TimeoutError):
                    async with asyncio.timeout(restoring.AGAIN_S):
                        await self._stop.wait()
            if self._stop.is_set():
                return False
        self._hindrance = None
        return True

    async def _recover(self) -> RunningReplica:
        directory, genesis = self._directory, self.record
        assert directory is not None, "opened"
        assert genesis is not None, "complete"
        machine = load_machine(self.config.machine)
        found = await asyncio.to_thread(recover, directory, genesis, machine)
        if found.damage is not None:
            self.metrics.wal_damage.labels(found.damage.kind).inc()
            level = logging.WARNING if found.damage.harmless else logging.CRITICAL
            _log.log(level, "log-damaged", extra={"detail": str(found.damage)})
        running = RunningReplica(
            directory, genesis, found, self.metrics, self._make_hooks, self.config.log_bytes,
            self.config.features,
        )  # fmt: skip
        if self._keeper is not None and (invitation := self._keeper.invitation) is not None:
            running.introduce(invitation.records)
        return running

    async def _work(self, running: RunningReplica) -> None:
        """Run the member until the process is to stop."""
        try:
            if self._stop.is_set():
                return  # while the log was read
            await running.start(self.config.peer_listen)
            async with asyncio.TaskGroup() as tasks:
                work = [tasks.create_task(task) for task in running.tasks()]
                if (cuts := self.config.cuts) is not None:
                    cutting = follow_cuts(cuts, self.config.name, running.mesh.dialer.cut)
                    work.append(tasks.create_task(cutting))
                self.running = running
                _log.info("running", extra={"final": running.replay_upto, "mute": running.mute})
                await self._until_over(running)
                await running.hand_over()
                for task in work:
                    task.cancel()
        finally:
            await running.close()
        if running.removed.is_set():
            await self._retire(running)

    async def _until_over(self, running: RunningReplica) -> None:
        """Wait until the process is to stop, or the cluster goes on without this member."""
        waits = [asyncio.create_task(e.wait()) for e in (self._stop, running.removed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()

    async def _retire(self, running: RunningReplica) -> None:
        """Erase the key, and go on only to say so."""
        assert self._directory is not None, "it ran"
        epoch = running.record.epoch
        self._directory.retire(epoch)
        self.running = None
        self._removed = True
        self.refusal = f"removed: epoch {epoch} is without this member, whose key is erased"
        _log.warning("removed", extra={"number": epoch})
        await self._api.hang_up()
        await self._stop.wait()

    # --- api.host.Host --------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Waiting, Running, Refused or Removed."""
        if self.refusal is not None:
            return "Removed" if self._removed else "Refused"
        return "Waiting" if self.record is None else "Running"

    @property
    def record(self) -> EpochRecord | None:
        """The genesis record, once it is complete."""
        signed = self.genesis()
        return None if signed is None else signed.record

    def readiness(self) -> str | None:
        """Why this replica does not vote; None when it does."""
        if self.refusal is not None:
            return self.refusal
        if self._stop.is_set():
            return "stopping"
        if self.record is None:
            return "waiting for the genesis"
        if self.running is None:
            return self._hindrance or "reading the log"
        return self.running.hindrance()

    def identity(self) -> Identity | None:
        """Key, certificate, proof and MAC; None when the directory can not be used."""
        return None if self._keeper is None else self._keeper.identity

    def genesis(self) -> SignedGenesis | None:
        """The complete genesis, or None."""
        return None if self._keeper is None else self._keeper.genesis

    def offer_genesis(self, offer: SignedGenesis, mac: bytes) -> SignedGenesis:
        """Take a genesis in. Raises GenesisRefusedError."""
        if self._keeper is None:
            raise GenesisRefusedError(503, "refused", self.refusal or "starting")
        try:
            return self._keeper.offer(offer, mac)
        except LocalFault as fault:
            raise self._failed(fault) from fault

    def _failed(self, fault: LocalFault) -> GenesisRefusedError:
        """The disk failed: whoever asked is told, and the process ends."""
        self._fault = fault
        self.stop()
        return GenesisRefusedError(500, "disk", str(fault))

    def invite(self, encoded: bytes, mac: bytes) -> None:
        """Take an invitation in. Raises GenesisRefusedError."""
        if self._keeper is None:
            raise GenesisRefusedError(503, "refused", self.refusal or "starting")
        try:
            self._keeper.invite(encoded, mac)
        except LocalFault as fault:
            raise self._failed(fault) from fault

    def service(self) -> Admission | None:
        """The client side of the running member, or None."""
        running = self.running
        return None if running is None or running.me is None else running.admission

    def documents(self) -> DocumentRoom | None:
        """The running replica's documents, or None."""
        return None if self.running is None else self.running.documents

    def certified(self) -> tuple[CertifiedRecord, ...] | None:
        """The epoch records after genesis, with their certificates; None while not running."""
        return None if self.running is None else self.running.certified

    def backup(self) -> tuple[Outline, View | None] | None:
        """What proves the saved state, with a view of it; None while nothing does."""
        return None if self.running is None else self.running.engine.backup()

    def order(self, order: AdminSwitch, *, learn: bool) -> tuple[str, str] | None:
        """Take an order of the admin; else an enumerated word and a sentence why not."""
        if self.running is None:
            return "not-running", f"this replica does not run: {self.readiness() or 'starting'}"
        return self.running.order(order, learn=learn)

    def next_key(self, request: KeyRequest) -> NextKey | tuple[str, str]:
        """Make or show the next identity key; else an enumerated word and a sentence why not."""
        if self.running is None:
            return "not-running", f"this replica does not run: {self.readiness() or 'starting'}"
        try:
            return self.running.next_key(request)
        except LocalFault as fault:
            self._fault = fault
            self.stop()
            return "disk", str(fault)

    def status(self) -> StatusView:
        """Where the replica stands."""
        return views.status(
            self.config, self.started_at, self.phase, self.readiness(), self.record, self.running
        )

    def sign_status(self, payload: bytes) -> bytes | None:
        """The signature over a status, or None while there is no genesis."""
        record = self.record
        if record is None or self._directory is None:
            return None
        if self._removed:
            return None
        message = scope_of(record, record).signing_bytes("status", payload)
        signer = self._directory.signer if self.running is None else self.running.signer
        return signer.sign(message)

    def evidence(self) -> list[EvidenceView]:
        """The proofs against members that this replica holds."""
        return [] if self.running is None else views.evidence(self.running)

    def refresh_metrics(self) -> None:
        """Set the gauges to what is so now."""
        if self._directory is not None:
            self.metrics.directory_refusals.set(self._directory.refusals())
        views.refresh(self.metrics, self.readiness(), self.running)
