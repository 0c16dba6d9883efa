"""`dwcp doc`: two people edit one text over four local replicas, two of them cut off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]

MANIFEST = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
CUT_S = 3.0


class Sessions:
    """A local cluster, and two directories from which people work."""

    name = "notes"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cuts = root / "cuts.json"
        self.people = {"ann": root / "cluster", "bob": root / "bob"}
        self.command = [sys.executable, "-c", "from dwcp.cli import main; main()"]
        self.environment = {**os.environ, "DWCP_TEST_CUTS": str(self.cuts)}

    def run(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, timeout=60, check=False,
            env=self.environment,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def doc(self, person: str, action: str, *more: str, code: int = 0) -> str:
        place = ("--data", str(self.people[person]))
        return self.run("doc", action, self.name, *more, *place, code=code)

    def body(self, person: str, *more: str) -> str:
        view = json.loads(self.doc(person, "get", *more))
        return str(view.get("body", ""))

    def eventually(self, what: str, holds: Callable[[], bool], limit_s: float = 20) -> float:
        began = time.monotonic()
        while not holds():
            assert time.monotonic() - began < limit_s, f"not within {limit_s} s: {what}"
        return time.monotonic() - began


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    here = Sessions(tmp_path_factory.mktemp("sessions"))
    cluster = here.people["ann"]
    manifest = here.root / "cluster.yaml"
    tree = yaml.safe_load(MANIFEST.read_text())
    tree["spec"]["documents"] = {
        "strategies": [{"document": "plan", "path": ["title"], "strategy": "Manual"}]
    }
    manifest.write_text(yaml.safe_dump(tree))
    here.run("up", "-f", str(manifest), "--data", str(cluster), "--detach")
    here.people["bob"].mkdir()
    for name in ("genesis.msgpack", "client.key"):
        shutil.copy(cluster / name, here.people["bob"] / name)
    yield here
    here.run("down", "--data", str(cluster))


@pytest.mark.parametrize("cut_s", [CUT_S, pytest.param(20.0, marks=pytest.mark.e2e)])
def test_two_sessions_edit_one_text_while_two_replicas_are_cut_off(
    sessions: Sessions, cut_s: float
) -> None:
    sessions.name = f"notes-{cut_s:g}"
    status = json.loads(sessions.run("status", "-o", "json", "--data", str(sessions.people["ann"])))
    names = [member["name"] for member in status["members"]]
    left, right = names[:2], names[2:]
    near = [word for name in left for word in ("--via", name)]
    far = [word for name in right for word in ("--via", name)]
    assert sessions.doc("ann", "edit", "--append", "body=Together.", *near).strip() == "safe"
    assert sessions.body("bob", *far) == "Together."

    apart = dict.fromkeys(left, right) | dict.fromkeys(right, left)
    sessions.cuts.write_text(json.dumps(apart))
    began = time.monotonic()
    turn = 0
    while turn < 2 or time.monotonic() - began < cut_s:
        assert sessions.doc("ann", "edit", "--append", f"body= a{turn}", *near).strip() == "safe"
        assert sessions.doc("bob", "edit", "--append", f"body= b{turn}", *far).strip() == "safe"
        turn += 1
    # what was said while the links were being cut may have come through; the last words not
    assert f"b{turn - 1}" not in sessions.body("ann", *near)
    assert f"a{turn - 1}" not in sessions.body("bob", *far)

    sessions.cuts.unlink()
    last = (f"a{turn - 1}", f"b{turn - 1}")
    took_s = sessions.eventually(
        "both see all", lambda: all(word in sessions.body("ann", *near) for word in last)
    )
    print(f"equal {took_s:.1f} s after the links were mended, commands included")
    sessions.eventually("equal", lambda: sessions.body("ann") == sessions.body("bob"))
    body = sessions.body("ann")
    assert body.startswith("Together.")
    for number in range(turn):
        assert body.count(f" a{number}") >= 1
        assert body.count(f" b{number}") >= 1


def test_offline_edits_conflicts_and_mistakes(sessions: Sessions) -> None:
    sessions.name = "plan"
    assert sessions.doc("ann", "edit", "--set", 'title="one"').strip() == "safe"
    sessions.doc("bob", "get")
    said = sessions.doc("ann", "edit", "--set", 'title="two"', "--offline")
    assert said.strip() == "local"
    sessions.doc("bob", "edit", "--set", 'title="three"')
    found = json.loads(sessions.doc("ann", "conflicts"))
    assert found["path"] == "title"
    assert {one["value"] for one in found["values"]} == {"two", "three"}
    assert (found["base"], found["strategy"]) == ("one", "Manual")
    told = json.loads(sessions.doc("ann", "history"))
    assert [one["path"] for one in told["waiting"]] == [["title"]]
    assert told["strategies"]["Manual"]["waiting"] == 1
    sessions.doc("bob", "get")
    sessions.doc("bob", "settle", "title", '"both"')
    assert json.loads(sessions.doc("ann", "get")) == {"title": "both"}
    assert not sessions.doc("ann", "conflicts")
    watched = sessions.doc("ann", "watch", "--count", "2")
    assert json.loads(watched.splitlines()[-1]) == {"title": "both"}
    sessions.doc("ann", "edit", "--set", "title=unquoted", code=2)
    sessions.doc("ann", "edit", "--delete", "body:0:5", code=1)
    assert sessions.doc("ann", "token").startswith("Authorization: DWCP ")
