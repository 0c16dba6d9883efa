"""Generated resources: each is refused with a sentence, or planned to a running cluster.

Repeat a failure with the line that hypothesis prints. kube/test_refusals.py asks the real API
server about such resources too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings

from dwcp_operator import rules
from dwcp_operator.build import budget, gateway, monitoring, network, storage
from dwcp_operator.build.names import Subject
from dwcp_operator.build.pod import PodSettings, pod
from dwcp_operator.manifest import ManifestError, load_manifest
from dwcp_operator.plan import (
    AnnounceMembers,
    CompleteGenesis,
    CreateGenesis,
    CreateVolume,
    DeliverGenesis,
    Desired,
    DropBackup,
    EnsureKeys,
    GenesisHeld,
    GenesisSeen,
    GrowVolume,
    InviteMember,
    MemberObserved,
    Observed,
    OrderMembers,
    RemoveMember,
    Report,
    RollMember,
    ServeBackup,
    Source,
    StartMember,
    Step,
    StopMember,
    Volume,
    WaitFor,
    plan,
)
from dwcp_operator.resources import DWCPCluster
from dwcp_operator.upgrade import desired, rollout
from kube.generated import names, specs
from kube.subjects import UID

COUNT = 500
GENESIS = b"g" * 32


class World:
    """What the planner's steps do, in the fewest words; it asserts what must never be."""

    def __init__(self, wanted: Desired) -> None:
        self.wanted = wanted
        self.keys = self.published = False
        self.source = Source.ABSENT
        self.genesis: set[str] | None = None
        self.members = {name: MemberObserved(name=name) for name in wanted.members}

    def observe(self) -> Observed:
        held = None
        if self.genesis is not None:
            held = GenesisHeld(
                GENESIS, dict.fromkeys(self.members, b"k"), frozenset(self.genesis), self.published
            )
        members = tuple(self.members.values())
        return Observed(keys=self.keys, genesis=held, members=members, source=self.source)

    def change(self, name: str, **changes: Any) -> None:
        self.members[name] = replace(self.members[name], **changes)

    def act(self, step: Step) -> None:
        match step:
            case EnsureKeys():
                self.keys = True
            case CreateVolume(name):
                assert self.genesis is None
                self.change(name, volume=Volume.PRESENT, volume_bytes=self.wanted.volume_bytes)
            case StartMember(name):
                assert not self.members[name].running
                self.change(name, running=True, identity=b"k", revision=self.wanted.revision)
            case ServeBackup():
                assert self.source is Source.ABSENT
                self.source = Source.SERVING
            case DropBackup():
                assert all(member.ready for member in self.members.values())
                self.source = Source.ABSENT
            case CreateGenesis():
                assert self.genesis is None
                assert self.wanted.restore == (self.source is Source.SERVING)
                self.genesis = set()
            case DeliverGenesis(name):
                assert self.genesis is not None
                self.genesis.add(name)
                complete = self.genesis == set(self.members)
                self.change(name, genesis=GenesisSeen(GENESIS, complete))
                if complete:
                    self.change(name, report=report(self.wanted.members[0]), serving=True)
            case CompleteGenesis():
                self.published = True
            case StopMember(name):
                self.change(name, running=False, report=None, serving=False, identity=None)
            case WaitFor():
                return
            case _:
                raise AssertionError(f"a new cluster needs no {step}")


def report(primary: str) -> Report:
    return Report(
        epoch=0, view=0, active=True, primary=primary, mode="Internet", role="backup",
        final_index=1, applied_index=1, stable_checkpoint=0, stable_state="", ready=True,
        mute=None, evidence=(), seen_at="",
    )  # fmt: skip


def settled(wanted: Desired) -> World:
    world = World(wanted)
    for _ in range(12):
        steps = plan(wanted, world.observe())
        if not steps or (wanted.adopt and all(isinstance(s, WaitFor) for s in steps)):
            return world
        if wanted.paused:
            return world
        for step in steps:
            world.act(step)
    raise AssertionError(f"a tight loop: {plan(wanted, world.observe())}")


def check_objects(subject: Subject) -> None:
    made = [
        network.members_service(subject), network.client_service(subject),
        network.network_policy(subject), network.account(subject),
        budget.disruption_budget(subject, 0), monitoring.pod_monitor(subject),
        monitoring.prometheus_rule(subject), monitoring.dashboard(subject),
        *(storage.claim(subject, m, "ReadWriteOnce") for m in subject.members),
        *(
            pod(subject, m, PodSettings("dwcp:1"), subject.cluster.template, with_token=True)
            for m in subject.members
        ),
    ]  # fmt: skip
    asked = subject.cluster.spec.gateway
    if asked is not None:
        made += [gateway.service(subject), gateway.disruption_budget(subject)]
        made += [gateway.deployment(subject, asked, PodSettings("dwcp:1"))]
    for body in made:
        json.dumps(body, allow_nan=False)
        metadata = body["metadata"]
        assert re.fullmatch(rules.LABEL_PATTERN, metadata["name"]), metadata["name"]
        assert len(metadata["name"]) <= 63
        assert all(len(value) <= 63 for value in metadata["labels"].values())


def check_refusal(error: ManifestError) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.sentence.startswith(("spec", "metadata")), problem.sentence
        assert problem.line is not None
        assert "does not do:" not in problem.sentence, problem.sentence


def check_accepted(cluster: DWCPCluster, counted: Callable[[str], None]) -> None:
    check_objects(Subject(cluster, UID))
    wanted = desired(cluster, rollout(cluster, None), 0)
    assert wanted.rolling.opens_in_ms >= 0
    end = settled(wanted)
    if wanted.adopt:
        counted("waits for the volumes to adopt")
    elif wanted.hibernate:
        assert not any(m.running for m in end.members.values())
        counted("made, and put to sleep")
    else:
        assert all(m.ready for m in end.members.values())
        assert plan(wanted, end.observe()) == ()
        counted("made, and runs")


def test_every_resource_is_refused_with_a_sentence_or_made(tell: Callable[[str], None]) -> None:
    counts: dict[str, int] = {}

    def counted(what: str) -> None:
        counts[what] = counts.get(what, 0) + 1

    @settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
    @given(spec=specs, name=names)
    def one(spec: dict[str, Any], name: str) -> None:
        raw = {
            "apiVersion": "dwcp.dev/v1alpha1",
            "kind": "DWCPCluster",
            "metadata": {"name": name},
            "spec": spec,
        }
        try:
            cluster = load_manifest(yaml.safe_dump(raw, allow_unicode=True))
        except ManifestError as error:
            check_refusal(error)
            counted("refused")
        else:
            check_accepted(cluster, counted)

    one()
    assert counts["refused"] >= COUNT // 20, "hardly anything bad was generated"
    assert counts["made, and runs"] >= COUNT // 20, "hardly anything good was generated"
    tell(f"generated resources: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}")


def test_the_world_above_knows_every_step_that_a_running_cluster_can_meet() -> None:
    """So that a new kind of step is not left out here by mistake."""
    known = {
        EnsureKeys, CreateVolume, StartMember, CreateGenesis, DeliverGenesis, CompleteGenesis,
        StopMember, WaitFor, ServeBackup, DropBackup,
    }  # fmt: skip
    changes = {
        RollMember, GrowVolume, InviteMember, AnnounceMembers, OrderMembers, RemoveMember,
    }  # fmt: skip
    others = {kind for kind in Step.__args__ if not kind.__name__.startswith("Report")}
    assert {kind.__name__ for kind in others - known - changes} == {"AdoptGenesis"}
