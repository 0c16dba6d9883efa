"""The lies by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dwcp_replica.sim import false_seals, lies, raft_lies, state_lies, tricks
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
    "ghost-candidate": raft_lies.GhostCandidate,
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
    "short-seal": false_seals.ShortSeal,
    "silent": tricks.Silent,
    "stale-reads": lies.StaleReads,
    "stale-view": tricks.StaleView,
    "swapped-bodies": lies.SwappedBodies,
    "swapped-entries": raft_lies.SwappedBodies,
    "twins": tricks.Twin,
    "two-faced-seal": false_seals.TwoFacedSeal,
    "two-faced-leader": raft_lies.TwoFacedLeader,
    "two-faced-change": lies.TwoFacedChange,
    "usurper": raft_lies.Usurper,
    "votes-for-all": raft_lies.VotesForAll,
    "wrong-answers": raft_lies.WrongAnswers,
    "wrong-replies": lies.WrongReplies,
}
"""`forgetful` restarts with an empty disk under its old key; `twins` is two engines."""

ANYWHERE: Final = frozenset(
    (
        "censor",
        "corrupt-digest",
        "delay",
        "forge",
        "forged-envelopes",
        "forgetful",
        "huge-status",
        "lying-catch-up",
        "lying-state",
        "mutate",
        "repeat",
        "replay",
        "selective",
        "silent",
        "twins",
        "wrong-replies",
    )
)
"""Lies that make sense in both protocols."""
RAFT_ONLY: Final = frozenset(
    (
        "ghost-candidate",
        "swapped-entries",
        "two-faced-leader",
        "usurper",
        "votes-for-all",
        "wrong-answers",
    )
)
LIARS_OF: Final = {"pbft": frozenset(LIARS) - RAFT_ONLY, "raft": ANYWHERE | RAFT_ONLY}
"""The lies that a seed draws from, by protocol."""

TWINS: Final = "twins"
FORGETFUL: Final = "forgetful"
