"""Who takes which message: by its kind, and by what it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dwcp.wire.epochs import (
    FetchEpoch,
    FetchHistory,
    FetchValue,
    History,
    Panic,
    Panics,
    Records,
    Seal,
    SlotChange,
    SlotProposal,
    SlotValue,
    SlotVote,
    SwitchProof,
)
from dwcp.wire.epochs import (
    Ready as ReadyMessage,
)
from dwcp.wire.peer import (
    DoubleVote,
    Entries,
    Equivocation,
    Fetch,
    FetchBodies,
    FetchElections,
    Fork,
    Status,
    ViewChange,
)
from dwcp.wire.state import FetchCheckpoint, FetchState, StableCheckpoint, StateChunk
from dwcp_replica.core import (
    catchup,
    election_book,
    evidence,
    transfer,
)
from dwcp_replica.core.driver import Handler
from dwcp_replica.core.epochs import rest, slot, switching
from dwcp_replica.core.epochs.keeper import Keeper
from dwcp_replica.core.state import Core

SHARED: Final[dict[type[Any], Handler]] = {
    Equivocation: evidence.on_evidence,
    DoubleVote: evidence.on_evidence,
    Fork: evidence.on_evidence,
    Fetch: catchup.on_fetch,
    Entries: catchup.on_entries,
    StableCheckpoint: transfer.on_stable_checkpoint,
    StateChunk: transfer.on_state_chunk,
    FetchElections: election_book.on_fetch_elections,
}
"""What every driver needs, and a replica without one."""
RESTING: Final[dict[type[Any], Handler]] = {**SHARED, **rest.HANDLERS}
WAITING: Final[dict[type[Any], Handler]] = {
    kind: handler for kind, handler in RESTING.items() if kind is not Entries
}
"""Entries above a start that is not held could be executed before what lies below."""
ENDINGS: Final[dict[type[Any], Handler]] = {
    Panic: switching.on_panic,
    Panics: switching.consider,
    SwitchProof: switching.consider,
    Seal: switching.on_seal,
    SlotProposal: slot.on_proposal,
    SlotVote: slot.on_vote,
    SlotChange: slot.on_change,
    FetchValue: slot.on_fetch_value,
    SlotValue: slot.on_value,
}
"""About the end of the present epoch."""
KEEPERS: Final[dict[type[Any], Callable[[Keeper, Core, int, Any], None]]] = {
    FetchHistory: Keeper.on_fetch_history,
    History: Keeper.on_history,
    ReadyMessage: Keeper.on_ready,
    FetchEpoch: Keeper.on_fetch_epoch,
    FetchCheckpoint: Keeper.on_fetch_checkpoint,
    FetchState: Keeper.on_fetch_state,
}
"""About no epoch's log in particular."""
OUTSIDERS_MAY_SEND: Final = (
    Status, Fetch, FetchHistory, FetchElections, FetchBodies, FetchCheckpoint, FetchState, Records,
    History, StableCheckpoint, StateChunk,
)  # fmt: skip
"""Questions of learners; and answers that prove themselves, of members that left."""
LAGGARDS_SEND: Final = (Seal, SlotProposal, SlotVote, SlotChange, ViewChange)
