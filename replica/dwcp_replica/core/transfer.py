"""State transfer: the state at a stable checkpoint, fetched where it differs, each part proved.

Castro and Liskov 2002, section 5.3.2. A replica needs it when the others have cut the entries
that it lacks, or when its own state is lost. What it knows is one certificate: a quorum signed
the digest of the state at an index. That digest is the root of a trie (core/trie.py), so every
node below can be checked against its parent, whoever sent it, and a part of the tree whose hash
is that of the replica's own is not fetched at all.

    begin (certificate) --> the shell stops executing: TransferBegun --> walk down from the root
      ask several members at once for nodes and long values; write records as leaves come in
      the root is the certified one: `transferred` --> the shell: Restored --> execute on

The state is changed in place. So progress outlives a crash by itself: what was written is no
longer different, and a walk that starts anew at the root passes over it. Meanwhile the replica
has no state that could be executed or told of; it keeps ordering what comes above the checkpoint.
A source that has moved on shows its newer checkpoint and the walk begins again for that one,
which costs what has changed in between.

A part that is not what its hash says convicts nobody, since parts are not signed; but its sender
is named, counted, and not asked again in this transfer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from dwcp.wire.envelope import batch_digest, decode_batch
from dwcp.wire.peer import Certificate
from dwcp.wire.state import (
    FetchCheckpoint,
    FetchState,
    StableCheckpoint,
    StateChunk,
    StateNode,
)
from dwcp_replica.core import checkpoints, collection
from dwcp_replica.core.chain import Point
from dwcp_replica.core.effects import (
    BaseRecord,
    CheckpointStable,
    SourceLied,
    TransferDone,
    TransferStarted,
)
from dwcp_replica.core.state import Core
from dwcp_replica.core.state_source import PARTS_AT_ONCE
from dwcp_replica.core.state_tree import below
from dwcp_replica.core.trie import (
    ABSENT,
    EMPTY,
    FANOUT,
    child_place,
    inner_hash,
    is_below,
    leaf_hash,
    node_hash,
    path_of,
    state_digest,
    value_hash,
)

ASK_AGAIN_MS: Final = 1000
SAVE_BYTES: Final = 4 * 1024 * 1024
"""Written progress that a crash may cost."""


@dataclass(slots=True)
class Asked:
    """What one member was asked for, and when."""

    since_ms: int
    places: dict[bytes, bytes]
    keys: dict[bytes, bytes]


@dataclass(slots=True)
class Transfer:
    """A transfer that is under way, to the state of `certificate`.

    `places` and `keys` are what is still to be asked for, each with the hash that it must have;
    the root's is not known, only that of the whole state.
    """

    certificate: Certificate
    walking: bool = False
    places: dict[bytes, bytes] = field(default_factory=dict)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    asked: dict[int, Asked] = field(default_factory=dict)
    liars: set[int] = field(default_factory=set)
    received_bytes: int = 0
    unsaved_bytes: int = 0

    @property
    def index(self) -> int:
        """The checkpoint's index."""
        return self.certificate.header.index

    @property
    def left(self) -> int:
        """Parts that are known to be missing."""
        asked = sum(len(one.places) + len(one.keys) for one in self.asked.values())
        return len(self.places) + len(self.keys) + asked


# --- beginning ------------------------------------------------------------------------------------


def ask_checkpoint(core: Core) -> None:
    """Without a usable state, and without a checkpoint to aim at: ask who is further."""
    ahead = [m for m, said in sorted(core.peers.items()) if said.stable > 0]
    if ahead:
        to = min(ahead, key=lambda m: (m <= core.fetch_from, m))
        core.fetch_from = to
        core.fetch_asked.add(to)
        core.send(to, FetchCheckpoint(core.record.epoch))


def on_stable_checkpoint(core: Core, sender: int, message: StableCheckpoint) -> None:
    """Take a checkpoint that somebody shows because the way there is cut."""
    certificate = message.certificate
    header = certificate.header
    if not core.shows_state or (sender not in core.fetch_asked and core.transfer is None):
        return core.refuse(sender, message, "not-asked")
    if core.low < header.index <= core.final and core.transfer is None and not core.stateless:
        return take_stable(core, sender, certificate)
    wanted = header.index > core.final or (core.stateless and header.index >= core.low)
    if core.transfer is not None:
        wanted = header.index > core.transfer.index
    if not wanted:
        return None
    if certificate.kind != "checkpoint" or not core.membership.certificate_holds(certificate):
        return core.refuse(sender, message, "certificate")
    if batch_digest(message.body) != header.batch:
        return core.refuse(sender, message, "digest")
    try:
        stamp_ms = decode_batch(message.body).stamp_ms
    except msgspec.DecodeError:
        return core.refuse(sender, message, "body")
    core.fetch_since_ms = None
    core.fetch_asked.clear()
    return begin(core, certificate, stamp_ms, message.body)


