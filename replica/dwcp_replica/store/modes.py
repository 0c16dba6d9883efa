"""The mode as replicated state: members' reports, their median, what was decided and why.

Reports come through the log (dwcp.wire.modes), so that every replica decides the same at the same
place. A report counts from where it stands in the log until its member's next one, or until
REPORTS_LIVE rounds of measuring have passed in agreed time: whoever falls silent abstains. Only
members of the epoch of an entry report in it.

What is decided here moves no protocol by itself. Each member compares it with its epoch and asks
for a switch (core/epochs); a fail-over to PBFT does not change what is decided. Nor does what the
admin holds: that stands in the epoch record alone, and members ask for nothing meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from dwcp.wire.envelope import Envelope, EnvelopeBody
from dwcp.wire.modes import ModeSetRequest, ModeSetResponse, NetworkReport, NetworkReported
from dwcp.wire.operations import Failure, MemberOperation
from dwcp.wire.records import EpochRecord, ModePolicy
from dwcp_replica.core.epochs.wishing import Wish
from dwcp_replica.core.modes.decide import (
    PROTOCOL_OF,
    Decision,
    Mode,
    Rules,
    Switch,
    consider,
    force,
    switched,
)
from dwcp_replica.core.modes.reach import Reach, median
from dwcp_replica.store import faults
from dwcp_replica.store.layout import decoder, encode
from dwcp_replica.store.records import Records
from dwcp_replica.store.refusals import Refusal, malformed
from dwcp_replica.store.sessions import RefusalReason

_MODES: Final = b"\x05"
REPORTS_LIVE: Final = 12
"""Rounds of measuring for which a report counts."""
_PPM: Final = 1_000_000


class Held(Struct, frozen=True, array_like=True):
    """A member's latest report, by its identity key; `at_ms`: agreed time of its entry."""

    member: bytes
    at_ms: int
    report: NetworkReport


class Switched(Struct, frozen=True, array_like=True):
    """The latest change of what is decided, at `index` and agreed time `at_ms`.

    `reason` is "network" or "forced"; `network` is the median that led to it, at that time.
    """

    before: Mode
    after: Mode
    reason: str
    index: int
    at_ms: int
    network: NetworkReport


class ModeState(Struct, frozen=True, array_like=True):
    """All that is remembered; see decide.Decision for its first fields."""

    mode: Mode
    forced: Mode | None
    asked: Mode | None = None
    asked_since_ms: int = 0
    switched_ms: int | None = None
    switches: int = 0
    last: Switched | None = None
    reports: tuple[Held, ...] = ()


_decode: Callable[[bytes], ModeState] = decoder(ModeState)


def rules_of(policy: ModePolicy) -> Rules:
    """The thresholds of a cluster."""
    return Rules(
        rtt_low_us=policy.rtt_low_us,
        rtt_high_us=max(policy.rtt_high_us, policy.rtt_low_us),
        rate_bps=policy.rate_bps,
        hysteresis=policy.hysteresis_permille / 1000,
        dwell_ms=policy.dwell_ms,
        cooldown_ms=policy.cooldown_ms,
    )


def report_of(network: Reach, stamp_ms: int) -> NetworkReport:
    """A network as it is written in a report."""
    loss = None if network.loss is None else round(network.loss * _PPM)
    return NetworkReport(stamp_ms, network.rtt_us, network.jitter_us, loss, network.rate_bps)


def network_of(report: NetworkReport) -> Reach:
    """The network that a report tells of."""
    loss = None if report.loss_ppm is None else report.loss_ppm / _PPM
    return Reach(report.rtt_us, report.jitter_us, loss, report.rate_bps)


