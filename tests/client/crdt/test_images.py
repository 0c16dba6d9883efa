"""Which frontier to propose, and images from sources that lie."""

from __future__ import annotations

from random import Random

import pytest

from client.crdt.people import document
from client.crdt.test_frontier import history, merged, random_edit
from dwcp.crdt import Store
from dwcp.crdt.frontier import candidate, divide, strands
from dwcp.crdt.images import Fetching, Images, WrongImage
from dwcp.wire.frontiers import image_digest
from dwcp.wire.gossip import IMAGE_PART_BYTES, ImagePart

IMAGE = Random(1).randbytes(3 * IMAGE_PART_BYTES + 5)
DIGEST = image_digest(IMAGE)


@pytest.mark.parametrize("seed", range(30))
def test_the_candidate_is_the_newest_that_strands_nothing(seed: int) -> None:
    """Compared with trying every operation."""
    random = Random(seed)
    whole = merged(history(seed, count=random.randint(2, 25), replicas=random.randint(2, 3)))
    if random.random() < 0.5:
        whole.collect(whole.heads)
        for _ in range(random.randint(0, 6)):
            random_edit(whole, random.randrange(3), random)
    graph = whole.graph
    for count in range(graph.floor, len(graph)):
        able = [n for n in range(graph.floor, count) if not divide(graph, [n]).stranded]
        assert candidate(graph, count) == able[-1:]
    heads = candidate(graph, len(graph))
    assert heads == (sorted(graph.heads) if len(graph) > graph.floor else [])
    assert not heads or not strands(graph, heads)


def served(offset: int, image: bytes = IMAGE) -> ImagePart:
    data = image[offset : offset + IMAGE_PART_BYTES]
    return ImagePart("notes", DIGEST, offset, len(image), data)


def test_an_image_comes_in_parts_each_asked_for() -> None:
    fetching = Fetching("notes", DIGEST)
    found = None
    while found is None:
        ask = fetching.ask()
        found = fetching.take(served(ask.offset))
        if found is None:
            assert fetching.take(served(ask.offset)) is None, "repeated: it counts once"
    assert found == IMAGE


@pytest.mark.parametrize(
    "lie",
    [
        ImagePart("notes", DIGEST, 0, 0, b""),
        ImagePart("notes", DIGEST, 0, 5, b"longer than said"),
        ImagePart("notes", DIGEST, 0, 7, b"another"),
    ],
)
def test_what_is_not_the_agreed_image_is_thrown_away(lie: ImagePart) -> None:
    with pytest.raises(WrongImage):
        Fetching("notes", DIGEST).take(lie)


def test_a_document_serves_the_image_on_which_it_stands_and_no_other() -> None:
    whole = merged(history(5))
    store = Store(document()._rules)
    store.put(whole)
    images = Images(store)
    image = whole.material(whole.heads).image()
    fetching = Fetching("notes", image_digest(image))
    assert images.part(fetching.ask()).total == 0
    whole.collect(whole.heads, image)
    assert fetching.take(images.part(fetching.ask())) == image
    assert images.part(Fetching("notes", bytes(32)).ask()).total == 0
    assert images.part(Fetching("absent", image_digest(image)).ask()).total == 0
