"""The planner: everything that is wanted and seen in, the next safe steps out.

It is level-triggered: each call looks at everything, remembers nothing, and its steps may be
cut off after any of them. A cluster begins like this: keys, volumes, processes; each process
makes its key on its volume and waits; the genesis record is made once, from all identities,
and kept before anybody is given it; each member adds its signature; when all have signed, each
is given the complete genesis and starts.

Then members are brought to what the resource asks (roll.py), volumes grow (growth.py), and others
become members (change.py): gated by what the members sign, and one change at a time.

What never happens: a second genesis; a member whose volume is gone made anew under its name
(it would have forgotten its votes, which is a Byzantine fault); two processes of one name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dwcp_operator.plan.backoff import restart
from dwcp_operator.plan.change import change, is_under_way
from dwcp_operator.plan.growth import grow
from dwcp_operator.plan.observed import (
    Desired,
    GenesisHeld,
    MemberObserved,
    Observed,
    Source,
    Volume,
)
from dwcp_operator.plan.roll import is_begun, roll
from dwcp_operator.plan.steps import (
    AdoptGenesis,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    DropBackup,
    EnsureKeys,
    ReportForeignGenesis,
    ReportForeignVolume,
    ReportLostVolume,
    ReportStopped,
    ServeBackup,
    StartMember,
    Step,
    StopMember,
    WaitFor,
    WaitReason,
)

SERVE_AGAIN_MS: Final = 20_000


def plan(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    """The steps that are safe now, in order; empty when everything is as wanted."""
    if desired.paused:
        return (WaitFor(WaitReason.PAUSED, ()),)
    if not observed.keys and observed.genesis is None:
        return (EnsureKeys(),)
    members = tuple(observed.member(name) for name in desired.members)
    steps: list[Step] = []
    if desired.hibernate and is_begun(observed.genesis):
        steps.extend(StopMember(member.name) for member in members if member.running)
        steps.extend(_lost(member) for member in members if member.volume is Volume.ABSENT)
        return (*steps, *grow(desired, members))
    for member in members:
        steps.extend(_run(desired, observed.genesis, member))
    steps.extend(_serve(desired, observed, members))
    if observed.genesis is None:
        steps.extend(_begin(desired, observed.source, members))
    else:
        steps.extend(_hand_out(observed.genesis, members))
    changing = tuple(change(desired, observed))
    # one change at a time: members are not restarted while others take their places
    rolling = () if any(map(is_under_way, changing)) else tuple(roll(desired, observed))
    return (*steps, *grow(desired, members), *changing, *rolling)


def _lost(member: MemberObserved) -> Step:
    return ReportLostVolume(member.name)


def _run(desired: Desired, genesis: GenesisHeld | None, member: MemberObserved) -> Iterator[Step]:
    """A volume for the member, and a process on it."""
    if member.volume is Volume.ABSENT:
        if genesis is not None:
            yield _lost(member)  # change.py replaces it, under another name
        elif desired.adopt:
            yield WaitFor(WaitReason.ADOPTED_VOLUME, (member.name,))
        else:
            yield CreateVolume(member.name)
            yield StartMember(member.name)
        return
    if member.running:
        return
    delay_ms = restart(member.attempts, member.last_exit).delay_ms
    if delay_ms is None:
        assert member.last_exit is not None, "only an exit code forbids a restart"
        yield ReportStopped(member.name, member.last_exit)
    elif member.stopped_for_ms < delay_ms:
        yield WaitFor(WaitReason.BACK_OFF, (member.name,), delay_ms - member.stopped_for_ms)
    else:
        yield StartMember(member.name)


def _serve(
    desired: Desired, observed: Observed, members: tuple[MemberObserved, ...]
) -> Iterator[Step]:
    """The backup is served until every member votes, and has therefore taken its state."""
    if not desired.restore:
        return
    begun = is_begun(observed.genesis)
    lacking = not begun or any(_lacks_state(member) for member in members)
    if observed.source is Source.ABSENT and lacking:
        yield ServeBackup()
    elif observed.source is not Source.ABSENT and begun and all(m.ready for m in members):
        yield DropBackup()


def _lacks_state(member: MemberObserved) -> bool:
    """True for a member that has run for a while and has nothing to say: it may wait for state."""
    return member.running and member.report is None and member.unready_for_ms >= SERVE_AGAIN_MS


def _begin(desired: Desired, source: Source, members: tuple[MemberObserved, ...]) -> Iterator[Step]:
    """No genesis is kept: take over the one that members hold, or make it when none does."""
    holders = [m for m in members if m.genesis is not None]
    hashes = {m.genesis.hash for m in holders if m.genesis is not None}
    if len(hashes) > 1:
        yield ReportForeignGenesis(tuple(m.name for m in holders))
    elif hashes:
        yield AdoptGenesis(holders[0].name, hashes.pop())
    elif unknown := tuple(m.name for m in members if not m.running or m.identity is None):
        # Any of them may hold a genesis that was made before: none is made until all are seen.
        yield WaitFor(WaitReason.IDENTITY, unknown)
    elif desired.adopt:
        yield WaitFor(WaitReason.ADOPTED_VOLUME, tuple(m.name for m in members))
    elif desired.restore and source is not Source.SERVING:
        yield WaitFor(WaitReason.BACKUP, ())
    else:
        yield CreateGenesis()


def _hand_out(genesis: GenesisHeld, members: tuple[MemberObserved, ...]) -> Iterator[Step]:
    """The genesis is kept: collect signatures, publish it, give it to all, wait for votes."""
    if genesis.complete and not genesis.published:
        yield CompleteGenesis()
    silent, waiting = [], []
    for member in members:
        if not member.running or member.ready:
            continue
        if _is_foreign(genesis, member):
            yield ReportForeignVolume(member.name)
        elif member.identity is None:
            silent.append(member.name)
        elif _wants_genesis(genesis, member):
            yield DeliverGenesis(member.name)
        else:
            waiting.append(member.name)
    if silent:
        yield WaitFor(WaitReason.START, tuple(silent))
    if waiting:
        yield WaitFor(WaitReason.READY, tuple(waiting))


def _is_foreign(genesis: GenesisHeld, member: MemberObserved) -> bool:
    key = genesis.identities.get(member.name)
    other_key = member.identity is not None and member.identity != key
    return other_key or (member.genesis is not None and member.genesis.hash != genesis.hash)


def _wants_genesis(genesis: GenesisHeld, member: MemberObserved) -> bool:
    if member.genesis is None or member.name not in genesis.signed:
        return True
    return genesis.complete and not member.genesis.complete
