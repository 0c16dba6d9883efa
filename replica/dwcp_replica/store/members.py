"""What members themselves put into the log: reports of their networks, votes for frontiers.

Each is alone in an envelope that the member's identity key signs, in session 0. So it goes the way
of every request (forwarded, ordered, timed out when a primary leaves it out).
"""

from __future__ import annotations

from dwcp.wire.envelope import Envelope, EnvelopeBody
from dwcp.wire.frontiers import FrontierVote, FrontierVoted
from dwcp.wire.modes import NetworkReported
from dwcp.wire.operations import Failure
from dwcp.wire.records import EpochRecord
from dwcp_replica.store.frontiers import FrontierTable
from dwcp_replica.store.modes import ModeBook
from dwcp_replica.store.refusals import Refusal
from dwcp_replica.store.sessions import RefusalReason


class MemberDesk:
    """Takes what members say, each kind where it belongs."""

    def __init__(self, modes: ModeBook, frontiers: FrontierTable) -> None:
        self._modes = modes
        self._frontiers = frontiers

    def check(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        """Why an envelope of somebody who is no client is refused; None when it may be executed."""
        return self._modes.check(envelope, body)

    def stale(self, envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
        """Why what `check` has passed can not count any more; None when it may."""
        operation = body.operations[0]
        if not isinstance(operation, FrontierVote):
            return self._modes.stale(envelope, body)
        failure = self._frontiers.stale(envelope.client, operation)
        return None if failure is None else Refusal(RefusalReason.SEQUENCE_REUSED, failure)

    def take(
        self, envelope: Envelope, body: EnvelopeBody, record: EpochRecord, index: int, now_ms: int
    ) -> NetworkReported | FrontierVoted | Failure:
        """Execute what `check` has passed."""
        operation = body.operations[0]
        if isinstance(operation, FrontierVote):
            return self._frontiers.vote(envelope.client, operation, record)
        return self._modes.take(envelope, body, index, now_ms)
