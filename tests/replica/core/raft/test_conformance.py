"""Cases about votes, appends and commits that nobody here wrote, put before the driver."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dwcp.wire.envelope import Batch, batch_digest
from dwcp.wire.peer import (
    Append,
    Appended,
    Certificate,
    Entry,
    Header,
    Vote,
    VoteCertificate,
    VoteRequest,
    VoteSig,
    elect_signing_bytes,
    vote_signing_bytes,
)
from dwcp.wire.records import scope_of
from dwcp_replica.core import tally
from dwcp_replica.core.certificates import Vote as Counted
from dwcp_replica.core.chain import Branch, Point
from dwcp_replica.core.effects import (
    CertificateRecord,
    ElectionRecord,
    EnteredRecord,
    EntryRecord,
    Halted,
    Received,
    Record,
    TermRecord,
    Tick,
)
from dwcp_replica.core.raft import election, role
from dwcp_replica.core.replica import Replica
from replica.core.conversation import WALL_MS, Conversation

Case = dict[str, Any]
Places = list[list[int]]
"""A log as the cases write it: [index, term], ascending."""

DIFFERENT = {
    "raft_core/recv_vote/10": "entries of a term show that it has a leader: nobody votes in it",
    "raft_core/commit/04": "no leader's log holds entries of a later term than its own",
    "raft_core/commit/08": "no leader's log holds entries of a later term than its own",
    "raft_core/commit/10": "no leader's log holds entries of a later term than its own",
    "raft_core/election/06": "votes refused are not signed: a candidate waits for its time-out",
}


class Maker:
    """Logs with the given terms, each entry signed by its term's owner, each term elected."""

    def __init__(self, n: int = 3) -> None:
        self.talk = Conversation(n=n, protocol="raft", trust="Crash")
        self.genesis = self.talk.genesis
        self.scope = scope_of(self.genesis, self.genesis)

    def entries(self, places: Places, below: list[Entry] | None = None) -> list[Entry]:
        """A chain above `below`; equal places give equal entries."""
        chain = list(below or [])
        for index, term in places:
            assert index == len(chain) + 1, "a log has no gaps"
            prev = chain[-1].header.hash() if chain else self.genesis.start_hash
            body = msgspec.msgpack.encode(Batch(WALL_MS + index, ()))
            header = Header(0, term, index, batch_digest(body), prev, bytes(64))
            sig = self.talk.signers[self.genesis.primary(term)].sign(
                header.signing_bytes(self.scope)
            )
            chain.append(Entry(msgspec.structs.replace(header, sig=sig), body))
        return chain

    def elected(self, term: int, last: Point) -> VoteCertificate:
        """A majority's votes for the owner of `term` with the log that ends at `last`."""
        bound = (last.term, last.index, last.hash)
        message = elect_signing_bytes(self.scope, 0, term, bound)
        voters = range(self.talk.n // 2 + 1)
        votes = tuple(VoteSig(m, self.talk.signers[m].sign(message)) for m in voters)
        return VoteCertificate(0, term, *bound, votes)

    def start(self, chain: list[Entry], index: int) -> Point:
        if index == 0:
            return Point(0, self.genesis.start_hash, 0)
        header = chain[index - 1].header
        return Point(index, header.hash(), header.term)

    def elections(self, chain: list[Entry]) -> list[tuple[VoteCertificate, Point]]:
        found = []
        for entry in chain:
            at = self.start(chain, entry.header.index - 1)
            if entry.header.term not in (at.term, 1):
                found.append((self.elected(entry.header.term, at), at))
        return found

    def records(self, chain: list[Entry]) -> list[Record]:
        """What a member's disk holds that has followed every leader of this chain."""
        found: list[Record] = []
        for certificate, at in self.elections(chain):
            found.append(ElectionRecord(certificate, at.index, at.hash, at.term))
            found.append(EnteredRecord(certificate.view, certificate.digest()))
        return found + [EntryRecord(entry) for entry in chain]

    def engine(self, records: list[Record], me: int) -> Replica:
        replica = Replica(
            genesis=self.genesis,
            me=me,
            signer=self.talk.signers[me],
            verifier=self.talk.verifier,
            records=records,
            draw=lambda bound: bound - 1,
        )
        replica.step(Tick(1000, WALL_MS + 1000))
        return replica


def places(replica: Replica) -> Places:
    return [[s.header.index, s.header.term] for s in replica._core.log.slots(0)]


# --- votes -----------------------------------------------------------------------------------


def votes(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Terms of empty logs are one higher here: nobody is elected in the first one."""
    given = case["input"]
    term = given["request_term"] + (0 if given["log"] else 1)
    maker = Maker()
    chain = maker.entries(given["log"])
    candidate = maker.genesis.primary(term)
    me = next(m for m in (1, 2) if m != candidate)  # member 0 leads the first term
    records = maker.records(chain)
    shown = Point(given["candidate_last_index"], b"\1" * 32, given["candidate_last_term"])
    if given.get("voted_for") is not None:
        same = given["voted_for"] == given.get("candidate", 2)
        bound = (shown.term, shown.index, shown.hash if same else bytes(32))
        sig = maker.talk.signers[me].sign(elect_signing_bytes(maker.scope, 0, term, bound))
        records.append(TermRecord(term, Vote(0, term, *bound, me, sig)))
    replica = maker.engine(records, me)
    monkeypatch.setattr(election, "candidate_log", lambda *_: Branch(shown, (), ()))
    monkeypatch.setattr(election, "shown_tip", lambda *_: shown)
    request = VoteRequest(0, term, False, None, (), ())  # noqa: FBT003 - a field
    ready = replica.step(Received(candidate, request))
    granted = any(isinstance(out.message, Vote) for out in ready.send)
    return {"granted": granted}


def log_check(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    given = case["input"] | {"voted_for": None}
    return votes({"input": given}, monkeypatch)


def up_to_date(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    given = case["input"]
    maker = Maker()
    replica = maker.engine(maker.records(maker.entries(given["log"])), 0)
    shown = Point(given["candidate_last_index"], bytes(32), given["candidate_last_term"])
    objection = election.log_objection(replica._core, Branch(shown, (), ()))
    return {"up_to_date": objection is None}


def outcome(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    given = case["input"]
    maker = Maker(given["nodes"])
    core = maker.engine([], 1)._core
    election.stand(core, election.ViewChangeReason.SILENT)
    campaign = core.raft.campaign
    assert campaign is not None
    election.run(core, campaign)
    bound = (0, 0, maker.genesis.start_hash)
    for member, granted in given["votes"].items():
        number = int(member) % given["nodes"]  # theirs are 1 to n, and 1 stands
        message = elect_signing_bytes(maker.scope, 0, campaign.term, bound)
        number = number if number != 1 else 0
        vote = Vote(0, campaign.term, *bound, number, maker.talk.signers[number].sign(message))
        if granted:
            election.on_vote(core, number, vote)
    return {"state": "leader" if role.leads(core) else "candidate", "term": 1}


# --- appends ---------------------------------------------------------------------------------


def appended(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    """One message of the leader of the last term in it, to a follower with this log."""
    given = case["input"]
    maker = Maker()
    chain = maker.entries(given["log"])
    at, at_term = given["prev_index"], given["prev_term"]
    held = at <= len(chain) and (at == 0 or chain[at - 1].header.term == at_term)
    below = chain[:at] if held else []
    prev = maker.start(below, at) if held else Point(at, b"\2" * 32, at_term)
    above = maker.entries(given["entries"], below) if held else []
    term = max([t for _, t in given["entries"]] + [given["log"][-1][1]])
    records = maker.records(chain)
    if given.get("commit"):
        records.append(committed(maker, chain[given["commit"] - 1].header))
    leader = maker.genesis.primary(term)
    replica = maker.engine(records, next(m for m in range(3) if m != leader))
    message = Append(
        0, term, prev.index, prev.term, prev.hash, tuple(above[at:]), (),
        tuple(certificate for certificate, _ in maker.elections(above)),
    )  # fmt: skip
    ready = replica.step(Received(leader, message))
    if any(isinstance(event, Halted) for event in ready.events):
        return {"fatal": "would overwrite a committed entry"}
    answers = [out.message for out in ready.send if isinstance(out.message, Appended)]
    rejected = [answer for answer in answers if answer.rejected]
    if rejected:
        (hint,) = rejected
        return {
            "accepted": False,
            "last_new_index": None,
            "etcd_reject_hint_index": hint.index,
            "etcd_reject_hint_term": hint.hint_term,
            "log": places(replica),
        }
    last = at + len(given["entries"])
    return {"accepted": True, "last_new_index": last, "log": places(replica)}


def committed(maker: Maker, header: Header) -> CertificateRecord:
    message = vote_signing_bytes(maker.scope, "prepare", header)
    voters = [m for m in range(3) if m != maker.genesis.primary(header.term)]
    sigs = tuple(VoteSig(m, maker.talk.signers[m].sign(message)) for m in voters)
    return CertificateRecord(Certificate("prepare", header, b"", sigs))


def first_new(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    given = case["input"]
    maker = Maker()
    chain = maker.entries(given["log"])
    log = maker.engine(maker.records(chain), 0)._core.log
    lowest = given["entries"][0][0] if given["entries"] else 1
    above = maker.entries(given["entries"], chain[: lowest - 1])[lowest - 1 :]
    new = [e.header.index for e in above if log.hash_at(e.header.index) != e.header.hash()]
    return {"index": new[0] if new else 0}


def not_above(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    given = case["input"]
    maker = Maker()
    base, base_term = given["snapshot"]
    below = [[i, base_term] for i in range(1, base + 1)]
    log = maker.engine(maker.records(maker.entries(below + given["log"])), 0)._core.log
    log.cut(base)
    return {"index": log.not_above(given["index"], given["term"])}


# --- commits ---------------------------------------------------------------------------------


def commits(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    """A follower that matches up to an index has acked every entry of the term up to there."""
    given = case["input"]
    matches = given.get("match") or [len(given["log_at_ack"]), given["follower_match"]]
    term = given.get("term") or given["leader_term"]
    maker = Maker(len(matches))
    chain = maker.entries(given.get("log") or given["log_at_ack"])
    core = maker.engine(maker.records(chain), 0)._core
    core.view, core.active = term, True
    others = [m for m in range(core.n) if m != core.primary]
    for member, match in zip(others, matches[1:], strict=True):
        for slot in core.log.slots(0, match):
            if slot.header.term == term:
                core.prepares.add(member, Counted(slot.header, slot.hash, b"", bytes(64)))
    found = tally.first_certificate(core)
    return {"commit": 0 if found is None else found.header.index}


def repaired(case: Case, _monkeypatch: pytest.MonkeyPatch) -> Case:
    """Figure 7: a third member helps to elect, the follower's log becomes the leader's."""
    given = case["input"]
    maker = Maker()
    talk, term = maker.talk, given["election_term"]
    leader = maker.genesis.primary(term)
    follower = next(m for m in range(3) if m != leader)
    mine = maker.records(maker.entries(given["leader_log"]))
    theirs = maker.records(maker.entries(given["follower_log"]))
    for member in range(3):
        talk.records[member][:] = theirs if member == follower else mine
        talk.restart(member)
    for member in range(3):  # only the leader-to-be loses its patience
        talk.replicas[member]._core.raft.patience_ms = -1 if member == leader else 10**9
    core = talk.replicas[leader]._core
    core.view = term - 1
    talk.wait(300)
    for _ in range(given["proposals_after_election"]):
        talk.submit(leader, "a", "1")
    talk.wait(1000)
    assert role.leads(core), [replica.standing() for replica in talk.replicas]
    return {"follower_log": places(talk.replicas[follower])}


KINDS: dict[str, Callable[[Case, pytest.MonkeyPatch], Case]] = {
    "vote_request": votes,
    "vote_once_per_term": votes,
    "vote_log_check": log_check,
    "candidate_log_up_to_date": up_to_date,
    "election_outcome": outcome,
    "append_entries_on_log": appended,
    "append_prev_check": appended,
    "log_after_append": appended,
    "first_conflicting_or_new_index": first_new,
    "largest_index_not_above_with_term_at_most": not_above,
    "leader_commit_index": commits,
    "leader_commit_rule": commits,
    "leader_repairs_follower_log": repaired,
}
NOT_OURS = {"commit_after": "what is committed is shown by certificates, not by a number"}


def test_cases_of_raft(conformance: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[str] = Counter()
    wrong: list[tuple[Case, Case]] = []
    lines = (conformance / "raft_core" / "cases.jsonl").read_text().splitlines()
    for line in lines:
        case = json.loads(line)
        with monkeypatch.context() as patched:
            got = KINDS[case["kind"]](case, patched)
        expected = {k: v for k, v in case["expected"].items() if k not in NOT_OURS}
        same = all(got.get(key) == value for key, value in expected.items())
        if same == (case["id"] in DIFFERENT):
            wrong.append((case, got))
        counts[case["kind"]] += 1
    print(f"raft_core: {len(lines)} cases, {len(DIFFERENT)} different on purpose")
    for kind, count in sorted(counts.items()):
        print(f"  {kind}: {count}")
    for name, reason in DIFFERENT.items():
        print(f"  different: {name}: {reason}")
    assert not wrong, wrong
    assert len(DIFFERENT) <= len(lines) // 10
    assert set(counts) <= set(KINDS)
