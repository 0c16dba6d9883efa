"""When a member's key may change: the sentences of those who ask at a bad time."""

from __future__ import annotations

import msgspec
import pytest

from client.members import Members
from dwcp.wire.keys import NextKey, request_key, show_key, shown_fault
from dwcp_operator.local.rekey import fault

RECORD = Members().genesis
NAMES = [member.name for member in RECORD.members]
Said = dict[str, dict[str, object]]


def everybody(**changed: dict[str, object] | None) -> Said:
    """What the members say of themselves; None: nothing."""
    said: Said = {name: {"ready": True, "evidence": []} for name in NAMES}
    for name, status in changed.items():
        key = name.replace("_", "-")
        if status is None:
            del said[key]
        else:
            said[key] = {**said[key], **status}
    return said


def test_a_member_that_votes_among_enough_others_may_change_its_key() -> None:
    assert fault(RECORD, "test-1", everybody()) is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (everybody(test_1=None), "test-1 does not answer: bring it back first, or replace it"),
        (
            everybody(test_1={"ready": False, "reason": "mute: damaged tail"}),
            "test-1 does not vote (mute: damaged tail)",
        ),
        (everybody(test_2=None), "2 of the other 3 members vote, and 3 are needed"),
        (everybody(test_3={"ready": False}), "2 of the other 3 members vote, and 3 are needed"),
        (
            everybody(test_0={"evidence": [{"member": "test-1", "kind": "equivocation"}]}),
            "test-1 is proven to have lied",
        ),
    ],
)
def test_a_change_at_a_bad_time_is_refused(said: Said, sentence: str) -> None:
    assert sentence in str(fault(RECORD, "test-1", said))


def test_who_is_no_member_and_who_can_end_no_epoch_has_no_key_to_change() -> None:
    assert "test-9 is no member of epoch 0: its members are test-0" in str(
        fault(RECORD, "test-9", everybody())
    )
    crash = msgspec.structs.replace(RECORD, trust="Crash")
    assert "under Crash trust" in str(fault(crash, "test-1", everybody()))


WORLD = Members()
REQUEST = request_key(RECORD, WORLD.scope, "test-1", WORLD.admin)
GENUINE = show_key(REQUEST, WORLD.scope, WORLD.signers[1], WORLD.client)


def resigned(**changes: object) -> NextKey:
    """Something else, signed with both keys all the same."""
    changed = msgspec.structs.replace(GENUINE, **changes)
    signed = changed.signing_bytes(WORLD.scope)
    return msgspec.structs.replace(
        changed, sig=WORLD.signers[1].sign(signed), proof=WORLD.client.sign(signed)
    )


def problem(shown: NextKey) -> str | None:
    return shown_fault(RECORD, WORLD.scope, REQUEST, shown, WORLD.verifier)


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (resigned(epoch=1), "another request"),
        (resigned(member="test-2"), "another request"),
        (resigned(identity=WORLD.signers[2].public_key), "a member's present one"),
        (
            show_key(REQUEST, WORLD.scope, WORLD.signers[2], WORLD.client),
            "the present key's signature",
        ),
        (msgspec.structs.replace(GENUINE, proof=GENUINE.sig), "the next key's own signature"),
    ],
)
def test_a_key_that_a_member_does_not_vouch_for_is_not_ordered(
    shown: NextKey, sentence: str
) -> None:
    """Somebody between could otherwise have the admin sign a key of his own."""
    assert problem(GENUINE) is None
    assert sentence in str(problem(shown))
