"""`dwcp predict`: a table from a file of sites, or a sentence that says what to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dwcp.cli.predict import predict

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/sites.yaml"
FOUR = "members: [a, a, b, b]\n"


def test_the_example_ranks_every_protocol_and_leader() -> None:
    result = CliRunner().invoke(predict, ["-f", str(EXAMPLE), "-o", "json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["predictions"]
    assert [(r["protocol"], r["leader"]) for r in rows if r["protocol"] == "pbft"] != []
    assert {(r["protocol"], r["leader"]) for r in rows} == {
        (protocol, leader) for protocol in ("pbft", "raft") for leader in range(4)
    }
    answers = [r["answer_ms"] for r in rows if r["protocol"] == "pbft"]
    assert answers == sorted(answers)
    assert answers[0] < min(r["answer_ms"] for r in rows if r["protocol"] == "raft")


def test_the_table_names_sites() -> None:
    result = CliRunner().invoke(predict, ["-f", str(EXAMPLE)])
    assert result.exit_code == 0
    assert "singapore" in result.stdout
    assert "answer ms" in result.stdout


def test_the_real_engine_is_measured_beside_every_prediction() -> None:
    result = CliRunner().invoke(predict, ["-f", str(EXAMPLE), "--measure", "-o", "json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)["predictions"]
    assert len(rows) == 8
    off = [abs(row["answer_ms"] - row["measured_ms"]) / row["measured_ms"] for row in rows]
    print(f"off by {max(off):.1%} at most")
    assert max(off) < 0.15
    shown = CliRunner().invoke(predict, ["-f", str(EXAMPLE), "--measure"]).stdout
    assert "measured ms" in shown.splitlines()[0]


def test_what_is_measured_needs_a_client(tmp_path: Path) -> None:
    file = tmp_path / "sites.yaml"
    file.write_text("members: [a, a, a, a]\n")
    result = CliRunner().invoke(predict, ["-f", str(file), "--measure"])
    assert result.exit_code == 2
    assert "write client:" in result.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FOUR, "the delay between a and b is missing: write it under one_way_ms"),
        ("members: [a, a, a]\n", "3 members are not 3f+1: use 4 or 7"),
        ("members: [a, a, a, a, a]\n", "use 4 or 7"),
        (FOUR + "one_way_ms: {a: {b: -1}}\n", "one_way_ms"),
        (FOUR + "client: c\none_way_ms: {a: {b: 1}}\n", "between c and a is missing"),
        (FOUR + "speed: 3\n", "unknown field `speed`"),
        ("members: [a\n", "examples/sites.yaml"),
        ("- 1\n", "examples/sites.yaml"),
    ],
)
def test_bad_sites_are_refused_with_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "sites.yaml"
    file.write_text(text)
    result = CliRunner().invoke(predict, ["-f", str(file)])
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_a_missing_file_is_said() -> None:
    result = CliRunner().invoke(predict, ["-f", "no-such-file.yaml"])
    assert result.exit_code == 2
    assert "no-such-file.yaml" in result.output


def test_crash_trust_offers_raft_alone(tmp_path: Path) -> None:
    file = tmp_path / "sites.yaml"
    file.write_text("members: [a, a, a]\ntrust: Crash\n")
    result = CliRunner().invoke(predict, ["-f", str(file), "-o", "json"])
    assert {r["protocol"] for r in json.loads(result.stdout)["predictions"]} == {"raft"}
