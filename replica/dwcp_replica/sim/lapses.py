"""Bugs in what replicas remember and when they act: disks, restarts, views, execution, timers.

Each function plants one bug, whose docstring says what is wrong then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dwcp.wire.peer import Prepare, ViewChange, vote_signing_bytes
from dwcp_replica.core import elections, proposals
from dwcp_replica.core import recover as recovery
from dwcp_replica.core.certificates import Membership
from dwcp_replica.core.chain import Branch, Slot
from dwcp_replica.core.effects import EntryRecord, Record, ViewChangeReason, ViewChangeRecord
from dwcp_replica.core.pbft import restart, timers, view_change
from dwcp_replica.core.pending import RequestPool
from dwcp_replica.core.recover import Statement
from dwcp_replica.core.replica import Replica
from dwcp_replica.core.state import Core
from dwcp_replica.sim.disk import Disk
from dwcp_replica.sim.host import Host
from dwcp_replica.sim.planting import Patches
from dwcp_replica.store.sessions import Answered, Fresh, Sessions
from dwcp_replica.store.store import Store

# --- what is durable ---------------------------------------------------------------------------


def skipped_fsync(patches: Patches) -> None:
    """Messages leave while the disk is still writing what they depend on."""

    def write(
        self: Disk, records: list[Record], done: Callable[[], None], _anew: object = None
    ) -> None:
        self._world.after(20, self._store, records)
        done()

    patches.set(Disk, "write", write)


def forgetful_disk(patches: Patches) -> None:
    """A crash loses records that had been synced."""
    crash = Host.crash

    def forget(self: Host) -> None:
        kept = len(self.disk.records) - self.world.random.randint(0, 8)
        del self.disk.records[max(0, kept) :]
        crash(self)

    patches.set(Host, "crash", forget)


def _without(patches: Patches, where: Any, name: str, kind: type[Any]) -> None:
    """Let a function write no record of this kind."""
    proper = getattr(where, name)

    def forgetting(core: Core, *arguments: Any) -> Any:
        result = proper(core, *arguments)
        core.out.persist[:] = [r for r in core.out.persist if not isinstance(r, kind)]
        return result

    patches.set(where, name, forgetting)


def entry_not_durable(patches: Patches) -> None:
    """A replica votes for an entry that it has not written down."""
    _without(patches, Core, "append", EntryRecord)


def cc_not_durable(patches: Patches) -> None:
    """A replica commits on a certificate that it has not written down."""

    def set_cc(self: Core, certificate: Any) -> None:
        self.cc, self.cc_branch = certificate, ()

    patches.set(Core, "set_cc", set_cc)


def view_change_not_durable(patches: Patches) -> None:
    """A replica forgets what it asked for."""
    _without(patches, view_change, "start", ViewChangeRecord)


def view_change_made_anew(patches: Patches) -> None:
    """A VIEW-CHANGE is resent with what the log holds by now."""
    proper = timers.heartbeat

    def heartbeat(core: Core) -> None:
        if core.my_change is not None and not core.active and core.mute is None:
            core.my_change = view_change.my_change(core)
        proper(core)

    patches.set(timers, "heartbeat", heartbeat)


def restart_resumes_its_view(patches: Patches) -> None:
    """A primary leads on after a crash as if nothing had happened."""
    patches.set(restart, "begin", lambda _core: None)


def mute_is_ignored(patches: Patches) -> None:
    """A replica whose log is damaged signs as before."""
    proper = Replica.__init__

    def init(self: Replica, **given: Any) -> None:
        proper(self, **(given | {"mute": None}))

    patches.set(Replica, "__init__", init)


# --- views -------------------------------------------------------------------------------------


def new_view_drops_prepared(patches: Patches) -> None:
    """A new view starts from the shortest log."""

    def shortest(statements: list[Statement]) -> Branch:
        return min((s.log for s in statements), key=lambda b: (b.tip.index, b.tip.hash))

    patches.set(elections, "recover", shortest)


def recover_by_length_first(patches: Patches) -> None:
    """A new view starts from the longest log, of whatever term."""

    def longest(statements: list[Statement]) -> Branch:
        return max((s.log for s in statements), key=lambda b: (b.tip.index, b.tip.hash))

    patches.set(elections, "recover", longest)


def recover_without_cc(patches: Patches) -> None:
    """A new view starts from the longest log of the last term, certified or not."""

    def by_term(statements: list[Statement]) -> Branch:
        logs = [s.log for s in statements]
        return max(logs, key=lambda b: (b.tip.term, b.tip.index, b.tip.hash))

    patches.set(elections, "recover", by_term)


def recover_without_checkpoints(patches: Patches) -> None:
    """A stable checkpoint binds a new view to nothing."""
    proper = recovery.recover

    def recover(statements: list[Statement]) -> Branch:
        return proper([replace(s, checkpoint=None) for s in statements])

    patches.set(elections, "recover", recover)


def view_change_hides_cc(patches: Patches) -> None:
    """A VIEW-CHANGE does not show its certificate."""
    proper = view_change.my_change

    def my_change(core: Core) -> ViewChange:
        cc, core.cc = core.cc, None
        try:
            return proper(core)
        finally:
            core.cc = cc

    patches.set(view_change, "my_change", my_change)


def view_change_quorum_2f(patches: Patches) -> None:
    """One statement less is enough for a new view."""
    proper = elections.start_of

    class Fewer(Membership):
        @property
        def quorum(self) -> int:
            return 2 * ((self.n - 1) // 3)

    def start_of(membership: Membership, election: Any, starts: Any) -> Branch:
        fewer = Fewer(membership.record, membership.scope, membership.verifier)
        return proper(fewer, election, starts)

    def lowered(function: Callable[..., None]) -> Callable[..., None]:
        def call(core: Core, *arguments: Any) -> None:
            core.q = 2 * core.f
            function(core, *arguments)
            core.q = core.membership.quorum

        return call

    patches.set(elections, "start_of", start_of)
    patches.set(view_change, "start_of", start_of)
    patches.set(view_change, "elect", lowered(view_change.elect))
    patches.set(view_change, "weigh", lowered(view_change.weigh))


def view_changes_unverified(patches: Patches) -> None:
    """A statement counts whoever made it."""
    proper = elections.statement

    class Credulous(Membership):
        def signed(self, member: int, message: bytes, sig: bytes) -> bool:
            del member, message, sig
            return True

    def statement(membership: Membership, change: Any, starts: Any) -> Statement:
        credulous = Credulous(membership.record, membership.scope, membership.verifier)
        return proper(credulous, change, starts)

    patches.set(elections, "statement", statement)
    patches.set(view_change, "statement", statement)


def new_view_starts_anywhere(patches: Patches) -> None:
    """A new view begins where its primary says, not where the statements oblige it to."""

    def first_entry(_branch: Branch, first: Any) -> Slot | str:
        return Slot.of(first)

    patches.set(view_change, "first_entry", first_entry)


def bodies_unchecked_in_new_view(patches: Patches) -> None:
    """What a new view inherits is not looked at."""

    def checked(_core: Core, entry: Any, _stamp_ms: int) -> Slot | None:
        return Slot.of(entry)

    patches.set(proposals, "checked", checked)


def votes_below_the_view_asked_for(patches: Patches) -> None:
    """A replica goes on voting in the view that it gave up."""
    proper = view_change.start

    def start(core: Core, view: int, reason: ViewChangeReason) -> None:
        proper(core, view, reason)
        for slot in core.log.slots(core.final) if core.mute is None else ():
            signed = vote_signing_bytes(core.membership.scope, "prepare", slot.header)
            core.broadcast(Prepare(slot.header, core.me, core.signer.sign(signed)))

    patches.set(view_change, "start", start)


# --- execution ---------------------------------------------------------------------------------


def execution_out_of_order(patches: Patches) -> None:
    """Entries that become final together are executed in any order."""
    proper = Core.set_final

    def set_final(self: Core, certificate: Any, upto: int | None = None) -> None:
        before = len(self.out.apply)
        proper(self, certificate, upto)
        self.out.apply[before:] = reversed(self.out.apply[before:])

    patches.set(Core, "set_final", set_final)


def repetitions_executed(patches: Patches) -> None:
    """An envelope that was executed is executed again."""
    proper = Store._judge

    def judge(self: Store, client: bytes, body: Any, request: bytes) -> Any:
        verdict = proper(self, client, body, request)
        session = self._sessions._open.get(body.session) if body.session else None
        if isinstance(verdict, Answered) and session is not None:
            return Fresh(session, again=False)
        return verdict

    patches.set(Store, "_judge", judge)


def sessions_lost_at_restart(patches: Patches) -> None:
    """What was executed for whom is forgotten by a restart."""
    proper = Host.start

    def start(self: Host) -> None:
        proper(self)
        if self.life > 1:
            life = self.life
            self.world.after(100, lambda: _forget_sessions(self, life))

    patches.set(Host, "start", start)


def _forget_sessions(host: Host, life: int) -> None:
    if host.up and host.life == life:
        host.store._sessions = Sessions(host.store._limits.sessions)


# --- liveness ----------------------------------------------------------------------------------


def primary_never_suspected(patches: Patches) -> None:
    """Nobody gives a primary up."""
    patches.set(timers, "overdue", lambda _core: None)


def waiting_requests_unwatched(patches: Patches) -> None:
    """A primary that leaves one client out is as good as any."""
    patches.set(RequestPool, "oldest_ms", lambda _self: None)


def view_change_never_resent(patches: Patches) -> None:
    """A VIEW-CHANGE that was lost is lost."""
    proper = timers.heartbeat

    def heartbeat(core: Core) -> None:
        mine = core.my_change
        core.my_change = None
        proper(core)
        if not isinstance(core.my_change, ViewChange):
            core.my_change = mine

    patches.set(timers, "heartbeat", heartbeat)
