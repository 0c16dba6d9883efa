"""What outlives the epochs of one replica, and the messages that are not about one epoch's log.

Records and old entries are sent to whoever lags; READY says that a member holds the start of an
epoch; learners are told apart from strangers by the admin's orders; a mute replica asks how far
epochs have come, and others help it to a new one within their cool-down.
"""

from __future__ import annotations

from typing import Final

import msgspec

from dwcp.wire.envelope import batch_digest, decode_batch
from dwcp.wire.epochs import (
    CertifiedRecord,
    EpochBound,
    FetchEpoch,
    FetchHistory,
    History,
    Ready,
    Records,
)
from dwcp.wire.peer import PeerMessage, Status
from dwcp.wire.records import EpochRecord
from dwcp.wire.signing import Verifier, digest
from dwcp.wire.state import FetchCheckpoint, FetchState, StableCheckpoint
from dwcp.wire.switch import AdminSwitch, Switch, SwitchRequest
from dwcp_replica.core import peers, state_source, transfer
from dwcp_replica.core.chain import Point
from dwcp_replica.core.effects import BaseRecord, EntryRecord, Retired, TransferStarted
from dwcp_replica.core.epochs import homing, succession, switching
from dwcp_replica.core.epochs.cooldown import Cooldown
from dwcp_replica.core.epochs.directory import OUTSIDERS, Directory
from dwcp_replica.core.epochs.line import RECORDS_MAX, Line
from dwcp_replica.core.epochs.mute import Muteness
from dwcp_replica.core.epochs.triggers import can_end, switch_fault
from dwcp_replica.core.epochs.wishing import Wishes
from dwcp_replica.core.quorum import quorum
from dwcp_replica.core.state import EARLY_MAX, Core

FETCH_AGAIN_MS: Final = 500
READY_AGAIN_BEATS: Final = 10
"""READY is repeated to a member no more often: two that have heard enough must not chatter."""
RECORD_BYTES: Final = 4096
"""About what a record with its certificate takes in a frame, for a peer's allowance."""


