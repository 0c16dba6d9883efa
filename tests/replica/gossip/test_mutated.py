"""Mutated messages about documents: no crash, and no document changes by them."""

from __future__ import annotations

import os
from random import Random

import msgspec
import pytest

from client.crdt.people import document, rules, signers
from dwcp.crdt import Store
from dwcp.crdt.images import Fetching
from dwcp.wire.frontiers import image_digest
from dwcp.wire.gossip import GossipMessage, decode_frame, encode_gossip
from dwcp_replica.gossip import Gossip
from replica.gossip.world import World
from replica.mutations import mutated

FRAMES = int(os.environ.get("DWCP_FUZZ_FRAMES", "400"))
SEED = int(os.environ.get("DWCP_FUZZ_SEED", "20261122"))


def spoken() -> dict[str, list[bytes]]:
    """Real frames of every kind between members."""
    world, found = World(4, seed=1), {}

    def note(_me: int, _to: int, frame: bytes) -> list[bytes]:
        found.setdefault(type(decode_frame(frame)).__name__, []).append(frame)
        return [frame]

    for member in range(4):
        world.lies[member] = note
    doc = document()
    for text in ("one", "x" * 200_000, *("y" * 200_000 for _ in range(12))):
        with doc.edit(signers(2)[0], epoch=0) as edit:
            edit.insert("body", 0, text)
        assert edit.operation is not None
        world.submit(0, edit.operation)
    world.join_all()
    world.run(world.level)
    image, latest = _image(world), world.members[1]
    fetching = Fetching("notes", image_digest(image))
    for _ in range(3):
        part = latest.images.part(fetching.ask())
        found.setdefault("ImageAsk", []).append(encode_gossip(fetching.ask()))
        found.setdefault("ImagePart", []).append(encode_gossip(part))
        fetching.take(part)
    return found


def _image(world: World) -> bytes:
    """What member 1 stands on, of more than one part."""
    whole = world.document(1)
    image = whole.material(whole.heads).image()
    whole.collect(whole.heads, image)
    return image


FOUND = spoken()


@pytest.mark.parametrize(
    "kind", ["Digests", "Versions", "Taken", "SyncMessage", "ImageAsk", "ImagePart"]
)
def test_mutated_messages_change_no_document(kind: str) -> None:
    frames, draw = FOUND[kind], Random(SEED)
    member = Gossip(Store(rules()), draw.randrange, lambda _link: None)
    member.connect(1)
    heard = 0
    for turn in range(FRAMES):
        changed = mutated(frames[turn % len(frames)], draw)
        try:
            message = decode_frame(changed)
        except msgspec.DecodeError:
            continue
        if isinstance(message, GossipMessage):
            heard += 1
            member.receive(1, message, len(changed), turn)
            member.say(1, turn)
    assert heard, "nothing decodes: the test shows nothing"
    genuine = {operation.hash() for operation in _genuine()}
    for one in member.store:
        assert set(one.graph.hashes) <= genuine


def _genuine() -> list:  # type: ignore[type-arg]
    messages = [decode_frame(frame) for frame in FOUND["SyncMessage"]]
    return [o for m in messages for o in m.operations]  # type: ignore[union-attr]
