"""A replica that lost the tail of its log: mute until an epoch that it can not have voted in.

What was cut off may have been a vote, so the replica counts as one of f and signs nothing. E is
the highest epoch that the answers of a quorum of other members prove, by a record or by a
prepared certificate of the slot; only in an epoch above E does it speak again. "Until a later
checkpoint" and "until the next epoch that I know of" lose finals (epochs.md, Damaged tail). It
asks for such an epoch itself: a switch to the same protocol and members, a refresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dwcp.wire.epochs import EpochBound
from dwcp_replica.core.epochs import slot
from dwcp_replica.core.state import Core


@dataclass(slots=True)
class Muteness:
    """Why this replica is mute, and how far it has come towards an end of that.

    `reason` None: it is not. `for_good`: its log can not even be written.
    """

    reason: str | None
    for_good: bool
    nonce: bytes = b""
    bound: int | None = None
    answers: dict[bytes, int] = field(default_factory=dict)

    @property
    def asks(self) -> bool:
        """True while E is not known and is worth asking for."""
        return self.reason is not None and not self.for_good and self.bound is None

    @property
    def wants_refresh(self) -> bool:
        """True when only an epoch above E is missing."""
        return self.reason is not None and self.bound is not None

    def answered(self, core: Core, sender: int, message: EpochBound) -> None:
        """Count a member's answer, as far as it is proven; q of them fix E.

        Its records were taken already: what it claims beyond them is no proof.
        """
        key = core.membership.key(sender)
        if not self.asks or message.nonce != self.nonce or key is None:
            return
        proven = core.record.epoch
        if message.epoch > proven:
            return  # more records than fit one answer: asked again from where they end
        prepared = message.prepared
        if (
            message.epoch == proven
            and prepared is not None
            and slot.certificate_holds(core.membership, prepared)
        ):
            proven += 1
        self.answers[key] = proven
        members = {member.identity for member in core.record.members}
        counted = [epoch for identity, epoch in self.answers.items() if identity in members]
        if len(counted) >= core.q:
            self.bound = max(counted)

    def may_speak_in(self, epoch: int) -> bool:
        """True in an epoch above E."""
        return self.bound is not None and epoch > self.bound

    def end(self) -> None:
        """The replica speaks again."""
        self.reason = None
        self.bound = None
        self.answers.clear()
