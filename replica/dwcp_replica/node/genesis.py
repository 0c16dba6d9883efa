"""How this process gets its genesis: by an authenticated offer, once and for ever.

One that begins the cluster signs the genesis, which names it. One that joins later is given the
complete genesis, the epoch records since, and the admin's anchor: an invitation.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

from dwcp.epochs import Invitation, RecordChain
from dwcp.identity import Ed25519Verifier
from dwcp.wire.decoding import decoder_of
from dwcp.wire.records import (
    EpochRecord,
    Identity,
    SignedGenesis,
    check_genesis,
    genesis_signing_bytes,
    is_complete,
)
from dwcp.wire.signing import SIGNATURE_BYTES, ZERO_HASH
from dwcp_replica.api.bootstrap import GENESIS_BYTES_MAX
from dwcp_replica.api.host import GenesisRefusedError
from dwcp_replica.durable import DataDirectory, ForeignDirectory, GenesisConflict
from dwcp_replica.node.config import NodeConfig

ASK_PEERS_EVERY_S: Final = 1.0
ASK_TIMEOUT_S: Final = 3.0

_log = logging.getLogger(__name__)
_decode: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)
_decode_invitation: Callable[[bytes], Invitation] = decoder_of(Invitation)


class GenesisKeeper:
    """This member's identity and its genesis, on its data directory."""

    def __init__(self, config: NodeConfig, directory: DataDirectory) -> None:
        self._config = config
        self._directory = directory
        self._verifier = Ed25519Verifier()
        self.complete = asyncio.Event()
        if directory.genesis is not None:
            self._check_stored(directory.genesis)
            self._note_complete(directory.genesis)

    @property
    def genesis(self) -> SignedGenesis | None:
        """The complete genesis, or None while signatures are missing."""
        return self._directory.genesis if self.complete.is_set() else None

    def offer(self, offer: SignedGenesis, mac: bytes) -> SignedGenesis:
        """Check an offered genesis, sign it, store it durably; return what is stored now.

        Raises GenesisRefusedError.
        """
        self._check_mac(b"genesis" + offer.record.hash(), mac)
        stored = self._directory.genesis
        if stored is not None and stored.record != offer.record:
            raise GenesisRefusedError(
                409, "genesis-conflict", "this member has another genesis already, for ever: "
                "offer that one, or use a new member with an empty directory",
            )  # fmt: skip
        if (fault := check_genesis(offer, self._verifier)) is not None:
            raise GenesisRefusedError(400, "genesis-invalid", fault)
        if (fault := self._foreign(offer.record)) is not None:
            raise GenesisRefusedError(409, "genesis-foreign", fault)
        return self._store(self._signed(offer))

    def invite(self, encoded: bytes, mac: bytes) -> None:
        """Check an invitation to join a cluster that runs, and keep it durably.

        Raises GenesisRefusedError.
        """
        self._check_mac(b"join" + hashlib.sha256(encoded).digest(), mac)
        try:
            invitation = _decode_invitation(encoded)
        except (msgspec.DecodeError, RecursionError) as error:
            message = f"not the MessagePack of an Invitation: {error}"
            raise GenesisRefusedError(400, "malformed", message) from None
        if self._directory.genesis is not None:
            if self._directory.genesis.record == invitation.genesis.record:
                return  # invited before
            raise GenesisRefusedError(409, "genesis-conflict", "this replica has another genesis")
        if (fault := self._invitation_fault(invitation)) is not None:
            raise GenesisRefusedError(409, "invitation", fault)
        if invitation.anchor is None:
            _log.warning("invitation-without-anchor")
        self._directory.store_invitation(encoded)
        self._store(invitation.genesis)

    def _invitation_fault(self, invitation: Invitation) -> str | None:
        record = invitation.genesis.record
        if not is_complete(invitation.genesis):
            return "the genesis lacks members' signatures"
        if (fault := check_genesis(invitation.genesis, self._verifier)) is not None:
            return fault
        if (record.cluster, record.namespace) != (self._config.cluster, self._config.namespace):
            return f"the invitation is to {record.namespace}/{record.cluster}"
        chain = RecordChain(record, self._verifier)
        if (fault := chain.extend(invitation.records)) is not None:
            return fault
        if invitation.anchor is not None and (fault := chain.anchor_fault(invitation.anchor)):
            return fault
        if any(one.member_named(self._config.name) is not None for one in chain.records):
            name = self._config.name
            return f"the name {name} was used in this cluster: names are never used again"
        return None

    @property
    def invitation(self) -> Invitation | None:
        """What this replica was invited with; None for a member of genesis."""
        encoded = self._directory.invitation
        return None if encoded is None else _decode_invitation(encoded)

    async def ask_peers(self) -> None:
        """While signatures are missing, look whether another member has them all."""
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while not self.complete.is_set():
                stored = self._directory.genesis
                for member in stored.record.members if stored else ():
                    if member.name != self._config.name and not self.complete.is_set():
                        await self._ask(session, member.client)
                await asyncio.sleep(ASK_PEERS_EVERY_S * random.uniform(0.5, 1.5))  # noqa: S311 jitter

    async def _ask(self, session: aiohttp.ClientSession, base_url: str) -> None:
        stored = self._directory.genesis
        assert stored is not None, "peers are known from the stored genesis"
        try:
            # unverified TLS: a genesis is believed by the signatures on it
            async with session.get(f"{base_url}/dwcp/v1/genesis", ssl=False) as response:
                if response.status != 200:
                    return
                body = await response.content.read(GENESIS_BYTES_MAX + 1)
            seen = _decode(body)
        except (aiohttp.ClientError, OSError, ValueError, msgspec.DecodeError, RecursionError):
            return  # not there yet, or not a member's answer: asked again later
        is_ours = seen.record == stored.record and is_complete(seen)
        if is_ours and check_genesis(seen, self._verifier) is None:
            self._store(seen)

    def _check_mac(self, message: bytes, mac: bytes) -> None:
        token = self._config.token
        if token is None:
            raise GenesisRefusedError(
                403, "token-mac", "this member was started without --token-file: "
                "nobody can prove to it that a genesis is the right one",
            )  # fmt: skip
        right = hmac.digest(token, message, hashlib.sha256)
        if not hmac.compare_digest(right, mac):
            _log.warning("genesis-refused", extra={"reason": "token-mac"})
            raise GenesisRefusedError(
                403, "token-mac", "the token MAC is not that of this member's token"
            )

    def _foreign(self, record: EpochRecord) -> str | None:
        """Why a valid record is not this member's, or None."""
        config, directory = self._config, self._directory
        if (record.cluster, record.namespace) != (config.cluster, config.namespace):
            return (
                f"this member belongs to {config.namespace}/{config.cluster}, the genesis is of "
                f"{record.namespace}/{record.cluster}"
            )
        number = record.member_named(config.name)
        if number is None:
            return f"the genesis does not name a member {config.name}"
        member = record.members[number]
        if member.identity != directory.first_key:
            return f"the genesis names another key for {config.name} than this volume holds"
        if member.certificate != directory.certificate_fingerprint:
            return f"the genesis names another certificate for {config.name} than this volume holds"
        return None

    def _check_stored(self, stored: SignedGenesis) -> None:
        fault = check_genesis(stored, self._verifier)
        if fault is None and self._directory.invitation is None:
            fault = self._foreign(stored.record)
        if fault is not None:
            raise ForeignDirectory(f"the genesis stored in {self._directory.path}: {fault}")

    def _signed(self, offer: SignedGenesis) -> SignedGenesis:
        number = offer.record.member_named(self._config.name)
        assert number is not None, "a foreign record was refused"
        sigs = list(offer.member_sigs)
        sigs[number] = self._directory.signer.sign(genesis_signing_bytes(offer.record))
        return msgspec.structs.replace(offer, member_sigs=tuple(sigs))

    def _store(self, signed: SignedGenesis) -> SignedGenesis:
        try:
            stored = self._directory.store_genesis(signed)
        except GenesisConflict as conflict:
            raise GenesisRefusedError(409, "genesis-conflict", str(conflict)) from None
        self._note_complete(stored)
        return stored

    def _note_complete(self, stored: SignedGenesis) -> None:
        if is_complete(stored) and not self.complete.is_set():
            self.complete.set()
            _log.info("genesis-complete", extra={"genesis": stored.record.hash().hex()})

    @property
    def identity(self) -> Identity:
        """Key, certificate, proof and MAC."""
        directory = self._directory
        unsigned = Identity(
            name=self._config.name,
            identity=directory.signer.public_key,
            certificate=directory.certificate_fingerprint,
            proof=bytes(SIGNATURE_BYTES),
            mac=ZERO_HASH,
        )
        claim = unsigned.claim()
        token = self._config.token
        return msgspec.structs.replace(
            unsigned,
            proof=directory.signer.sign(claim),
            mac=ZERO_HASH if token is None else hmac.digest(token, claim, hashlib.sha256),
        )
