"""Carries out changes of members on Kubernetes: invitations, announcements and orders.

docs/members.md has the way; every step may be done again. Whoever joins is tied to its Pod by the
one-time token, whoever votes on an order checks the admin's signature on it.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from dwcp import members as changes
from dwcp.epochs import RecordChain
from dwcp.identity import Ed25519Signer
from dwcp.wire.records import Member
from dwcp_operator.act.api import SECRET
from dwcp_operator.act.keeper import GenesisKeeper, KeeperError, admin_of
from dwcp_operator.act.observe import Observer
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.build.names import PEER_PORT
from dwcp_operator.local.probe import DeliveryRefusedError, ProbeError


class MemberChanger:
    """Brings one cluster's replicas what a change of members needs."""

    def __init__(self, keeper: GenesisKeeper, observer: Observer) -> None:
        self._keeper = keeper
        self._observer = observer

    async def invite(self, snapshot: Snapshot, member: str) -> None:
        """Show a new replica the cluster. Raises ProbeError, DeliveryRefusedError, KeeperError."""
        signed, token = self._keeper.signed, self._keeper.token(snapshot, member)
        assert signed is not None, "there is a cluster to join"
        probe = self._observer.probe(snapshot, member)
        if probe is None or token is None:
            raise ProbeError(f"{member} has no address or no token yet")
        invitation = changes.invitation(signed, self._chain, _admin(snapshot))
        body = msgspec.msgpack.encode(invitation)
        mac = hmac.digest(token, b"join" + hashlib.sha256(body).digest(), hashlib.sha256)
        said = await probe.post("PUT", "/dwcp/v1/join", body, mac)
        if said is not None:
            raise DeliveryRefusedError(f"{member} does not join: {said}")

    async def tell(self, snapshot: Snapshot, path: str, names: tuple[str, ...]) -> None:
        """Give every member the order for these members, to announce them or to be carried out.

        Raises ProbeError when nobody takes it.
        """
        order = changes.order(self._chain, self._members(snapshot, names), _admin(snapshot))
        body, said = msgspec.msgpack.encode(order), []
        for member in snapshot.subject.members:
            probe = self._observer.probe(snapshot, member)
            try:
                refused = "no address" if probe is None else await probe.post("POST", path, body)
            except ProbeError as error:
                refused = str(error)
            if refused is not None:
                said.append(f"{member}: {refused}")
        if len(said) == len(snapshot.subject.members):
            raise ProbeError(f"no member takes the order: {'; '.join(said)}")

    def _members(self, snapshot: Snapshot, names: tuple[str, ...]) -> list[Member]:
        present = {member.name: member for member in self._chain.current.members}
        return [present.get(name) or self._new(snapshot, name) for name in names]

    def _new(self, snapshot: Snapshot, name: str) -> Member:
        shown, host = self._observer.identities.get(name), snapshot.subject.host(name)
        if shown is None:
            raise ProbeError(f"{name} has not shown who it is")
        return Member(
            name=name,
            identity=shown.identity,
            certificate=shown.certificate,
            peer=f"{host}:{PEER_PORT}",
            client=snapshot.subject.client_url(name),
        )

    @property
    def _chain(self) -> RecordChain:
        assert self._keeper.chain is not None, "there is a genesis"
        return self._keeper.chain


def _admin(snapshot: Snapshot) -> Ed25519Signer:
    found = snapshot.find(SECRET, snapshot.subject.admin_secret)
    if found is None:
        raise KeeperError(
            f"the Secret {snapshot.subject.admin_secret}, the admin's key, is missing: restore it"
        )
    return admin_of(found)
