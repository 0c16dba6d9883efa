"""`dwcp sim`: one life, campaigns, planted bugs; every failure with the command that repeats it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dwcp.cli.sim import sim
from dwcp_replica.sim.page import marks
from dwcp_replica.sim.planted import PLANTED
from dwcp_replica.sim.planting import planted


def run(*words: str) -> Result:
    return CliRunner().invoke(sim, list(words))


def replay_line(result: Result) -> list[str]:
    """The words of the last command that a failure printed."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("replay: dwcp sim ")]
    return lines[-1].split("#")[0].removeprefix("replay: dwcp sim ").split()


def test_one_life() -> None:
    result = run("--seed", "3", "-o", "json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["seed"] == 3
    assert report["operations"] == 20
    assert replay_line(result) == ["--seed", "3", "--operations", "20"]


def test_several_lives_are_summed_up() -> None:
    result = run("--seed", "3", "--count", "3", "--replicas", "4", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["lives"] == 3


def test_a_failing_life_prints_the_command_that_repeats_it() -> None:
    with planted(PLANTED["quorum-2f"]):
        result = run("--seed", "2")
        again = run(*replay_line(result))
    assert result.exit_code == again.exit_code == 1
    assert "Violation" in result.stderr
    assert again.stderr.splitlines()[1] == result.stderr.splitlines()[1], "it fails alike"


def test_a_failure_shrinks_to_a_smaller_life_that_fails_alike() -> None:
    with planted(PLANTED["final-after-one-round"]):
        result = run("--seed", "6", "--shrink")
        words = replay_line(result)
        again = run(*words)
    assert result.exit_code == again.exit_code == 1
    assert int(words[words.index("--operations") + 1]) < 20
    assert words[words.index("--faults") + 1] == "none"
    assert "Violation: quorum" in again.stderr


def test_parts_of_a_life_can_be_left_out() -> None:
    result = run(
        "--seed", "8", "--replicas", "4", "--faults", "none", "--liars", "2:silent", "-o", "json"
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["faults"] == []
    assert report["liars"] == ["2:silent"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--faults", "99"], "--faults takes numbers"),
        (["--liars", "0"], "pairs like"),
        (["--liars", "0:kind"], "lies are bad-new-view"),
        (
            ["--replicas", "4", "--faults", "none", "--liars", "0:lie,1:lie"],
            "leave faults or liars",
        ),
    ],
)
def test_what_can_not_be_lived_is_refused_with_advice(words: list[str], says: str) -> None:
    result = run("--seed", "1", *words)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_a_campaign_ends_with_its_time() -> None:
    result = run("campaign", "--seconds", "1", "--seed", "50", "-o", "json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    assert summary["violations"] == 0
    assert summary["runs"] >= 1
    assert 1 <= summary["seconds"] < 10
    assert summary["first_seed"] == 50


def test_a_campaign_that_finds_something_says_how_to_repeat_it() -> None:
    with planted(PLANTED["commit-without-cc"]):
        result = run("campaign", "--seconds", "0.1", "--seed", "5", "-o", "json")  # its first life
        again = run(*replay_line(result))
    assert result.exit_code == again.exit_code == 1
    summary = json.loads(result.stdout)
    assert summary["violations"] == len(summary["failures"]) > 0


def test_short_lives_have_one_fault_and_are_repeated_alike() -> None:
    result = run("campaign", "--seconds", "0.1", "--seed", "20", "--short", "-o", "json")
    summary = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (
        summary["with_crash_or_view_change"] == summary["runs"] == sum(summary["by_fault"].values())
    )
    assert summary["by_liar"] == {}
    with planted(PLANTED["skipped-fsync"]):
        result = run("campaign", "--seconds", "1", "--seed", "20", "--short", "-o", "json")
        assert result.exit_code == 1
        assert "--replicas 4 --protocol pbft --faults 0 --liars none" in result.stderr
        assert run(*replay_line(result)).exit_code == 1
    refused = run("campaign", "--short", "--replicas", "7")
    assert refused.exit_code == 2
    assert "fixes the rest" in refused.stderr


def test_planted_bugs_are_listed_with_how_they_were_caught(tmp_path: Path) -> None:
    result = run("planted", "--only", "quorum-2f", "--only", "skipped-fsync", "-o", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert [bug["name"] for bug in found] == ["quorum-2f", "skipped-fsync"]
    assert all(bug["caught"] and bug["seeds"] >= 1 and bug["seconds"] >= 0 for bug in found)


def test_the_table_needs_the_whole_list(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(marks("planted")))
    result = run("planted", "--only", "quorum-2f", "--write", str(page))
    assert result.exit_code == 2
    assert "leave --only out" in result.stderr
    assert run("planted", "--only", "no-such-bug").exit_code == 2


def test_a_bug_that_is_not_caught_fails_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = PLANTED["quorum-2f"]
    monkeypatch.setitem(
        PLANTED,
        "quorum-2f",
        type(harmless)(harmless.name, harmless.what, lambda _: None, harmless.setting, 2),
    )
    result = run("planted", "--only", "quorum-2f")
    assert result.exit_code == 1
    assert "NOT CAUGHT" in result.stdout


def test_an_exploration_prints_its_bound_and_what_it_saw() -> None:
    result = run("explore", "slot", "--states", "500", "-o", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["scene"] == "slot"
    assert found["complete"]
    assert found["bound"]["states_max"] == 500
    assert found["epochs"] == 2
    told = run("explore", "slot", "--depth", "2").stdout
    assert "bound 1000000 states, 2 steps, 0 disturbances: all within the bound" in told


def test_an_exploration_prints_what_leads_to_a_broken_promise() -> None:
    with planted(PLANTED["acks-after-seal"]):
        result = run("explore", "seal-sets")
    assert result.exit_code == 1
    assert "BROKEN: promise: signed Prepare in sealed epoch 0, after" in result.stdout
    assert "Panics from 3 to" in result.stdout


def test_an_unknown_scene_is_refused_with_the_list() -> None:
    result = run("explore", "nowhere")
    assert result.exit_code == 2
    assert "two-faces-pbft" in result.stderr
