"""The genesis of a cluster on Kubernetes: made once, kept before anybody is given it, published.

The record lies in an immutable ConfigMap, which is created before a member hears of it: of two
creations the API server refuses one. Signatures are collected in memory, since members give
them again when asked. Published means that every client's Secret holds the complete genesis.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from dwcp.epochs import RecordChain
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.records import (
    Identity,
    Origin,
    SignedGenesis,
    check_genesis,
    genesis_signing_bytes,
    is_complete,
)
from dwcp_operator.act.api import CONFIG_MAP, SECRET
from dwcp_operator.act.snapshot import Snapshot
from dwcp_operator.act.writer import Writer
from dwcp_operator.build import genesis
from dwcp_operator.build import secrets as build
from dwcp_operator.build.names import Object, Subject
from dwcp_operator.plan.observed import GenesisHeld, Membership
from dwcp_operator.resources import ClusterStatus

TOKEN_BYTES: Final = 32

_decoder = msgspec.msgpack.Decoder(SignedGenesis)


class KeeperError(Exception):
    """Keys or genesis are not as they must be; nothing was changed; says what to do."""


class GenesisKeeper:
    """The genesis of one cluster, and the members' signatures collected so far."""

    def __init__(self) -> None:
        self.signed: SignedGenesis | None = None
        self.chain: RecordChain | None = None
        """The epoch records that were verified so far, from the genesis that is kept."""
        self.origin: Origin | None = None
        """What the backup proves that the cluster is to begin from, once it is served."""
        self._published = False

    def refresh(self, snapshot: Snapshot) -> None:
        """Take in what is kept now. Raises KeeperError when it does not belong here."""
        subject = snapshot.subject
        clients = [
            snapshot.find(SECRET, subject.client_secret(name))
            for name in subject.cluster.spec.clients
        ]
        self._published = all(clients)
        kept = snapshot.find(CONFIG_MAP, subject.genesis_map)
        if kept is None:
            self.signed, self.chain, self._published = None, None, False
            return
        found = _checked(subject, build.data_of(kept)[genesis.RECORD], subject.genesis_map)
        if self.signed is None or self.signed.record.hash() != found.record.hash():
            self.signed, self.chain = found, RecordChain(found.record, Ed25519Verifier())
        if self._published and clients[0] is not None and not is_complete(self.signed):
            data = build.data_of(clients[0])[build.GENESIS]
            self.collect(_checked(subject, data, clients[0]["metadata"]["name"]))

    def held(self) -> GenesisHeld | None:
        """What the planner needs to know."""
        if self.signed is None:
            return None
        members = self.signed.record.members
        places = zip(members, self.signed.member_sigs, strict=True)
        return GenesisHeld(
            hash=self.signed.record.hash(),
            identities={m.name: m.identity for m in members},
            signed=frozenset(m.name for m, sig in places if sig),
            published=self._published,
        )

    def membership(self, status: ClusterStatus | None) -> Membership | None:
        """Who the members are: by the records that were verified, or by what the status remembers.

        None before there is a genesis.
        """
        if self.chain is None:
            return None
        record = self.chain.current
        known = status.membership if status is not None else None
        used = {m.name for one in self.chain.records for m in one.members}
        used |= set(known.used) if known is not None else set()
        if known is not None and known.epoch > record.epoch:
            return Membership(known.epoch, known.names, frozenset(used), is_current=False)
        return Membership(record.epoch, tuple(m.name for m in record.members), frozenset(used))

    def subject(self, snapshot: Snapshot) -> Subject:
        """The subject of what was read, with its members by the newest record."""
        known = self.membership(snapshot.status())
        if known is None:
            return replace(snapshot.subject, present=None, joining=())
        joining = tuple(m for m in snapshot.subject.joining if m not in known.used)
        return replace(snapshot.subject, present=known.members, joining=joining)

    @property
    def published(self) -> bool:
        """True when all clients can read the complete genesis."""
        return self._published

    def collect(self, returned: SignedGenesis) -> None:
        """Join the signatures of the same record, already checked, to those collected.

        Raises KeeperError for another record.
        """
        assert self.signed is not None, "signatures come after the record"
        if returned.record.hash() != self.signed.record.hash():
            raise KeeperError("a genesis was shown that is not the one that is kept")
        pairs = zip(self.signed.member_sigs, returned.member_sigs, strict=True)
        joined = tuple(old or new for old, new in pairs)
        self.signed = msgspec.structs.replace(self.signed, member_sigs=joined)

    # --- keys ------------------------------------------------------------------------------

    def keys_exist(self, snapshot: Snapshot) -> bool:
        """True when admin key and clients' keys, and before the genesis all tokens, are there."""
        subject = snapshot.subject
        names = [subject.admin_secret, subject.client_keys_secret]
        if self.signed is None:
            names += [subject.token_secret(m) for m in subject.members]
        return all(snapshot.find(SECRET, name) is not None for name in names)

    async def ensure_keys(self, snapshot: Snapshot, writer: Writer) -> None:
        """Make the keys and tokens that are missing; what exists stays.

        Raises ApiError, and KeeperError when the keys of adopted volumes are missing.
        """
        subject = snapshot.subject
        keys = (subject.admin_secret, subject.client_keys_secret)
        missing = [name for name in keys if snapshot.find(SECRET, name) is None]
        if missing and subject.cluster.spec.adopt is not None:
            raise KeeperError(
                f"the Secret {missing[0]} is missing, which was kept with the volumes of cluster "
                f"id {subject.cluster_id}: restore it, nobody else can read or write them"
            )
        if subject.admin_secret in missing:
            await writer.create(build.admin(subject, Ed25519Signer.generate().seed))
        if subject.client_keys_secret in missing:
            seeds = {c: Ed25519Signer.generate().seed for c in subject.cluster.spec.clients}
            await writer.create(build.client_keys(subject, seeds))
        for member in subject.members:
            if snapshot.find(SECRET, subject.token_secret(member)) is None:
                await self.make_token(subject, member, writer)

    async def make_token(self, subject: Subject, member: str, writer: Writer) -> None:
        """Make a member's one-time token. Raises ApiError."""
        await writer.create(build.token(subject, member, secrets.token_hex(TOKEN_BYTES)))

    def token(self, snapshot: Snapshot, member: str) -> bytes | None:
        """A member's token, while it is kept."""
        found = snapshot.find(SECRET, snapshot.subject.token_secret(member))
        return None if found is None else build.data_of(found)[build.TOKEN]

    # --- genesis ---------------------------------------------------------------------------

    async def create(
        self, snapshot: Snapshot, identities: Mapping[str, Identity], writer: Writer
    ) -> None:
        """Make the record from verified identities and keep it, before any member is told.

        Raises ApiError: a conflict when one was made before.
        """
        subject = snapshot.subject
        admin = _admin(snapshot)
        clients = {name: key.public_key for name, key in client_keys(snapshot).items()}
        record = genesis.record(subject, identities, clients, admin.public_key, self.origin)
        signed = SignedGenesis(
            record=record,
            admin_sig=admin.sign(genesis_signing_bytes(record)),
            member_sigs=(b"",) * len(record.members),
            origin=self.origin,
        )
        problem = check_genesis(signed, Ed25519Verifier())
        assert problem is None, f"made a genesis that does not hold: {problem}"
        await self._keep(subject, signed, writer)

    async def adopt(self, snapshot: Snapshot, found: SignedGenesis, writer: Writer) -> None:
        """Keep a genesis that a member holds, its signatures checked by the caller.

        Raises ApiError, and KeeperError when it is of another cluster or admin.
        """
        problem = genesis.not_ours(snapshot.subject, found.record)
        if problem is None and found.record.admin != _admin(snapshot).public_key:
            problem = f"another admin key than that in {snapshot.subject.admin_secret} signed it"
        if problem is not None:
            raise KeeperError(f"a member holds a genesis that is not this cluster's: {problem}")
        await self._keep(snapshot.subject, found, writer)

    async def _keep(self, subject: Subject, signed: SignedGenesis, writer: Writer) -> None:
        await writer.create(genesis.genesis_map(subject, msgspec.msgpack.encode(signed)))
        self.signed, self.chain = signed, RecordChain(signed.record, Ed25519Verifier())

    async def publish(
        self, snapshot: Snapshot, writer: Writer, extras: Mapping[str, bytes] | None = None
    ) -> None:
        """Give every client its Secret with key and complete genesis. Raises ApiError.

        `extras` are what else it mounts (act/clients.py).
        """
        assert self.signed is not None, "signatures come after the record"
        assert is_complete(self.signed), "every member signs before the genesis is published"
        data = msgspec.msgpack.encode(self.signed)
        for name, key in client_keys(snapshot).items():
            if snapshot.find(SECRET, snapshot.subject.client_secret(name)) is None:
                files = {
                    **(extras or {}),
                    build.CLIENT_KEY: build.key_text(key.seed),
                    build.GENESIS: data,
                }
                secret = build.client(snapshot.subject, name, files)
                await writer.create(secret)
        self._published = True


