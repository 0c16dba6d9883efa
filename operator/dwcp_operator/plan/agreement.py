"""What f+1 verified reports agree on: at least one honest member says it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dwcp_operator.plan.observed import Observed, Report, SwitchSeen
from dwcp_operator.plan.quorum import faulty_max

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Agreement:
    """What at least one honest member says; None where f+1 members do not match.

    `final_index` is a log index that some honest member knows to be final. `faulty` maps a
    member to a sentence: f+1 members hold evidence against it, or its own signed report
    differs from what f+1 others say of the same checkpoint. `claimed` are sentences of
    evidence that fewer than f+1 members show: a liar may have made them up. `suspected` maps a
    member to what f+1 others suspect it of. `switch` is the latest change of the decided mode.
    """

    epoch: int | None
    view: int | None
    primary: str | None
    mode: str | None
    final_index: int
    faulty: Mapping[str, str]
    claimed: tuple[str, ...]
    suspected: Mapping[str, str]
    switch: SwitchSeen | None


def verified_reports(observed: Observed) -> dict[str, Report]:
    """Reports of running members by name."""
    return {m.name: m.report for m in observed.members if m.running and m.report is not None}


def agreement(reports: Mapping[str, Report], n: int) -> Agreement:
    """What f+1 of these reports say alike, of a cluster of n."""
    enough = faulty_max(n) + 1
    active = [r for r in reports.values() if r.active]
    epochs = _said_by((r.epoch for r in reports.values()), enough)
    views = _said_by(((r.epoch, r.view, r.primary) for r in active), enough)
    modes = _said_by((r.mode for r in active), enough)
    finals = sorted((r.final_index for r in reports.values()), reverse=True)
    newest = max(views, default=None)
    proven, claimed = _evidence(reports, enough)
    return Agreement(
        epoch=max(epochs, default=None),
        view=newest[1] if newest else None,
        primary=newest[2] if newest else None,
        mode=max(modes, default=None),
        final_index=finals[enough - 1] if len(finals) >= enough else 0,
        faulty={**_state_mismatches(reports, enough), **proven},
        claimed=claimed,
        suspected=dict(
            sorted(
                _said_by(
                    (
                        (member, why)
                        for name, report in reports.items()
                        for member, why in report.suspects.items()
                        if member != name
                    ),
                    enough,
                )
            )
        ),
        switch=max(
            _said_by((r.switch for r in reports.values() if r.switch is not None), enough),
            key=lambda switch: switch.index,
            default=None,
        ),
    )


def _said_by(values: Iterable[T], enough: int) -> list[T]:
    return [value for value, count in Counter(values).items() if count >= enough]


def _evidence(reports: Mapping[str, Report], enough: int) -> tuple[dict[str, str], tuple[str, ...]]:
    """Sentences of evidence: by member where f+1 others match, the rest as claims."""
    witnesses: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    place: dict[tuple[str, str], str] = {}
    for witness, report in sorted(reports.items()):
        for seen in report.evidence:
            key = (seen.member, seen.kind)
            if witness not in (*witnesses[key], seen.member):
                witnesses[key].append(witness)
            place.setdefault(key, f"view {seen.view}, index {seen.index}")
    proven, claimed = {}, []
    for key, names in sorted(witnesses.items()):
        member, kind = key
        sentence = f"{member}: {kind} ({place[key]}), shown by {', '.join(names)}"
        if len(names) >= enough:
            proven[member] = sentence
        elif names:
            claimed.append(sentence)
    return proven, tuple(claimed)


def _state_mismatches(reports: Mapping[str, Report], enough: int) -> dict[str, str]:
    """Members whose signed state digest differs from f+1 others' at the same checkpoint."""
    states = {
        name: (r.stable_checkpoint, r.stable_state)
        for name, r in reports.items()
        if r.stable_checkpoint > 0
    }
    agreed = dict(_said_by(states.values(), enough))
    return {
        name: f"{name}: state-mismatch (checkpoint {index}): its digest is not that of f+1 members"
        for name, (index, state) in sorted(states.items())
        if agreed.get(index, state) != state
    }


def good_members(
    names: Iterable[str], reports: Mapping[str, Report], agreed: Agreement
) -> set[str]:
    """Members that vote in the agreed view and against which nothing is known."""
    return {
        name
        for name in names
        if name in reports
        and reports[name].ready
        and (reports[name].epoch, reports[name].view) == (agreed.epoch, agreed.view)
        and name not in agreed.faulty
    }
