from __future__ import annotations

import pytest
from pydantic import ValidationError

from dwcp_operator.build.names import CLUSTER_LABEL
from dwcp_operator.upgrade import desired, rollout
from kube.subjects import UID, adopting, subject


def test_the_cluster_id_is_the_uid_so_that_it_is_made_once() -> None:
    assert subject().cluster_id == UID.replace("-", "")
    assert len(bytes.fromhex(subject().cluster_id)) == 16
    assert adopting().cluster_id == "f" * 32


def test_a_new_cluster_of_the_same_name_shares_no_volume_key_or_token() -> None:
    old, new = subject(), subject(uid="aaaaaaaa-89ab-4cde-8f01-23456789abcd")
    for name in ("admin_secret", "client_keys_secret", "genesis_map"):
        assert getattr(old, name) != getattr(new, name)
    for member in old.members:
        assert old.claim(member) != new.claim(member)
        assert old.token_secret(member) != new.token_secret(member)


def test_adopted_members_use_the_claims_that_the_user_names() -> None:
    assert [adopting().claim(m) for m in adopting().members] == [f"old-{i}" for i in range(4)]


def test_names_fit_for_the_longest_cluster_name() -> None:
    made = subject(replicas=31)
    long = type(made)(
        made.cluster.model_copy(
            update={"metadata": made.cluster.metadata.model_copy(update={"name": "x" * 52})}
        ),
        UID,
    )
    labels = [*long.members, long.members_service, long.client_service]
    assert all(len(name) <= 63 for name in labels), "DNS labels"
    assert all(len(value) <= 63 for value in long.labels(long.members[-1]).values())


def test_selector_matches_members_of_this_cluster_only() -> None:
    made = subject()
    assert made.selector.items() <= made.labels("demo-0").items()
    assert made.selector == {CLUSTER_LABEL: "demo"}


def test_kept_objects_have_no_owner_and_others_have_a_controller() -> None:
    made = subject()
    assert "ownerReferences" not in made.reclaimed_metadata("x")
    deleted = subject(storage={"reclaim": "Delete"})
    for metadata in (made.metadata("x"), deleted.reclaimed_metadata("x")):
        (owner,) = metadata["ownerReferences"]
        assert owner["controller"] is True
        assert owner["uid"] == UID


def test_the_first_clients_secret_has_the_short_name() -> None:
    made = subject(clients=["app", "batch"])
    assert made.client_secret("app") == "demo-client"
    assert made.client_secret("batch") == "demo-client-batch"


def test_adopted_members_come_back_first_whatever_number_is_wanted() -> None:
    volumes = [{"member": f"demo-{i}", "claim": f"old-{i}"} for i in range(4)]
    adopt = {"clusterId": "f" * 32, "volumes": volumes}
    found = subject(replicas=7, bootstrap={"adopt": adopt})
    assert found.members == ("demo-0", "demo-1", "demo-2", "demo-3")
    assert desired(found.cluster, rollout(found.cluster, None), 0).count == 7
    assert [found.claim(f"demo-{i}") for i in (3, 4)] == ["old-3", "demo-4-ffffffff"]
    with pytest.raises(ValidationError, match="that is not 3f"):
        subject(bootstrap={"adopt": {**adopt, "volumes": volumes[:4] + volumes[:1]}})
    others = [*volumes[:3], {"member": "demo-9", "claim": "old-9"}]
    with pytest.raises(ValidationError, match="names members that are not this cluster"):
        subject(bootstrap={"adopt": {**adopt, "volumes": others}})
