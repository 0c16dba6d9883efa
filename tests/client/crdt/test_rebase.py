"""Images that are the same everywhere, and edits below a frontier made again on top."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from random import Random

import pytest

from client.crdt.people import document, signers
from client.crdt.test_frontier import history, merged, random_edit, typed
from dwcp.crdt import Document
from dwcp.crdt.rebase import rebase

PRINT_IMAGE = """
from client.crdt.test_rebase import shuffled_image
print(shuffled_image({seed}, {order}).hex())
"""


def shuffled(whole: Document, order: int) -> Document:
    """The same operations, arrived in another order."""
    operations = list(whole.operations())
    Random(order).shuffle(operations)
    other = document()
    for operation in operations:
        other.receive(operation)
    assert other.heads == whole.heads
    return other


def shuffled_image(seed: int, order: int) -> bytes:
    """SHA-256 of the second of two images; the first is at half of the history."""
    replicas = history(seed)
    half = merged(replicas)
    later = merged([half])
    random = Random(seed)
    for _ in range(20):
        random_edit(later, random.randrange(3), random)
    other = shuffled(later, order)
    other.collect(half.heads)
    image = other.material(other.heads).image()
    return hashlib.sha256(image).digest()


@pytest.mark.parametrize("seed", range(6))
def test_an_image_is_the_same_whatever_came_first(seed: int) -> None:
    images = {shuffled_image(seed, order) for order in range(4)}
    assert len(images) == 1


def test_an_image_is_the_same_in_every_process() -> None:
    """Sets and hashes of bytes are ordered differently there."""
    found = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_IMAGE.format(seed=3, order=int(hash_seed))],
            capture_output=True, text=True, check=True, timeout=60,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"},
        )  # fmt: skip
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.parametrize("seed", range(6))
def test_whoever_lacks_the_past_takes_the_image(seed: int) -> None:
    whole = merged(history(seed))
    image = whole.material(whole.heads).image()
    behind = document()
    for operation in list(whole.operations())[:10]:
        behind.receive(operation)
    assert behind.adopt(image) == []
    assert behind.view() == whole.view()
    assert behind.heads == whole.heads
    whole.collect(whole.heads, image)
    made = random_edit(whole, 0, Random(seed))
    assert behind.receive(made).outcome == "applied"
    assert behind.view() == whole.view()
    assert behind.dump() == whole.dump()


def test_an_edit_below_the_frontier_is_made_again_and_merges() -> None:
    here, away = document(), document()
    first = typed(here, 0, "shared")
    away.receive(first)
    with here.edit(signers(8)[0], epoch=0) as edit:
        edit.insert("text", 6, " here")
        edit.set("title", "here")
    (mine,) = [one for one in here.operations() if one.hash() != first.hash()]
    offline = []
    for words in ("A", "B"):
        with away.edit(signers(8)[1], epoch=0) as edit:
            edit.insert("text", len(str(away.get("text", "text"))), words)
            edit.set("title", words)
            edit.increment("visits")
        assert edit.operation is not None
        offline.append(edit.operation)
    image = here.material(here.heads).image()
    here.collect(here.heads, image)
    for operation in offline:
        assert here.receive(operation).outcome != "applied"
    assert here.refused["rebase"] == 1

    away.receive(mine)
    stranded = away.collect(here.heads, image)
    assert stranded == offline
    done = rebase(away, stranded, signers(8)[1], 0)
    assert (len(done.made), done.edits_lost) == (2, 0)
    for operation in done.made:
        assert here.receive(operation).outcome == "applied"
    assert here.heads == away.heads
    assert here.view() == away.view()
    assert away.get("visits", "pn-counter") == 2
    text = str(here.get("text", "text"))
    assert text.startswith("shared")
    assert sorted(text[6:]) == sorted(" hereAB")
    register = here.find("title", "lww")
    assert register is not None
    assert {value for _, value in register.ordered()} == {"here", "B"}, "concurrent, as it was"


def test_what_stands_on_an_edit_that_is_no_more_is_left_out_and_counted() -> None:
    """Ann types inside Bob's stranded word: only Bob can make his word again."""
    here, away = document(), document()
    first = typed(here, 0, "shared")
    away.receive(first)
    typed(here, 0, "x")
    with away.edit(signers(8)[1], epoch=0) as edit:
        edit.insert("text", 0, "Bob")
    with away.edit(signers(8)[2], epoch=0) as edit:
        edit.insert("text", 1, "Ann")
        edit.increment("visits")
    for operation in list(here.operations())[1:]:
        away.receive(operation)
    stranded = away.collect(here.heads)
    done = rebase(away, stranded, signers(8)[2], 0)
    assert (len(done.made), done.edits_lost) == (1, 1)
    assert away.get("visits", "pn-counter") == 1