class ModeBook:
    """What is decided as of the last entry executed; kept in one record."""

    def __init__(self, genesis: EpochRecord, records: Records) -> None:
        self._policy = genesis.parameters.modes
        self._rules = rules_of(self._policy)
        self._skew_ms = genesis.parameters.max_clock_skew_ms
        self._records = records
        self._record = genesis
        first = Mode(self._policy.first)
        data = records.get(_MODES)
        self._first = ModeState(first, first if self._policy.forced else None)
        self.state = self._first if data is None else _decode(data)
        self._saved = data
        self._at_start = self.state.mode

    def enter(self, record: EpochRecord) -> None:
        """Entries of this epoch follow: its members report now."""
        self._record = record
        self._at_start = self.state.mode

    def wish(self, record: EpochRecord, applied_index: int) -> Wish | None:
        """What a member of this epoch is to ask for; None where what runs is what was decided.

        Nothing is said before all that came before the epoch is executed here.
        """
        state = self.state
        decided = self._policy.detect or state.forced is not None or state.switches > 0
        if not decided or record.forced is not None or applied_index < record.start_index:
            return None
        # while no entry of the epoch is executed, what is decided is what was so at its start
        at_start = self._at_start if self._record.epoch == record.epoch else state.mode
        wish = Wish(PROTOCOL_OF[state.mode], PROTOCOL_OF[at_start])
        return None if wish.protocol == record.protocol else wish

    def save(self) -> None:
        """End an entry. What nobody has reported or asked for takes no place."""
        if self.state == self._first and self._saved is None:
            return
        data = encode(self.state)
        if data != self._saved:
            self._records.set(_MODES, data)
            self._saved = data

    def network(self, now_ms: int) -> Reach:
        """The median of the reports that count at this agreed time."""
        counted = [network_of(held.report) for held in self._counted(now_ms)]
        return median(counted, len(self._record.members), self._record.trust)

    def claims(self, now_ms: int) -> dict[bytes, int | None]:
        """What each member says of its round trip to a quorum, by its key; microseconds."""
        return {held.member: held.report.rtt_us for held in self._counted(now_ms)}

    def _counted(self, now_ms: int) -> list[Held]:
        """The reports that count at this agreed time."""
        members = {member.identity for member in self._record.members}
        live_ms = REPORTS_LIVE * self._policy.measure_ms
        return [
            held
            for held in self.state.reports
            if held.member in members and now_ms - held.at_ms <= live_ms
        ]

    # --- reports --------------------------------------------------------------------------------

    def check(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        """Why an envelope of somebody who is no client is refused; None for a member's report."""
        if self._record.member_with(envelope.client) is None:
            return Refusal(
                RefusalReason.UNKNOWN_CLIENT,
                Failure(7, "this key is not one of the cluster's clients: use a declared identity"),
            )
        numbers = (body.session, body.sequence, body.acked)
        alone = len(body.operations) == 1 and isinstance(body.operations[0], MemberOperation)
        if not alone or any(numbers) or msgspec.msgpack.encode(body) != envelope.body:
            return malformed("a member sends nothing but a report of its network or a vote, alone")
        return None

    def stale(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        """Why a report that `check` has passed can not count any more; None when it may."""
        report = body.operations[0]
        assert isinstance(report, NetworkReport), "checked"
        held = self.report_of_member(envelope.client)
        if held is None or report.stamp_ms > held.report.stamp_ms:
            return None
        message = "a later report of this member counts already: send a new one"
        return Refusal(RefusalReason.SEQUENCE_REUSED, Failure(9, message))

    def report_of_member(self, identity: bytes) -> Held | None:
        """The latest report of the member with this key."""
        return next((held for held in self.state.reports if held.member == identity), None)

    def take(
        self, envelope: Envelope, body: EnvelopeBody, index: int, now_ms: int
    ) -> NetworkReported | Failure:
        """Count a report that `check` has passed, and decide anew."""
        report = body.operations[0]
        assert isinstance(report, NetworkReport), "checked"
        if (refusal := self.stale(envelope, body)) is not None:
            return refusal.failure
        if abs(report.stamp_ms - now_ms) > self._skew_ms:
            return Failure(9, "the report's clock is too far from agreed time: set the clock")
        members = {member.identity for member in self._record.members}
        kept = {h.member: h for h in self.state.reports if h.member in members}
        kept[envelope.client] = Held(envelope.client, now_ms, report)
        reports = tuple(kept[member] for member in sorted(kept))
        self.state = msgspec.structs.replace(self.state, reports=reports)
        self._decide(index, now_ms)
        return NetworkReported()

    # --- deciding -------------------------------------------------------------------------------

    def set(
        self, request: ModeSetRequest, index: int, now_ms: int, *, may: bool
    ) -> ModeSetResponse | Failure:
        """Release what the genesis holds; to hold anything is for the epoch record."""
        if not may:
            return faults.PERMISSION_DENIED
        if self._policy.pinned:
            return Failure(9, "the cluster is pinned to its first mode: it never switches")
        if request.mode is not None:
            return Failure(9, "a mode is held by the admin's order: use dwcp admin force-mode")
        self._remember(force(self._decision(), None))
        self._decide(index, now_ms)
        return ModeSetResponse(self.state.mode.value, request.mode)

    def _decision(self) -> Decision:
        state = self.state
        return Decision(
            state.mode, state.forced, self._policy.pinned, state.asked, state.asked_since_ms,
            state.switched_ms,
        )  # fmt: skip

    def _remember(self, decision: Decision) -> None:
        self.state = msgspec.structs.replace(
            self.state,
            mode=decision.mode,
            forced=decision.forced,
            asked=decision.asked,
            asked_since_ms=decision.asked_since_ms,
            switched_ms=decision.switched_ms,
        )

    def _decide(self, index: int, now_ms: int) -> None:
        decision = self._decision()
        if not self._policy.detect and decision.forced is None:
            return
        decision, due = consider(decision, self.network(now_ms), now_ms, self._rules)
        if due is not None:
            self._note(due, index, now_ms)
            decision = switched(decision, due.to, now_ms)
        self._remember(decision)

    def _note(self, due: Switch, index: int, now_ms: int) -> None:
        numbers = report_of(due.network, now_ms)
        last = Switched(self.state.mode, due.to, due.reason, index, now_ms, numbers)
        self.state = msgspec.structs.replace(
            self.state, switches=self.state.switches + 1, last=last
        )
