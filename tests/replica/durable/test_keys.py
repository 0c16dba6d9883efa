"""The file of an identity key: changed at once or not at all, and what it held before is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from dwcp.identity import Ed25519Signer
from dwcp_replica.durable import DataDirectory, RemovedMember
from dwcp_replica.durable.keys import KEY, MEMBER, NEXT, OLD, MemberFile, write_member


def opened(path: Path) -> DataDirectory:
    return DataDirectory.open(path, name="demo-0", cluster="demo")


def made(path: Path) -> tuple[bytes, bytes]:
    """A member with its next key; both seeds."""
    directory = opened(path)
    following = directory.make_next_key()
    assert directory.make_next_key().public_key == following.public_key, "made once"
    directory.close()
    return directory.signer.seed, following.seed


def files_with(path: Path, seed: bytes) -> list[str]:
    text = seed.hex().encode()
    return sorted(f.name for f in path.iterdir() if f.is_file() and text in f.read_bytes())


def test_the_next_key_is_kept_until_it_is_adopted(tmp_path: Path) -> None:
    old, new = made(tmp_path)
    directory = opened(tmp_path)
    first = directory.signer.public_key
    assert directory.next_signer is not None
    assert (directory.signer.seed, directory.next_signer.seed) == (old, new)
    assert (tmp_path / NEXT).stat().st_mode & 0o077 == 0
    inode = os.open(tmp_path / KEY, os.O_RDONLY)
    directory.adopt_next_key()
    assert (directory.signer.seed, directory.next_signer) == (new, None)
    assert (directory.former_keys, directory.first_key) == ((first,), first)
    assert files_with(tmp_path, old) == []
    assert set(os.read(inode, 100)) == {0}, "overwritten, not only unlinked"
    os.close(inode)
    directory.make_next_key()
    directory.adopt_next_key()
    directory.close()
    again = opened(tmp_path)
    assert len(again.former_keys) == 2
    assert (again.first_key, files_with(tmp_path, new)) == (first, [])
    assert (tmp_path / KEY).stat().st_mode & 0o077 == 0
    again.close()


def link(path: Path) -> None:
    (path / OLD).hardlink_to(path / KEY)


def decide(path: Path) -> None:
    member = msgspec.json.decode((path / MEMBER).read_bytes(), type=MemberFile)
    new = Ed25519Signer.load(path / NEXT).public_key.hex()
    later = msgspec.structs.replace(member, identity=new, former=(member.identity,))
    write_member(path, later)


def rename(path: Path) -> None:
    (path / NEXT).rename(path / KEY)


def overwrite(path: Path) -> None:
    (path / OLD).write_bytes(bytes(65))


STEPS: list[Callable[[Path], None]] = [link, decide, rename, overwrite]


@pytest.mark.parametrize("done", range(5), ids=["none", *(step.__name__ for step in STEPS)])
def test_a_change_that_was_cut_off_is_finished_or_taken_back(tmp_path: Path, done: int) -> None:
    """After each of its steps the power may fail; the next start finds one key or the other."""
    old, new = made(tmp_path)
    for step in STEPS[:done]:
        step(tmp_path)
    directory = opened(tmp_path)
    if done < 2:
        assert directory.signer.seed == old
        assert directory.next_signer is not None
        directory.adopt_next_key()
    assert (directory.signer.seed, directory.next_signer) == (new, None)
    assert {f.name for f in tmp_path.glob("identity.*")} == {KEY}
    assert (files_with(tmp_path, old), files_with(tmp_path, new)) == ([], [KEY])
    directory.close()


def test_who_is_removed_erases_both_keys(tmp_path: Path) -> None:
    old, new = made(tmp_path)
    directory = opened(tmp_path)
    directory.retire(3)
    directory.close()
    assert (files_with(tmp_path, old), files_with(tmp_path, new)) == ([], [])
    with pytest.raises(RemovedMember):
        opened(tmp_path)
