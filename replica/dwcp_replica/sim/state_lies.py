"""Lies about the state: to a replica that fetches it because it was left behind."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from dwcp.wire.peer import Certificate, VoteSig
from dwcp.wire.state import StableCheckpoint, StateChunk, StateNode, StateRecord
from dwcp_replica.core.effects import Outbound
from dwcp_replica.core.trie import value_hash
from dwcp_replica.sim.liar import Context, Liar

Part = TypeVar("Part")


class LyingState(Liar):
    """Shows another state than the certified one, checkpoints of nothing, and old ones."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._first: StableCheckpoint | None = None

    def alter(self, out: Outbound) -> list[Outbound]:
        """Change one part of what is shown."""
        match out.message:
            case StateChunk():
                return [Outbound(out.to, self._chunk(out.message))]
            case StableCheckpoint():
                return [Outbound(out.to, self._checkpoint(out.message))]
        return [out]

    def _chunk(self, chunk: StateChunk) -> StateChunk:
        if chunk.values and self.random.random() < 0.5:
            values = tuple(msgspec.structs.replace(v, value=v.value + b"!") for v in chunk.values)
            return msgspec.structs.replace(chunk, values=values)
        if not chunk.nodes:
            return msgspec.structs.replace(chunk, values=())
        at = self.random.randrange(len(chunk.nodes))
        nodes = list(chunk.nodes)
        nodes[at] = self._node(nodes[at])
        return msgspec.structs.replace(chunk, nodes=tuple(nodes))

    def _node(self, node: StateNode) -> StateNode:
        if node.children:
            children = list(node.children)
            children[self.random.randrange(16)] = self.random.choice((bytes(32), self.noise(32)))
            return msgspec.structs.replace(node, children=tuple(children))
        records = list(node.records)
        if not records:
            return msgspec.structs.replace(node, records=(self._invented(),))
        at = self.random.randrange(len(records))
        match self.random.randrange(4):
            case 0:
                del records[at]
            case 1:
                records.append(self._invented())
            case 2:  # its hash stays: who looks only at hashes believes it
                value = (records[at].value or b"") + b"!"
                records[at] = msgspec.structs.replace(records[at], value=value)
            case _:
                value = (records[at].value or b"") + b"!"
                records[at] = StateRecord(records[at].key, value_hash(value), value)
        return msgspec.structs.replace(node, records=tuple(records[:16]))

    def _invented(self) -> StateRecord:
        value = self.noise(8)
        return StateRecord(b"\x10" + self.noise(8), value_hash(value), value)

    def _checkpoint(self, shown: StableCheckpoint) -> StableCheckpoint:
        self._first = self._first or shown
        if self.random.random() < 0.5:
            return self._first
        certificate = shown.certificate
        votes = tuple(VoteSig(m, self.noise(64)) for m in range(self.n))
        forged = Certificate("checkpoint", certificate.header, self.noise(32), votes)
        return msgspec.structs.replace(shown, certificate=forged)