def _checked(subject: Subject, data: bytes, where: str) -> SignedGenesis:
    try:
        signed = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise KeeperError(f"{where} is damaged ({error}): restore it") from None
    problem = check_genesis(signed, Ed25519Verifier()) or genesis.not_ours(subject, signed.record)
    if problem is not None:
        raise KeeperError(f"{where} does not belong here: {problem}: restore it")
    return signed


def admin_of(found: Object) -> Ed25519Signer:
    """The admin's key in its Secret. Raises KeeperError."""
    return _key(build.data_of(found).get(build.ADMIN_KEY), found["metadata"]["name"])


def _admin(snapshot: Snapshot) -> Ed25519Signer:
    name = snapshot.subject.admin_secret
    found = snapshot.find(SECRET, name)
    if found is None:
        raise KeeperError(f"the Secret {name} with the admin's key is missing: restore it")
    return admin_of(found)


def client_keys(snapshot: Snapshot) -> dict[str, Ed25519Signer]:
    """The clients' keys by name. Raises KeeperError."""
    subject = snapshot.subject
    found = snapshot.find(SECRET, subject.client_keys_secret)
    if found is None:
        raise KeeperError(
            f"the Secret {subject.client_keys_secret} with the clients' keys is missing: restore it"
        )
    data = build.data_of(found)
    return {
        name: _key(data.get(f"{name}.key"), subject.client_keys_secret)
        for name in subject.cluster.spec.clients
    }


def _key(text: bytes | None, where: str) -> Ed25519Signer:
    try:
        return Ed25519Signer(bytes.fromhex((text or b"").decode("ascii").strip()))
    except ValueError:
        raise KeeperError(
            f"the Secret {where} holds no key where one should be: restore it"
        ) from None
