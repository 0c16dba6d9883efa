"""Who is dialed, and as whom, while members change and a member changes its key."""

from __future__ import annotations

import msgspec

from client.members import Members, signer
from dwcp_replica.net.hello import LocalMember
from dwcp_replica.net.roster import Roster

replace = msgspec.structs.replace
WORLD = Members()
GENESIS = WORLD.genesis
LOCAL = LocalMember(GENESIS.hash(), 0, WORLD.signers[0], GENESIS.members[0].certificate)
REKEYED = replace(GENESIS.members[1], identity=signer("another key").public_key)
NEXT = replace(GENESIS, epoch=1, members=(GENESIS.members[0], REKEYED, *GENESIS.members[2:]))


def test_a_member_whose_key_changes_is_dialed_once() -> None:
    """Two connections to one replica would take each other's place, again and again."""
    roster = Roster(LOCAL, GENESIS)
    roster.know([*GENESIS.members, REKEYED])
    assert roster.dialed(()) == [1, 2, 3], "it has its old key until the epoch begins"
    assert roster.is_twin(4)
    assert roster.number_of(REKEYED.identity) == 4, "it may connect with either"
    roster.enter(LOCAL, NEXT)
    assert roster.dialed(()) == [2, 3, 4]
    assert (roster.is_twin(1), roster.is_twin(4), roster.is_member(4)) == (True, False, True)
    roster.settle()
    assert roster.dialed((1,)) == [2, 3, 4]


def test_a_stranger_with_a_members_name_is_no_twin() -> None:
    roster = Roster(LOCAL, GENESIS)
    roster.know([*GENESIS.members, replace(REKEYED, certificate=bytes(32))])
    assert not roster.is_twin(4)
    assert roster.dialed(()) == [1, 2, 3, 4]
