"""Mutated frames of every kind: no crash, no state change, each one counted.

Frames are taken from a busy life, a few bytes are changed, and whatever still decodes is handed
to an engine that has seen that life. `DWCP_FUZZ_FRAMES` sets how many per kind; `make long` uses
100,000.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import replace
from random import Random

import msgspec

from dwcp.wire.peer import (
    Commit,
    DoubleVote,
    Elections,
    Entries,
    PeerMessage,
    Prepare,
    Status,
    decode_message,
    encode_message,
)
from dwcp_replica.core.effects import MessageRefused, Ready, Received
from dwcp_replica.core.replica import Replica, Standing
from replica.core.conversation import Conversation

FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "600"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))


def mutated(frame: bytes, draw: Random) -> bytes:
    data = bytearray(frame)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(data))
        match draw.randrange(4):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at] = draw.choice((0, 1, 0x7F, 0x80, 0xC0, 0xCF, 0xFF))
            case 2:
                del data[at : at + draw.randint(1, 8)]
            case _:
                data[at:at] = draw.randbytes(draw.randint(1, 8))
        if not data:
            return b"\x00"
    return bytes(data)


def meaning(message: PeerMessage) -> PeerMessage:
    """What a message says: a vote names an entry by its hash, which leaves the signature of the
    echoed header out."""
    if isinstance(message, Prepare | Commit):
        header = msgspec.structs.replace(message.header, sig=bytes(64))
        return msgspec.structs.replace(message, header=header)
    if isinstance(message, Entries):  # each election certificate stands or falls by itself
        return msgspec.structs.replace(message, elections=())
    return message


def observed(standing: Standing) -> Standing:
    """All that must not change: what peers say of themselves is a hint and does."""
    return replace(standing, peers={})


class Interference:
    """Delivers mutated copies of every message just before the message itself."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def live(self) -> None:
        """A cluster's life with requests, view changes, a lie and catch-up."""
        talk = Conversation(interval=2, timeout_ms=400)
        receive = talk.receive

        def tapped(member: int, sender: int, message: PeerMessage) -> None:
            self.disturb(talk.replicas[member], sender, message)
            receive(member, sender, message)

        talk.receive = tapped  # type: ignore[method-assign]
        talk.submit(2, "a", "1")
        talk.deliver()
        talk.isolate(0)
        talk.submit(0, "x", "lost")
        talk.submit(1, "d", "2")
        talk.wait(2000)
        talk.cut.clear()
        talk.wait(2000)
        talk.hand_over(1)
        talk.deliver()
        talk.submit(3, "e", "3")
        talk.wait(3000)
        done = [talk.values(member) for member in range(4)]
        assert done == [[b"1", b"2", b"lost", b"3"]] * 4, "it went on as if nothing had happened"

    def disturb(self, engine: Replica, sender: int, message: PeerMessage) -> None:
        kind = type(message).__name__
        counts = self.counts[kind]
        for _ in range(min(20, FRAMES - counts.total())):
            counts[self.outcome(engine, sender, message)] += 1

    def outcome(self, engine: Replica, sender: int, message: PeerMessage) -> str:
        frame = mutated(encode_message(message), self.draw)
        try:
            changed = decode_message(frame)
        except msgspec.DecodeError:
            return "undecodable"
        if meaning(changed) == meaning(message):
            return "same"
        before = observed(engine.standing())
        ready = engine.step(Received(sender, changed))
        assert observed(engine.standing()) == before, changed
        assert not ready.persist, changed
        assert not ready.apply, changed
        if any(isinstance(event, MessageRefused) for event in ready.events):
            return "refused"
        assert answers_only(ready), changed
        return "of no consequence"


def test_mutated_frames_change_nothing() -> None:
    """At every moment of a life, and the life goes on unharmed."""
    print(f"replay: DWCP_FUZZ_SEED={SEED} DWCP_FUZZ_FRAMES={FRAMES} pytest {__name__}")
    interference = Interference(Random(SEED))
    for _ in range(1 + FRAMES):
        interference.live()
        if min(counts.total() for counts in interference.counts.values()) >= FRAMES:
            break
    for kind, counts in sorted(interference.counts.items()):
        print(f"{kind}: {dict(sorted(counts.items()))}")
        assert counts.total() >= FRAMES, kind
    assert set(interference.counts) >= KINDS
    refused = sum(counts["refused"] for counts in interference.counts.values())
    assert refused > FRAMES, "the checks must have been reached"


def answers_only(ready: Ready) -> bool:
    """Nothing but answers to whoever asked, or questions about what was named."""
    return all(
        not isinstance(out.message, Status | DoubleVote | Elections) or out.to >= 0
        for out in ready.send
    )


KINDS = {
    "PrePrepare",
    "Prepare",
    "Commit",
    "CheckpointVote",
    "ViewChange",
    "NewView",
    "Forward",
    "Status",
    "Fetch",
    "Entries",
}
