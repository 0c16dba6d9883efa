"""Lies about how an epoch ended: SEALs that show less than was held, and not the same to all."""

from __future__ import annotations

import msgspec

from dwcp.wire.epochs import Seal, SlotProposal, slot_signing_bytes
from dwcp_replica.core.effects import EVERYONE, Outbound
from dwcp_replica.sim.liar import Liar


class ShortSeal(Liar):
    """Shows an empty log when the epoch ends, and hides its certificate."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Another SEAL in place of the engine's."""
        if not isinstance(out.message, Seal):
            return [out]
        return [Outbound(out.to, self.shorter(out.message))]

    def shorter(self, seal: Seal) -> Seal:
        """A SEAL of this member that shows nothing, with the same trigger."""
        bare = msgspec.structs.replace(
            seal, checkpoint=None, log=(), cc=None, branch=(), elections=()
        )
        return msgspec.structs.replace(bare, sig=self.signer.sign(bare.signing_bytes(self.scope)))


class TwoFacedSeal(ShortSeal):
    """Shows one SEAL to half of the members and another to the rest; proposals too."""

    def alter(self, out: Outbound) -> list[Outbound]:
        """Split every SEAL in two; propose to some members only what holds the short one."""
        message = out.message
        half = len(self.others) // 2
        if isinstance(message, Seal) and out.to == EVERYONE:
            short = self.shorter(message)
            return [Outbound(m, message) for m in self.others[half:]] + [
                Outbound(m, short) for m in self.others[:half]
            ]
        if isinstance(message, SlotProposal) and out.to == EVERYONE:
            other = self._other(message)
            return [Outbound(m, message) for m in self.others[half:]] + [
                Outbound(m, other) for m in self.others[:half]
            ]
        return [out]

    def _other(self, proposal: SlotProposal) -> SlotProposal:
        """A proposal whose record says something else than its SEALs."""
        record = msgspec.structs.replace(proposal.value.record, barred=(self.random.randrange(4),))
        value = msgspec.structs.replace(proposal.value, record=record)
        signed = slot_signing_bytes(
            self.scope, "slot-proposal", proposal.epoch, proposal.view, record.hash()
        )
        return msgspec.structs.replace(proposal, value=value, sig=self.signer.sign(signed))
