"""The list of planted bugs: each must be caught, within its seeds, in the lives named here.

Where a bug shows only under a certain lie or fault the lives are narrowed to it, so that a hunt
takes seconds; a campaign draws the same lies and faults by itself, only more rarely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from dwcp_replica.sim import bugs, endings, lapses, raft_bugs, row_bugs, state_bugs
from dwcp_replica.sim.planting import Patches, Planted, Setting
from dwcp_replica.sim.scenario import FAULTS_MS, Amnesia, Crash, Cut, Fault, Lose, Rot
from dwcp_replica.sim.world import Link

ANY: Final = Setting()
FOUR: Final = Setting(n=4)
HONEST: Final = Setting(n=4, liars={})
RESTARTS: Final = Setting(
    n=4, liars={}, faults=(Crash(0, 300, 60), Crash(1, 900, 60), Crash(2, 1500, 60))
)


def lying(lie: str, member: int = 0, interval: int | None = None, n: int = 4) -> Setting:
    """Lives with one liar, and the seed's faults."""
    return Setting(n=n, liars={member: lie}, interval=interval)


def lying_then_replaced(lie: str) -> Setting:
    """The liar leads, then the second primary falls silent too: terms 1, 2 and 3 meet."""
    return Setting(
        n=4,
        liars={0: lie},
        faults=(Cut((0,), 500, 500), Crash(0, 1100, 100), Cut((1,), 1400, 900), Crash(1, 2350, 50)),
    )


CHECKPOINTS_LOST: Final = Setting(
    n=4,
    operations=80,
    interval=2,
    liars={},
    faults=tuple(Lose(m, 1, FAULTS_MS, "CheckpointVote") for m in (0, 1, 2, 3)),
    weather=Link(),
)
LAGGARD: Final = Setting(n=4, liars={0: "lying-catch-up"}, faults=(Crash(3, 100, 900),))
MUTED: Final = Setting(n=4, liars={}, faults=(Rot(1, 400, 50, tail=True), Crash(0, 1200, 900)))
CENSORED: Final = Setting(n=4, liars={0: "censor"}, faults=())
FAIR_LOSS: Final = Setting(
    n=4,
    liars={},
    faults=(Amnesia(3, 50), Crash(0, 400, 1200), Lose(1, 1, FAULTS_MS, "ViewChange")),
    weather=Link(1, 80, 0.2),
)

READING_LOSS: Final = (Lose(0, 1, FAULTS_MS, "Commit"),)
READING: Final = Setting(
    n=4,
    operations=60,
    liars={2: "stale-reads"},
    faults=READING_LOSS,
    weather=Link(1, 80),
    fast_reads=True,
)
MIXED_READS: Final = replace(READING, liars={2: "mixed-reads"})
READING_AGAIN: Final = replace(
    READING,
    faults=(*READING_LOSS, *(Crash(0, at, 5) for at in range(150, 2400, 150))),
    weather=Link(1, 40),
)
RAFT: Final = Setting(protocol="raft")
RAFT_RESTARTS: Final = replace(RESTARTS, protocol="raft")
RAFT_LAGGARD: Final = Setting(
    n=4,
    liars={},
    faults=(Cut((3,), 60, 600), Crash(0, 640, 1500), Cut((1,), 640, 60)),
    protocol="raft",
)
"""Who lags stands for election when the leader is gone."""

RAFT_LONGER_AND_OLDER: Final = Setting(
    n=4,
    operations=40,
    liars={},
    faults=(Cut((0,), 400, 200), Crash(1, 595, 120), Crash(2, 595, 60), Crash(3, 595, 60)),
    weather=Link(),
    protocol="raft",
)
"""A leader that is cut off goes on alone; it comes back when the others all restart."""


def raft_lying(lie: str, member: int = 0, *faults: Fault) -> Setting:
    """Lives of Raft with one liar, and these faults or the seed's."""
    return Setting(n=4, liars={member: lie}, faults=faults or None, protocol="raft")


GHOST_STANDS: Final = raft_lying("ghost-candidate", 1, Crash(0, 500, 1500))

TRUSTED_LEADER_CRASHES: Final = Setting(n=3, faults=(Crash(0, 400, 800),), protocol="raft")
"""Where members trust each other nothing but an election can help: their epochs do not end."""

LEFT_BEHIND: Final = Setting(
    n=4,
    operations=60,
    interval=2,
    liars={0: "lying-state"},
    faults=(Crash(3, 300, 900), Crash(2, 1900, 30)),
    weather=Link(),
)
CUT_OFF: Final = replace(
    LEFT_BEHIND, liars={}, faults=(Crash(3, 300, 900), *(Crash(m, 2300, 30) for m in range(4)))
)
RESTARTED_AND_CUT: Final = Setting(
    n=4,
    operations=60,
    interval=2,
    liars={},
    faults=(
        Cut((0,), 300, 500),
        Crash(1, 700, 60),
        Cut((1,), 900, 500),
        Crash(2, 1300, 60),
        Crash(3, 1500, 60),
    ),
)
REPLACED_AND_CUT: Final = replace(lying_then_replaced("ghost"), interval=2, operations=40)

