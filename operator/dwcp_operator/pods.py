"""The parts of the resource that say what members' Pods are made from, and how that changes."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from dwcp_operator import rules
from dwcp_operator.features import Features
from dwcp_operator.fields import EMPTY, Label, Model, Quantity, Unique, refuse

SITES_MAX: Final = 31
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _step_deadline(value: str) -> str:
    refuse(rules.step_deadline_problem(value))
    return value


def _settle_time(value: str) -> str:
    refuse(rules.settle_time_problem(value))
    return value


def _time_of_day(value: str) -> str:
    refuse(rules.time_problem(value))
    return value


class Resources(Model):
    """Compute resources of each member, as in a container."""

    requests: dict[str, Quantity] | None = None
    """What a member is guaranteed, such as cpu: 500m and memory: 512Mi."""
    limits: dict[str, Quantity] | None = None
    """What a member may use at most."""


class Toleration(Model):
    """A taint of nodes that members put up with, as in a Pod."""

    key: Annotated[str, Field(max_length=316)] | None = None
    """The taint's key; every taint when absent, with operator Exists."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the taint's value matters."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """The taint's value, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Which effect; every effect when absent."""


NodeSelector = dict[str, Annotated[str, Field(max_length=63)]]


class Site(Model):
    """A place of which members are a part: a data centre, a zone, a group of nodes."""

    name: Label
    """Its name, in the members' status and in the condition ZonesSpread."""
    node_selector: NodeSelector
    """Labels of the nodes there."""


class Placement(Model):
    """Where members run."""

    node_selector: NodeSelector | None = None
    """Labels of the nodes on which members may run."""
    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False, max_length=32)] = ()
    """Taints of nodes that members put up with."""
    priority_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """PriorityClass of the members."""
    sites: Annotated[tuple[Site, ...], Field(strict=False, max_length=SITES_MAX)] = ()
    """Sites to which members are dealt in turn by their numbers: with four sites a cluster of four
    outlives the loss of any one. Absent, members are spread over the nodes' zones."""

    @model_validator(mode="after")
    def _sites_differ(self) -> Self:
        names = [site.name for site in self.sites]
        refuse("names a site twice: name each once" if len(set(names)) < len(names) else None)
        return self

    def site(self, member: str) -> Site | None:
        """The site of a member, by the number that its name ends with; None without sites."""
        return self.sites[int(member.rsplit("-", 1)[1]) % len(self.sites)] if self.sites else None


class Window(Model):
    """When members may be restarted for a change; in UTC, since members' clocks are."""

    days: Annotated[
        tuple[Literal["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], ...],
        Field(strict=False, min_length=1, max_length=7),
        Unique,
    ] = DAYS
    """Days on which it opens."""
    start: Annotated[
        str,
        Field(json_schema_extra={"pattern": rules.TIME_PATTERN, "maxLength": 5}),
        AfterValidator(_time_of_day),
    ]
    """When it opens, in UTC, such as 02:00."""
    duration_minutes: Annotated[int, Field(ge=1, le=1440)] = 120
    """How long it stays open. A member that is down is always mended."""


class Upgrade(Model):
    """How a change of image, resources or placement is rolled out."""

    rollback: bool = False
    """Go back to what all members last ran together when a member does not come back. Without it
    the change stops there and waits for help."""
    step_deadline: Annotated[
        str,
        Field(json_schema_extra={"pattern": rules.DURATION_PATTERN, "maxLength": 8}),
        AfterValidator(_step_deadline),
    ] = "300s"
    """How long a restarted member may take to vote again: 10s to 3600s."""
    settle_time: Annotated[
        str,
        Field(json_schema_extra={"pattern": rules.DURATION_PATTERN, "maxLength": 8}),
        AfterValidator(_settle_time),
    ] = "10s"
    """How long a restarted member must have been ready before the next one is restarted, up to
    600s: at least as long as clients remember an address. Cluster DNS often lets them for 5 s or
    30 s, and dwcp's own client remembers it for 10 s."""
    window: Window | None = None
    """When members that vote may be restarted; at any time when absent."""

    @property
    def settle_time_ms(self) -> int:
        """The pause after a step in milliseconds."""
        duration_ms = rules.parse_duration_ms(self.settle_time)
        assert duration_ms is not None, f"validated duration: {self.settle_time}"
        return duration_ms

    @property
    def step_deadline_ms(self) -> int:
        """The deadline of a step in milliseconds."""
        duration_ms = rules.parse_duration_ms(self.step_deadline)
        assert duration_ms is not None, f"validated duration: {self.step_deadline}"
        return duration_ms


class Monitoring(Model):
    """Objects of the Prometheus operator and of Grafana; made when their API is there."""

    pod_monitor: bool = False
    """A PodMonitor: the Prometheus operator scrapes all members."""
    rules: bool = False
    """A PrometheusRule with alerts for what the conditions say too."""
    dashboard: bool = False
    """A ConfigMap with a dashboard, labelled for Grafana's sidecar."""


class PodTemplate(Model):
    """What members' Pods are made from: exactly what the user wrote of it."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """Image of the members; the operator's own when absent."""
    resources: Resources = Field(default_factory=Resources, json_schema_extra=EMPTY)
    """Compute resources of each member."""
    placement: Placement = Field(default_factory=Placement, json_schema_extra=EMPTY)
    """Where members run."""
    features: Features = Field(default_factory=Features, json_schema_extra=EMPTY)
    """Parts of mode detection, each on a share of the members."""
    restart: Annotated[str, Field(max_length=253)] | None = None
    """The value of the annotation that asks for a restart."""

    @property
    def revision(self) -> str:
        """16 hex digits that name the template.

        What is not written is left out, so that neither a new operator nor a field that it
        brings makes a Pod look changed.
        """
        written = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        written["image"] = self.image
        written["resources"] = {
            "requests": self.resources.requests,
            "limits": self.resources.limits,
        }
        return hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()[:16]