class Keeper:
    """Lives as long as the replica. `applied` is how far the state machine has come."""

    def __init__(self, genesis: EpochRecord, verifier: Verifier, muteness: Muteness) -> None:
        self.line = Line.of(genesis, verifier)
        self.directory = Directory(genesis)
        self.muteness = muteness
        self.cooldown = Cooldown()
        self.wishes = Wishes()
        self.applied = genesis.start_index
        self.emitted = genesis.start_index
        self.beat_ms = 0
        self.outsiders: dict[int, Status] = {}
        self.early: dict[int, list[PeerMessage]] = {}
        self.ahead: dict[int, int] = {}
        self.ready: set[int] = set()
        self.my_ready: Ready | None = None
        self.retired = False
        self.decided: list[CertifiedRecord] = []
        self._fetch_ms: int | None = None
        self._fetch_from = -1
        self._told: dict[int, int] = {}

    # --- records -------------------------------------------------------------------------------

    def begin(self, core: Core) -> None:
        """A new epoch's record is in force."""
        before = self.line.chain.record(core.record.epoch - 1)
        assert before is not None, "records come in order"
        self.cooldown = homing.followed(
            self.cooldown, self.line.chain.genesis, before, core.record, core.now_ms
        )
        self.directory.enter(core.record)
        self.wishes.entered(core)
        self.ready.clear()
        self.my_ready = None
        self.retired = False
        self._fetch_ms = None
        self.outsiders.clear()
        self._told.clear()

    def send_records(self, core: Core, sender: int, epoch: int) -> None:
        """Show somebody the records after `epoch`."""
        following = tuple(self.line.chain.certified[epoch : epoch + RECORDS_MAX])
        if following and core.afford(sender, RECORD_BYTES * len(following)):
            core.send(sender, Records(following))

    def announce(self, core: Core, certified: CertifiedRecord) -> None:
        """Tell everybody I know of about a record that was just decided."""
        message = Records((certified,))
        core.broadcast(message)
        for place in self._outside():
            core.send(OUTSIDERS + place, message)

    def _outside(self) -> list[int]:
        inside = set(self.directory.places())
        return [place for place in range(len(self.directory.members)) if place not in inside]

    # --- status --------------------------------------------------------------------------------

    def on_status(self, core: Core, sender: int, message: Status) -> bool:
        """Help whoever lags; True when the driver is to see it: of my epoch, from a member."""
        if message.epoch < core.record.epoch:
            self.send_records(core, sender, message.epoch)
        elif message.epoch > core.record.epoch:
            self.ahead[sender] = message.epoch
        if sender < OUTSIDERS:
            return message.epoch == core.record.epoch
        self.outsiders[sender - OUTSIDERS] = core.outside[sender] = message
        told_ms = self._told.get(sender, -FETCH_AGAIN_MS)
        if core.now_ms - told_ms < peers.heartbeat_every_ms(core):
            return False  # two that are outsiders to each other must not answer for ever
        self._told[sender] = core.now_ms
        core.send(sender, peers.status(core))
        if self.my_ready is not None:
            core.send(sender, self.my_ready)
        return False

    # --- history -------------------------------------------------------------------------------

    def pursue(self, core: Core) -> None:
        """Ask one member after the other for what is missing below the epoch's start."""
        if not core.waiting or core.n < 1:
            return
        if self._fetch_ms is not None and core.now_ms - self._fetch_ms < FETCH_AGAIN_MS:
            return
        candidates = [member for member in range(core.n) if member != core.me]
        candidates += sorted(m for m, said in core.outside.items() if said.final > self.line.sure)
        self._fetch_from = next((m for m in candidates if m > self._fetch_from), candidates[0])
        self._fetch_ms = core.now_ms
        core.fetch_asked.add(self._fetch_from)  # who no longer holds it shows a checkpoint
        core.send(self._fetch_from, FetchHistory(self.line.sure + 1))

    def on_fetch_history(self, core: Core, sender: int, message: FetchHistory) -> None:
        """Serve entries of ended epochs."""
        found = self.line.serve(message)
        if found is None and message.start <= self.line.history.base.index:
            self._show_checkpoint(core, sender, message.start - 1)
        elif found is not None and core.afford(sender, found[1]):
            core.send(sender, found[0])

    def on_fetch_checkpoint(self, core: Core, sender: int, message: FetchCheckpoint) -> None:
        """Show the newest stable checkpoint."""
        if message.epoch != core.record.epoch:
            return core.refuse(sender, message, "epoch")
        return self._show_checkpoint(core, sender, -1)

    def on_fetch_state(self, core: Core, sender: int, message: FetchState) -> None:
        """Show parts of a state that I keep, or the checkpoint of a newer one."""
        if core.shows_state and core.state.holds(message.index):
            state_source.on_fetch_state(core, sender, message)
        else:
            self._show_checkpoint(core, sender, message.index)

    def _show_checkpoint(self, core: Core, sender: int, above: int) -> None:
        """The way there is cut: show the newest checkpoint whose state I can show."""
        if core.stable is not None:
            if core.low > above:
                state_source.show_checkpoint(core, sender)
            return
        if not core.shows_state:
            return
        newest = max(filter(core.state.holds, self.line.checkpoints), default=above)
        body = self.line.history.body_at(newest) if newest > above else None
        if body is not None and core.afford(sender, len(body) + 1024):
            core.send(sender, StableCheckpoint(self.line.checkpoints[newest], body))

    def _has_use_for(self, core: Core, sender: int, index: int) -> bool:
        """True when I asked for a way past what the others have cut, and this is one."""
        if not core.shows_state:
            return False
        if core.transfer is not None:
            asked = sender in core.transfer.asked or core.waiting
            return asked and index > core.transfer.index
        if core.stateless:
            return sender in core.fetch_asked
        return core.waiting and self._fetch_ms is not None and index > self.line.sure

    def on_old_checkpoint(self, core: Core, sender: int, message: StableCheckpoint) -> None:
        """Fetch the state at a checkpoint of an ended epoch, and go on from there.

        The entries above it stay where they are held and sure.
        """
        certificate, header = message.certificate, message.certificate.header
        base = Point(header.index, header.hash(), header.term)
        held = self._holds(base)
        useful = held or header.index > self.line.sure
        if not useful or not self._has_use_for(core, sender, header.index):
            return core.refuse(sender, message, "not-asked")
        holds = self.line.membership(header.epoch).certificate_holds(certificate)
        if certificate.kind != "checkpoint" or not holds:
            return core.refuse(sender, message, "certificate")
        if header.index > core.record.start_index or batch_digest(message.body) != header.batch:
            return core.refuse(sender, message, "digest")
        try:
            stamp_ms = decode_batch(message.body).stamp_ms
        except msgspec.DecodeError:
            return core.refuse(sender, message, "body")
        if not held:
            self.line.rebase(base, stamp_ms, message.body)
            core.persist(
                BaseRecord(base.index, base.hash, base.term, stamp_ms, certificate, message.body)
            )
        self.line.checkpoints = {header.index: certificate}
        liars = core.transfer.liars if core.transfer is not None else set[int]()
        core.transfer = transfer.Transfer(certificate, liars=liars)
        core.out.transfer = (header.index, certificate.state)
        core.emit(TransferStarted(header.index, "behind"))
        self._fetch_ms = None
        return self.pursue(core)

    def _holds(self, point: Point) -> bool:
        history = self.line.history
        return point.index <= self.line.sure and history.hash_at(point.index) == point.hash

    def on_history(self, core: Core, sender: int, message: History) -> None:
        """Take entries that were asked for, each run checked from end to end."""
        if not core.waiting or self._fetch_ms is None:
            return core.refuse(sender, message, "not-asked")
        reason = self.line.fault(message)
        if reason is not None:
            return core.refuse(sender, message, reason)
        sure = self.line.sure
        try:
            new, dropped = self.line.take(message)
        except msgspec.DecodeError:
            return core.refuse(sender, message, "body")
        for slot in dropped:
            core.pool.dropped(slot.requests)
        for slot in new:
            core.persist(EntryRecord(slot.entry))
            core.pool.proposed(slot.requests)
        if self.line.sure > sure:
            self._fetch_ms = None
            self._fetch_from -= 1  # whoever answered well is asked again
        self.pursue(core)
        return None

    # --- READY ---------------------------------------------------------------------------------

    def say_ready(self, core: Core) -> None:
        """Say READY once the start state is here: executed, and durable as part of the log."""
        if core.record.epoch == 0 or core.waiting or core.mute is not None or core.sealed:
            return
        if self.my_ready is not None or self.applied < core.record.start_index:
            return
        unsigned = Ready(core.record.epoch, core.me, bytes(64))
        sig = core.sign(unsigned.signing_bytes(core.membership.scope))
        self.my_ready = Ready(core.record.epoch, core.me, sig)
        self._spread_ready(core, self.my_ready)
        self.ready.add(core.me)
        self._count_ready(core)

    def _spread_ready(self, core: Core, mine: Ready) -> None:
        core.broadcast(mine)
        for place in self._outside():
            core.send(OUTSIDERS + place, mine)

    def on_ready(self, core: Core, sender: int, message: Ready) -> None:
        """Count a member that holds the start state."""
        signed = message.signing_bytes(core.membership.scope)
        if not core.membership.signed(message.member, signed, message.sig):
            return core.refuse(sender, message, "signature")
        self.ready.add(message.member)
        self._say_again(core, sender)
        return self._count_ready(core)

    def _say_again(self, core: Core, sender: int) -> None:
        """One that still says READY has not heard enough of the others, who have stopped."""
        again_ms = READY_AGAIN_BEATS * peers.heartbeat_every_ms(core)
        told_ms = self._told.get(sender, -again_ms)
        if self.retired and self.my_ready is not None and core.now_ms - told_ms >= again_ms:
            self._told[sender] = core.now_ms
            core.send(sender, self.my_ready)

    def _count_ready(self, core: Core) -> None:
        if not self.retired and len(self.ready) >= core.q:
            self.retired = True
            core.emit(Retired(core.record.epoch))

    # --- mute ----------------------------------------------------------------------------------

    def on_fetch_epoch(self, core: Core, sender: int, message: FetchEpoch) -> None:
        """Tell a mute replica how far epochs have come, with the proof."""
        following = tuple(self.line.chain.certified[message.epoch : message.epoch + RECORDS_MAX])
        prepared = core.ending.slot.prepared
        bound = EpochBound(message.nonce, following, core.record.epoch, prepared)
        if core.mute is None and core.afford(sender, RECORD_BYTES * (1 + len(following))):
            core.send(sender, bound)

    def ask_bound(self, core: Core) -> None:
        """Ask for E, then for an epoch above it."""
        mute = self.muteness
        if core.me == succession.NOBODY or core.halted is not None:
            return
        if mute.asks:
            core.broadcast(FetchEpoch(mute.nonce, core.record.epoch))
        elif core.sealed or core.waiting or core.me in core.ending.requests:
            return
        elif mute.wants_refresh and can_end(core.record):
            switching.request(core, core.record.protocol)

    def help_mute(self, core: Core, request: SwitchRequest) -> None:
        """Join another member's wish for a refresh, within my cool-down."""
        refresh = (
            request.protocol == core.record.protocol
            and can_end(core.record)
            and request.member != core.me
        )
        mine = core.ending.requests.get(core.me)
        if not refresh or mine is not None or core.mute is not None or core.sealed:
            return
        if not core.waiting and self.cooldown.allows(core.now_ms):
            self.cooldown = self.cooldown.failed(core.now_ms)
            switching.request(core, core.record.protocol)

    def _go_home(self, core: Core) -> None:
        """Ask for the protocol that should run, once my cool-down is over."""
        wanted = homing.home(self.line.chain.genesis, core.record)
        if wanted is None or wanted == core.record.protocol or not can_end(core.record):
            return
        if core.waiting or core.mute is not None or core.halted is not None:
            return
        mine = core.ending.requests.get(core.me)
        asked = mine is not None and mine.protocol == wanted
        if not asked and self.cooldown.allows(core.now_ms):
            switching.request(core, wanted)

    # --- SWITCH --------------------------------------------------------------------------------

    def order(self, core: Core, order: AdminSwitch) -> None:
        """A valid order of the admin names new members: they may fetch from now on, as learners."""
        if order in core.ending.orders or switch_fault(core.membership, order) is None:
            self.directory.know(order.members)

    def look_for_switch(self, core: Core) -> None:
        """Note the SWITCH that a leader is to propose now, and since when there is one.

        Backups look too: one that keeps it back is given up (due.py).
        """
        found = self._wanted(core) if not core.switches else None
        core.switch_wanted = found if core.leads else None
        if found is None:
            core.switch_since_ms = None
        elif core.switch_since_ms is None:
            core.switch_since_ms = core.now_ms

    def _wanted(self, core: Core) -> Switch | None:
        for order in core.ending.orders:
            if self._caught_up(core, order):
                return order
        return switching.requested(core)

    def _caught_up(self, core: Core, order: AdminSwitch) -> bool:
        """True when a quorum of the members to be hold, nearly, what is final here."""
        enough = core.final - core.window
        count = 0
        for member in order.members:
            place = self.directory.number_of(member.identity)
            position = None if place is None else self.directory.position_of(place)
            if position is None or place is None:
                continue
            said = core.peers.get(position) if position < OUTSIDERS else self.outsiders.get(place)
            is_here = said is not None and said.epoch == core.record.epoch
            count += position == core.me or (is_here and said is not None and said.final >= enough)
        return count >= quorum(len(order.members), core.record.trust)

    # --- time ----------------------------------------------------------------------------------

    def start(self, core: Core) -> None:
        """The first tick of a life: a nonce that no earlier life used."""
        self.cooldown = homing.resumed(self.line.chain.records, core.now_ms)
        clock = core.now_ms.to_bytes(8, "big") + core.wall_ms.to_bytes(8, "big")
        self.muteness.nonce = digest("mute", clock, core.log.tip.hash)

    def on_tick(self, core: Core) -> None:
        """Act on what has become due, in any state."""
        if core.now_ms < self.beat_ms:
            return
        self.beat_ms = core.now_ms + peers.heartbeat_every_ms(core)
        self.pursue(core)
        self.ask_bound(core)
        if self.my_ready is not None and not self.retired:
            self._spread_ready(core, self.my_ready)
        if core.sealed:
            return
        self._go_home(core)
        for order in core.ending.orders:
            core.broadcast(order)
        mine = core.ending.requests.get(core.me)
        if mine is not None:
            core.broadcast(mine)

    # --- messages of the next epoch ------------------------------------------------------------

    def keep_early(self, core: Core, sender: int, message: PeerMessage, epoch: int) -> None:
        """Keep a message of the next epoch until it begins here; records tell of later ones."""
        kept = self.early.setdefault(self.directory.place_of(sender), [])
        if epoch > core.record.epoch + 1 or len(kept) >= EARLY_MAX:
            core.refuse(sender, message, "epoch")
        else:
            kept.append(message)

    def take_early(self) -> list[tuple[int, PeerMessage]]:
        """The kept messages, by place; they are looked at once."""
        early, self.early = self.early, {}
        return [(place, message) for place in sorted(early) for message in early[place]]