_LIST: Final[tuple[tuple[str, Callable[[Patches], None], Setting, int], ...]] = (
    ("quorum-2f", bugs.quorum_2f, ANY, 20),
    ("quorum-4-at-7", bugs.quorum_4_at_7, Setting(n=7), 20),
    ("votes-without-digest", bugs.votes_without_digest, lying("lie"), 60),
    (
        "checkpoint-votes-without-digest",
        bugs.checkpoint_votes_without_digest,
        lying("corrupt-digest", 1, 2),
        60,
    ),
    ("votes-of-strangers", bugs.votes_of_strangers, lying("forge", 2), 30),
    ("votes-in-any-name", bugs.votes_in_any_name, lying("forge", 2), 30),
    ("primary-votes-twice", bugs.primary_votes_twice, lying("lie"), 60),
    ("final-after-one-round", bugs.final_after_one_round, ANY, 30),
    ("commit-without-cc", bugs.commit_without_cc, ANY, 20),
    ("replies-before-final", bugs.executes_at_prepared, ANY, 30),
    ("second-proposal-replaces-first", bugs.second_proposal_replaces_the_first, lying("lie"), 60),
    ("unverified-headers", bugs.unverified_headers, lying("impostor", 2), 30),
    ("unverified-clients", bugs.unverified_clients, lying("forged-envelopes"), 30),
    ("unverified-bodies", bugs.unverified_bodies, lying("swapped-bodies", 0, 2), 30),
    ("catch-up-without-certificate", bugs.catch_up_without_certificate, LAGGARD, 60),
    ("catch-up-without-digest", bugs.catch_up_without_digest, LAGGARD, 100),
    ("stale-checkpoint-accepted", bugs.stale_checkpoint_accepted, Setting(n=4, interval=2), 30),
    ("unbounded-water-mark", bugs.unbounded_water_mark, CHECKPOINTS_LOST, 10),
    ("unproven-guilt", bugs.unproven_guilt, lying("forge", 2), 30),
    ("two-views-are-two-faces", bugs.two_views_are_two_faces, ANY, 100),
    ("unverified-state", state_bugs.unverified_state, LEFT_BEHIND, 60),
    ("unverified-state-values", state_bugs.unverified_values, LEFT_BEHIND, 100),
    ("uncertified-state", state_bugs.uncertified_state, LEFT_BEHIND, 60),
    ("stale-state-accepted", state_bugs.stale_state_accepted, LEFT_BEHIND, 60),
    ("state-without-sessions", state_bugs.state_without_sessions, CUT_OFF, 60),
    ("absent-records-stay", state_bugs.absent_records_stay, CUT_OFF, 60),
    ("executes-without-state", state_bugs.executes_without_state, CUT_OFF, 60),
    ("log-cut-above-execution", state_bugs.log_cut_above_execution, CUT_OFF, 200),
    ("log-cut-without-snapshot", state_bugs.log_cut_without_snapshot, CUT_OFF, 60),
    ("view-change-cut-with-the-log", state_bugs.votes_cut_with_the_log, RESTARTED_AND_CUT, 600),
    (
        "certificate-cut-with-the-log",
        state_bugs.certificate_cut_with_the_log,
        REPLACED_AND_CUT,
        600,
    ),
    ("evidence-not-durable", bugs.evidence_not_durable, lying("equivocate"), 30),
    ("skipped-fsync", lapses.skipped_fsync, ANY, 20),
    ("forgetful-disk", lapses.forgetful_disk, RESTARTS, 200),
    ("entry-not-durable", lapses.entry_not_durable, ANY, 20),
    ("cc-not-durable", lapses.cc_not_durable, ANY, 20),
    ("view-change-not-durable", lapses.view_change_not_durable, ANY, 20),
    ("view-change-made-anew", lapses.view_change_made_anew, FOUR, 200),
    ("restart-resumes-its-view", lapses.restart_resumes_its_view, RESTARTS, 60),
    ("mute-is-ignored", lapses.mute_is_ignored, MUTED, 30),
    ("new-view-drops-prepared", lapses.new_view_drops_prepared, ANY, 300),
    ("recover-by-length-first", lapses.recover_by_length_first, lying_then_replaced("ghost"), 600),
    ("recover-without-cc", lapses.recover_without_cc, lying_then_replaced("ghost"), 600),
    (
        "recover-without-checkpoints",
        lapses.recover_without_checkpoints,
        replace(lying_then_replaced("ghost"), interval=2),
        600,
    ),
    ("view-change-hides-cc", lapses.view_change_hides_cc, lying_then_replaced("ghost"), 600),
    ("view-change-quorum-2f", lapses.view_change_quorum_2f, HONEST, 60),
    ("view-changes-unverified", lapses.view_changes_unverified, lying("bad-new-view", 1), 60),
    ("new-view-starts-anywhere", lapses.new_view_starts_anywhere, lying("bad-new-view", 1), 60),
    (
        "bodies-unchecked-in-new-view",
        lapses.bodies_unchecked_in_new_view,
        lying_then_replaced("ghost"),
        100,
    ),
    ("votes-below-the-view-asked-for", lapses.votes_below_the_view_asked_for, ANY, 30),
    ("execution-out-of-order", lapses.execution_out_of_order, ANY, 60),
    ("repetitions-executed", lapses.repetitions_executed, lying("repeat"), 30),
    ("sessions-lost-at-restart", lapses.sessions_lost_at_restart, RESTARTS, 30),
    ("stale-reads", bugs.stale_reads, ANY, 30),
    ("lost-writes", bugs.lost_writes, ANY, 30),
    ("one-reply-is-enough", bugs.one_reply_is_enough, lying("wrong-replies", 2), 30),
    ("fast-reads-with-f+1-writes", bugs.fast_reads_with_writes_of_f_plus_1, READING, 60),
    (
        "fast-reads-with-ordered-reads-of-f+1",
        bugs.fast_reads_with_ordered_reads_of_f_plus_1,
        replace(READING, weather=Link(1, 40)),  # members that lag fetch what they lack sooner
        200,
    ),
    ("fast-reads-of-f+1", bugs.fast_reads_of_f_plus_1, READING, 60),
    ("fast-reads-without-results", bugs.fast_reads_without_results, MIXED_READS, 30),
    ("fast-reads-while-replaying", bugs.fast_reads_while_replaying, READING_AGAIN, 200),
    ("primary-never-suspected", lapses.primary_never_suspected, lying("silent"), 5),
    ("waiting-requests-unwatched", lapses.waiting_requests_unwatched, CENSORED, 10),
    ("view-change-never-resent", lapses.view_change_never_resent, FAIR_LOSS, 40),
    ("raft-final-after-one-round", raft_bugs.final_after_one_round, RAFT, 60),
    ("raft-cert-ack-quorum-2f", raft_bugs.cert_ack_quorum_2f, RAFT, 60),
    ("raft-old-term-acks-count", raft_bugs.old_term_acks_count, RAFT, 200),
    ("raft-cert-ack-without-log", raft_bugs.cert_ack_without_acked_log, RAFT, 100),
    ("raft-cert-ack-in-an-older-term", raft_bugs.cert_ack_in_an_older_term, RAFT, 200),
    ("raft-ack-in-an-older-term", raft_bugs.ack_in_an_older_term, RAFT, 200),
    ("raft-same-term-overwrite", raft_bugs.same_term_overwrite, raft_lying("twins"), 100),
    ("raft-vote-without-log-check", raft_bugs.vote_without_log_check, RAFT_LAGGARD, 100),
    ("raft-length-before-term", raft_bugs.length_before_term, RAFT_LONGER_AND_OLDER, 100),
    (
        "raft-vote-without-certificate-check",
        raft_bugs.vote_without_certificate_check,
        raft_lying("two-faced-leader"),
        200,
    ),
    ("raft-log-unverified", raft_bugs.log_unverified, GHOST_STANDS, 200),
    ("raft-votes-do-not-bind-the-log", raft_bugs.votes_do_not_bind_the_log, GHOST_STANDS, 60),
    (
        "raft-leader-without-election",
        raft_bugs.leader_without_election,
        raft_lying("usurper"),
        60,
    ),
    ("raft-vote-quorum-2f", raft_bugs.vote_quorum_2f, replace(RAFT, n=4), 60),
    (
        "raft-two-votes-in-a-term",
        raft_bugs.two_votes_in_a_term,
        raft_lying("ghost-candidate"),
        100,
    ),
    ("raft-vote-not-durable", raft_bugs.vote_not_durable, RAFT, 20),
    ("raft-entry-not-durable", lapses.entry_not_durable, RAFT, 20),
    ("raft-cc-not-durable", lapses.cc_not_durable, RAFT, 20),
    ("raft-leader-resumes-its-term", raft_bugs.leader_resumes_its_term, RAFT_RESTARTS, 60),
    ("raft-leader-never-missed", raft_bugs.leader_never_missed, TRUSTED_LEADER_CRASHES, 5),
    ("raft-appends-never-repeated", raft_bugs.appends_never_repeated, RAFT, 40),
)

PLANTED: Final = {
    name: Planted(name, (plant.__doc__ or "").strip(), plant, setting, seeds)
    for name, plant, setting, seeds in (*_LIST, *endings.LIST, *row_bugs.LIST)
}
"""By name."""