def take_stable(core: Core, sender: int, certificate: Certificate) -> None:
    """A checkpoint of what is final here: only its votes have not come."""
    if certificate.kind != "checkpoint" or not core.membership.certificate_holds(certificate):
        return core.refuse(sender, certificate, "certificate")
    core.fetch_since_ms = None
    return checkpoints.set_stable(core, certificate)


def begin_at_stable(core: Core) -> None:
    """Without a usable state, aim at the stable checkpoint that my own log holds."""
    if core.stable is not None and core.shows_state:
        stamp_ms, body = core.log.stamp_at(core.low), core.log.body_at(core.low)
        begin(core, core.stable, stamp_ms, body)


def begin(core: Core, certificate: Certificate, stamp_ms: int, body: bytes | None) -> None:
    """Aim at this checkpoint; where the log does not lead there, it starts anew from it.

    My own acknowledgements begin anew with it (epochs.md, Checkpoints): what I had voted for
    below is covered by a quorum that executed it, or was never final.
    """
    header = certificate.header
    liars = core.transfer.liars if core.transfer is not None else set[int]()
    if core.log.hash_at(header.index) != header.hash():
        point = Point(header.index, header.hash(), header.term)
        core.restart_log(point, stamp_ms, body)
        record = BaseRecord(point.index, point.hash, point.term, stamp_ms, certificate, body or b"")
        core.persist(record)
    is_newer = header.index > core.low
    core.transfer = Transfer(certificate, liars=liars)
    collection.adopt_stable(core, certificate)
    core.out.transfer = (header.index, certificate.state)
    reason = "state-lost" if core.stateless else "behind"
    core.emit(TransferStarted(header.index, reason))
    if is_newer:
        core.emit(CheckpointStable(header.index, certificate.state))
    core.yield_to_log()


def on_begun(core: Core, index: int) -> None:
    """The shell executes nothing any more: walk."""
    transfer = core.transfer
    if transfer is None or transfer.index != index or transfer.walking:
        return
    transfer.walking = True
    root = node_hash(core.state.node(b"") or EMPTY)
    if state_digest(root) == transfer.certificate.state:
        finish(core, transfer)
        return
    transfer.places = {b"": b""}
    pursue(core)


# --- asking -------------------------------------------------------------------------------------


