"""The pure planner: what is wanted and what is seen in, the next safe steps out."""

from dwcp_operator.plan.backoff import Restart, restart
from dwcp_operator.plan.observed import (
    Desired,
    EvidenceSeen,
    GenesisHeld,
    GenesisSeen,
    MemberObserved,
    Observed,
    Report,
    Volume,
)
from dwcp_operator.plan.planner import plan
from dwcp_operator.plan.quorum import faulty_max, quorum
from dwcp_operator.plan.steps import (
    AdoptGenesis,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    EnsureKeys,
    ReportForeignGenesis,
    ReportForeignVolume,
    ReportLostVolume,
    ReportStopped,
    StartMember,
    Step,
    WaitFor,
    WaitReason,
)

__all__ = [
    "AdoptGenesis",
    "CompleteGenesis",
    "CreateGenesis",
    "CreateVolume",
    "DeliverGenesis",
    "Desired",
    "EnsureKeys",
    "EvidenceSeen",
    "GenesisHeld",
    "GenesisSeen",
    "MemberObserved",
    "Observed",
    "Report",
    "ReportForeignGenesis",
    "ReportForeignVolume",
    "ReportLostVolume",
    "ReportStopped",
    "Restart",
    "StartMember",
    "Step",
    "Volume",
    "WaitFor",
    "WaitReason",
    "faulty_max",
    "plan",
    "quorum",
    "restart",
]
