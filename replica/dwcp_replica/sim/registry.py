"""The lies by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dwcp_replica.sim import lies, state_lies, tricks
from dwcp_replica.sim.liar import Liar

LIARS: Final[Mapping[str, type[Liar]]] = {
    "bad-new-view": lies.BadNewView,
    "censor": tricks.Censor,
    "corrupt-digest": lies.CorruptDigest,
    "delay": tricks.Delay,
    "equivocate": lies.Equivocate,
    "flood": tricks.Flood,
    "forge": lies.Forge,
    "forged-envelopes": lies.ForgedEnvelopes,
    "forgetful": Liar,
    "future-ghost": lies.FutureGhost,
    "ghost": lies.Ghost,
    "huge-status": tricks.HugeStatus,
    "impostor": lies.Impostor,
    "lie": lies.Lie,
    "lying-catch-up": lies.LyingCatchUp,
    "lying-state": state_lies.LyingState,
    "mixed-reads": lies.MixedReads,
    "mutate": tricks.Mutate,
    "repeat": lies.Repeat,
    "replay": tricks.Replay,
    "restless": tricks.Restless,
    "selective": tricks.Selective,
    "silent": tricks.Silent,
    "stale-reads": lies.StaleReads,
    "stale-view": tricks.StaleView,
    "swapped-bodies": lies.SwappedBodies,
    "twins": tricks.Twin,
    "two-faced-change": lies.TwoFacedChange,
    "wrong-replies": lies.WrongReplies,
}
"""`forgetful` restarts with an empty disk under its old key; `twins` is two engines."""

TWINS: Final = "twins"
FORGETFUL: Final = "forgetful"