def pursue(core: Core) -> None:
    """Ask every member that may help and has answered before; give up waiting for others."""
    transfer = core.transfer
    if transfer is None or not transfer.walking:
        return
    for member in sorted(transfer.asked):
        if core.now_ms - transfer.asked[member].since_ms >= ASK_AGAIN_MS:
            give_back(transfer, transfer.asked.pop(member))
    idle = [member for member in sources(core, transfer) if member not in transfer.asked]
    for left, member in zip(range(len(idle), 0, -1), idle, strict=True):
        wanted = len(transfer.places) + len(transfer.keys)
        if wanted:
            ask(core, transfer, member, min(PARTS_AT_ONCE, -(-wanted // left)))


def sources(core: Core, transfer: Transfer) -> list[int]:
    """Who may have the state at the checkpoint; who lied only where nobody else is left."""
    said = {**core.peers, **core.outside}
    ahead = [m for m, one in sorted(said.items()) if one.final >= transfer.index]
    known = ahead or [m for m in range(core.n) if m != core.me]
    honest = [m for m in known if m not in transfer.liars] or known
    first = (core.me + core.now_ms // ASK_AGAIN_MS) % len(honest)
    return [*honest[first:], *honest[:first]]


def give_back(transfer: Transfer, asked: Asked) -> None:
    """What was not answered is asked of somebody else."""
    transfer.places.update(asked.places)
    transfer.keys.update(asked.keys)


def ask(core: Core, transfer: Transfer, member: int, count: int) -> None:
    """Ask for the newest wants first: depth first, so that few are known at a time."""
    places: dict[bytes, bytes] = {}
    keys: dict[bytes, bytes] = {}
    while transfer.keys and len(keys) < count:
        key, hash_ = transfer.keys.popitem()
        keys[key] = hash_
    while transfer.places and len(places) + len(keys) < count:
        place, hash_ = transfer.places.popitem()
        places[place] = hash_
    transfer.asked[member] = Asked(core.now_ms, places, keys)
    index, state = transfer.index, transfer.certificate.state
    core.send(member, FetchState(index, state, tuple(places), tuple(keys)))


# --- taking -------------------------------------------------------------------------------------


def on_state_chunk(core: Core, sender: int, message: StateChunk) -> None:
    """Check every part against the hash that it was asked for, then write what differs."""
    transfer = core.transfer
    if transfer is None or not transfer.walking or sender not in transfer.asked:
        return core.refuse(sender, message, "not-asked")
    if (message.index, message.state) != (transfer.index, transfer.certificate.state):
        return core.refuse(sender, message, "checkpoint")
    asked = transfer.asked[sender]
    reason = fault(transfer, asked, message)
    if reason is not None:
        give_back(transfer, transfer.asked.pop(sender))
        if reason == "not-asked":  # late, perhaps: it was asked of somebody else meanwhile
            return core.refuse(sender, message, reason)
        transfer.liars.add(sender)
        core.emit(SourceLied(sender, transfer.index))
        core.refuse(sender, message, reason)
        return pursue(core)
    del transfer.asked[sender]
    taken = take(core, transfer, asked, message)
    give_back(transfer, asked)
    transfer.received_bytes += taken
    transfer.unsaved_bytes += taken
    if transfer.unsaved_bytes >= SAVE_BYTES:
        transfer.unsaved_bytes = 0
        core.state.save()
    if transfer.left:
        return pursue(core)
    return finish(core, transfer)


def fault(transfer: Transfer, asked: Asked, message: StateChunk) -> str | None:
    """What is wrong with an answer; None when every part of it is proved."""
    if not (message.nodes or message.values):
        return "empty"
    parts = [node.place for node in message.nodes], [value.key for value in message.values]
    if any(len(set(some)) != len(some) for some in parts):
        return "twice"
    for node in message.nodes:
        wanted = asked.places.get(node.place)
        if wanted is None:
            return "not-asked"
        found = shown_hash(node)
        if found is None:
            return "node"
        if wanted != found and (wanted or state_digest(found) != transfer.certificate.state):
            return "node-hash"
    for value in message.values:
        wanted = asked.keys.get(value.key)
        if wanted is None:
            return "not-asked"
        if value_hash(value.value) != wanted:
            return "value-hash"
    return None


def shown_hash(node: StateNode) -> bytes | None:
    """The hash that a shown node has; None for what can not be a node."""
    if node.children:
        if len(node.children) != FANOUT or node.records:
            return None
        return inner_hash(node.children)
    if any(r.value is not None and value_hash(r.value) != r.hash for r in node.records):
        return None
    pairs = [(path_of(record.key), record.hash) for record in node.records]
    if any(not is_below(path, node.place) for path, _ in pairs):
        return None
    return leaf_hash(sorted(pairs))


def take(core: Core, transfer: Transfer, asked: Asked, message: StateChunk) -> int:
    """Write what a checked answer brings, and note what it shows to be missing; its bytes."""
    changes: dict[bytes, bytes | None] = {}
    size = 0
    for value in message.values:
        del asked.keys[value.key]
        changes[value.key] = value.value
        size += len(value.key) + len(value.value)
    for node in message.nodes:
        del asked.places[node.place]
        if node.children:
            descend(core, transfer, node, changes)
            size += FANOUT * 32
        else:
            size += take_leaf(core, transfer, node, changes)
    core.state.write(changes)
    return size


def descend(
    core: Core, transfer: Transfer, node: StateNode, changes: dict[bytes, bytes | None]
) -> None:
    """Note which children differ from mine; mine that should not be there go."""
    for nibble, hash_ in enumerate(node.children):
        place = child_place(node.place, nibble)
        mine = core.state.node(place)
        if hash_ == ABSENT:
            changes.update(dict.fromkeys((entry.key for entry in below(core.state, place)), None))
        elif mine is None or node_hash(mine) != hash_:
            transfer.places[place] = hash_


def take_leaf(
    core: Core, transfer: Transfer, node: StateNode, changes: dict[bytes, bytes | None]
) -> int:
    """Let the records below a place be those of a leaf; its bytes."""
    mine = {entry.key: entry.hash for entry in below(core.state, node.place)}
    size = 0
    for record in node.records:
        size += 32 + len(record.key) + len(record.value or b"")
        if mine.pop(record.key, None) == record.hash:
            continue
        if record.value is None:
            transfer.keys[record.key] = record.hash
        else:
            changes[record.key] = record.value
    changes.update(dict.fromkeys(mine, None))
    return size


def finish(core: Core, transfer: Transfer) -> None:
    """Nothing is missing: the state must be the certified one."""
    root = node_hash(core.state.node(b"") or EMPTY)
    assert state_digest(root) == transfer.certificate.state, "all parts are here, the state is not"
    transfer.walking = False
    core.out.transferred = True


def on_restored(core: Core, index: int) -> None:
    """The shell goes on from the state at `index`: execute what is final above it."""
    transfer = core.transfer
    if transfer is None or transfer.index != index:
        return  # it was aimed at a newer one meanwhile: the shell has been told
    core.emit(TransferDone(index, transfer.received_bytes))
    core.transfer = None
    core.stateless = False
    core.applied = core.emitted = core.saved = index
    core.emit_final()
