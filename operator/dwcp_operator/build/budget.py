"""How many members an eviction must leave."""

from __future__ import annotations

from dwcp_operator.build.names import Object, Subject
from dwcp_operator.plan.quorum import quorum


def disruption_budget(subject: Subject, ready_but_faulty: int) -> Object:
    """The PodDisruptionBudget: a quorum of members that are Ready and not known to be faulty.

    `ready_but_faulty` counts members that Kubernetes takes for good and the cluster does not.
    The minimum is a number: maxUnavailable would be computed from the resource's scale.
    """
    n = len(subject.members)
    assert 0 <= ready_but_faulty <= n, f"{ready_but_faulty} of {n} members"
    least = min(n, quorum(n) + ready_but_faulty)
    if subject.joining:
        least = n  # while others take their places nobody is to be evicted
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": subject.metadata(subject.name),
        "spec": {
            "minAvailable": least,
            "selector": {"matchLabels": subject.selector},
            # A member that is not Ready helps no quorum: a drain need not wait for it.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
