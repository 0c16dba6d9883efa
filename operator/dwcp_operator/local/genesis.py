"""The genesis of a local cluster: made once, kept before anybody is given it, then published."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from dwcp.epochs import RecordChain, read_records, records_file
from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.wire.decoding import decoder_of
from dwcp.wire.epochs import CertifiedRecord
from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Identity,
    Member,
    Origin,
    Parameters,
    SignedGenesis,
    check_genesis,
    genesis_signing_bytes,
    is_complete,
    start_hash,
)
from dwcp.wire.signing import ZERO_HASH
from dwcp_operator import rules
from dwcp_operator.local.errors import GenesisConflictError
from dwcp_operator.local.files import replace_file, write_once
from dwcp_operator.local.layout import ClusterFile, Layout
from dwcp_operator.plan.observed import GenesisHeld
from dwcp_operator.resources import DWCPCluster

TOKEN_BYTES: Final = 32

_decode: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)
_decode_origin: Callable[[bytes], Origin] = decoder_of(Origin)


def _read_origin(layout: Layout) -> Origin | None:
    try:
        return _decode_origin(layout.origin.read_bytes())
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise GenesisConflictError(f"{layout.origin} is damaged ({error}): restore it") from None


class GenesisKeeper:
    """The genesis in the data directory, and the members' signatures collected so far."""

    def __init__(self, layout: Layout, cluster: ClusterFile, manifest: DWCPCluster) -> None:
        self._layout = layout
        self._cluster = cluster
        self._manifest = manifest
        self.signed: SignedGenesis | None = None
        self._origin = _read_origin(layout)
        self.chain: RecordChain | None = None
        self._published = False
        self._load()

    def _load(self) -> None:
        for path, published in ((self._layout.genesis, True), (self._layout.record, False)):
            try:
                signed = _decode(path.read_bytes())
            except FileNotFoundError:
                continue
            except msgspec.DecodeError as error:
                raise GenesisConflictError(f"{path} is damaged ({error}): restore it") from None
            problem = check_genesis(signed, Ed25519Verifier()) or self._not_ours(signed.record)
            if problem is not None:
                raise GenesisConflictError(f"{path} does not belong here: {problem}: restore it")
            self.signed, self._published = signed, published
            self.chain = self._load_records(signed.record)
            return

    def _not_ours(self, record: EpochRecord) -> str | None:
        if record.cluster_id.hex() != self._cluster.cluster_id:
            return "it is of another cluster id"
        known = {*(m.name for m in self._cluster.members), *self._cluster.gone}
        if not known.issuperset(m.name for m in record.members):
            return "its members are others"
        return None

    def _load_records(self, genesis: EpochRecord) -> RecordChain:
        """What was seen of the epochs; what does not verify is fetched again."""
        chain = RecordChain(genesis, Ed25519Verifier())
        with suppress(FileNotFoundError, msgspec.DecodeError):
            chain.extend(read_records(self._layout.epochs.read_bytes()))
        return chain

    @property
    def record(self) -> EpochRecord | None:
        """The newest epoch record that was seen; None before genesis."""
        return None if self.chain is None else self.chain.current

    @property
    def members(self) -> tuple[str, ...]:
        """The names of the present members; before genesis, of those that are to begin it."""
        members = self._cluster.members if self.record is None else self.record.members
        return tuple(member.name for member in members)

    def follow(self, certified: Sequence[CertifiedRecord]) -> str | None:
        """Take records that a member shows, each verified; why one does not hold, or None."""
        assert self.chain is not None, "epochs follow a genesis"
        before = self.chain.current.epoch
        fault = self.chain.extend(certified)
        if self.chain.current.epoch > before:
            replace_file(self._layout.epochs, records_file(self.chain.certified), mode=0o644)
        return fault

    def held(self) -> GenesisHeld | None:
        """What the planner needs to know."""
        if self.signed is None or self.record is None:
            return None
        if self.record.epoch > 0:  # nobody signs the genesis any more: who joined was invited
            signed = frozenset(m.name for m in self.record.members)
        else:
            places = zip(self.record.members, self.signed.member_sigs, strict=True)
            signed = frozenset(m.name for m, sig in places if sig)
        return GenesisHeld(
            hash=self.signed.record.hash(),
            identities={m.name: m.identity for m in self.record.members},
            signed=signed,
            published=self._published,
        )

    def create(self, identities: Mapping[str, Identity]) -> None:
        """Make the record from verified identities and keep it durably, before any is told.

        Raises GenesisConflictError when one was made before.
        """
        admin = Ed25519Signer.load(self._layout.admin_key)
        record = self._record(identities, admin.public_key)
        signed = SignedGenesis(
            record=record,
            admin_sig=admin.sign(genesis_signing_bytes(record)),
            member_sigs=(b"",) * len(record.members),
            origin=self._origin,
        )
        problem = check_genesis(signed, Ed25519Verifier())
        assert problem is None, f"made a genesis that does not hold: {problem}"
        self._keep(signed)

    def _record(self, identities: Mapping[str, Identity], admin: bytes) -> EpochRecord:
        spec, cluster_id = self._manifest.spec, bytes.fromhex(self._cluster.cluster_id)
        members = tuple(
            Member(
                name=m.name,
                identity=identities[m.name].identity,
                certificate=identities[m.name].certificate,
                peer=m.peer_address,
                client=m.client_url,
            )
            for m in self._cluster.members
        )
        clients = tuple(
            ClientIdentity(name, Ed25519Signer.load(path).public_key)
            for name, path in self._client_keys()
        )
        return EpochRecord(
            cluster_id=cluster_id,
            cluster=self._cluster.name,
            namespace=self._cluster.namespace,
            epoch=0,
            protocol=rules.PROTOCOL_OF[spec.mode],
            trust=spec.trust,
            members=members,
            clients=clients,
            admin=admin,
            parameters=Parameters(
                checkpoint_interval=spec.checkpoint_interval,
                request_timeout_ms=spec.request_timeout_ms,
                fast_reads=spec.fast_reads,
                modes=spec.modes.policy(spec.mode),
            ),
            start_index=0,
            start_hash=start_hash(cluster_id),
            leader=0,
            previous=ZERO_HASH if self._origin is None else self._origin.hash(),
        )

    def adopt(self, found: SignedGenesis) -> None:
        """Keep a genesis that a member holds, its signatures checked by the caller.

        Raises GenesisConflictError when another admin signed it or it is of another cluster.
        """
        problem = self._not_ours(found.record)
        if found.record.admin != Ed25519Signer.load(self._layout.admin_key).public_key:
            problem = "another admin key signed it"
        if problem is not None:
            raise GenesisConflictError(f"a member holds a genesis that is not ours: {problem}")
        self._keep(found)

    def _keep(self, signed: SignedGenesis) -> None:
        if not write_once(self._layout.record, msgspec.msgpack.encode(signed)):
            raise GenesisConflictError(f"{self._layout.record} exists: a genesis is made once")
        self.signed = signed
        self.chain = RecordChain(signed.record, Ed25519Verifier())

    def collect(self, returned: SignedGenesis) -> None:
        """Join the signatures of the same record, already checked, to those collected."""
        assert self.signed is not None, "signatures come after the record"
        assert returned.record.hash() == self.signed.record.hash(), "signatures of another record"
        pairs = zip(self.signed.member_sigs, returned.member_sigs, strict=True)
        joined = tuple(old or new for old, new in pairs)
        self.signed = msgspec.structs.replace(self.signed, member_sigs=joined)

    @property
    def is_published(self) -> bool:
        """True when clients can read the complete genesis."""
        return self._published

    def publish(self) -> None:
        """Write the complete genesis to where clients look for it."""
        assert self.signed is not None, "signatures come after the record"
        assert is_complete(self.signed), "every member signs before the genesis is published"
        write_once(self._layout.genesis, msgspec.msgpack.encode(self.signed), mode=0o644)
        self._published = True

    # --- keys ------------------------------------------------------------------------------

    def _client_keys(self) -> list[tuple[str, Path]]:
        names = self._manifest.spec.clients
        return [(name, self._layout.client_key(i, name)) for i, name in enumerate(names)]

    def _key_files(self) -> list[Path]:
        return [self._layout.admin_key, *(path for _, path in self._client_keys())]

    def _token_files(self) -> list[Path]:
        return [self._layout.token(m.name) for m in self._cluster.members]

    def keys_exist(self) -> bool:
        """True when admin key and clients' keys, and before the genesis all tokens, are there."""
        needed = self._key_files()
        if self.signed is None:
            needed += self._token_files()
        return all(path.exists() for path in needed)

    def ensure_keys(self) -> None:
        """Make the keys and tokens that are missing; what exists stays."""
        for path in (*self._key_files(), *self._token_files()):
            path.parent.mkdir(exist_ok=True, mode=0o700)
        for path in self._key_files():
            write_once(path, Ed25519Signer.generate().seed.hex().encode() + b"\n")
        for path in self._token_files():
            write_once(path, secrets.token_hex(TOKEN_BYTES).encode())

    def token(self, member: str) -> bytes | None:
        """The member's one-time token, while it is kept."""
        try:
            return self._layout.token(member).read_bytes().strip()
        except FileNotFoundError:
            return None

    def drop_token(self, member: str) -> None:
        """Remove a token that has served: the member holds the complete genesis."""
        self._layout.token(member).unlink(missing_ok=True)
