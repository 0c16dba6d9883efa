"""Which epoch a message belongs to: messages of another one never count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dwcp.wire.epochs import (
    FetchValue,
    Panic,
    Panics,
    Ready,
    Seal,
    SlotChange,
    SlotProposal,
    SlotValue,
    SlotVote,
    SwitchProof,
)
from dwcp.wire.peer import (
    Append,
    Appended,
    CheckpointVote,
    Commit,
    DoubleVote,
    Entries,
    Equivocation,
    Fetch,
    Fork,
    NewView,
    PeerMessage,
    Prepare,
    PrePrepare,
    PreVote,
    Status,
    Transfer,
    ViewChange,
    Vote,
    VoteRequest,
)
from dwcp.wire.state import FetchCheckpoint, StableCheckpoint
from dwcp.wire.switch import AdminSwitch, SwitchRequest


def _field(message: Any) -> int:
    epoch: int = message.epoch
    return epoch


def _header(message: Any) -> int:
    epoch: int = message.header.epoch
    return epoch


def _entry(message: Any) -> int:
    epoch: int = message.entry.header.epoch
    return epoch


def _first(message: Any) -> int:
    epoch: int = message.first.epoch
    return epoch


_EPOCHS: Final[dict[type[Any], Callable[[Any], int]]] = {
    **dict.fromkeys(
        (
            ViewChange, Status, Fetch, Panic, Seal, SlotProposal, SlotVote, SlotChange, FetchValue,
            Ready, SwitchRequest, AdminSwitch, FetchCheckpoint, Append, Appended, VoteRequest,
            PreVote, Vote, Transfer,
        ),
        _field,
    ),
    **dict.fromkeys((Prepare, Commit, CheckpointVote), _header),
    **dict.fromkeys((PrePrepare, SwitchProof), _entry),
    **dict.fromkeys((Equivocation, DoubleVote, Fork), _first),
    NewView: lambda message: int(message.election.epoch),
    StableCheckpoint: lambda message: int(message.certificate.header.epoch),
    Entries: lambda message: int(message.certificate.header.epoch),
    SlotValue: lambda message: int(message.record.epoch) - 1,
    Panics: lambda message: int(message.panics[0].epoch) if message.panics else -1,
}  # fmt: skip


def epoch_of(message: PeerMessage) -> int | None:
    """The epoch that a message belongs to; None when it says nothing of one."""
    find = _EPOCHS.get(type(message))
    return None if find is None else find(message)
