"""Talks to one replica over HTTP and believes only what it can verify.

A running member's status is signed together with our fresh nonce by the key in the genesis; a
waiting member's identity carries a proof of its key and a MAC with the one-time token that it
was given on its volume.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import aiohttp
import msgspec
from msgspec import Meta, Struct

from dwcp.identity import Ed25519Verifier
from dwcp.wire.decoding import decoder_of, json_decoder_of
from dwcp.wire.epochs import CertifiedRecord, Records
from dwcp.wire.records import EpochRecord, Identity, Mode, SignedGenesis, check_genesis, scope_of
from dwcp_operator.plan.observed import EvidenceSeen, Report, SwitchSeen

BODY_BYTES_MAX: Final = 1024 * 1024
NONCE_BYTES: Final = 32
AT_MS_MAX: Final = 253_402_300_799_000
"""The last second of the year 9999."""
WORDS_MAX: Final = 300
"""Characters of a member's own words that are passed on."""
TIMEOUT: Final = aiohttp.ClientTimeout(total=2.0)


class EvidenceBody(Struct, frozen=True, rename="camel"):
    """One proof that the member says it holds."""

    member: str
    kind: str
    view: int
    index: int


class PeerBody(Struct, frozen=True, rename="camel"):
    """Another member, as the member sees it."""

    name: str
    suspicion: str | None = None


class NetworkBody(Struct, frozen=True, rename="camel"):
    """A network: microseconds, a share, bits per second."""

    rtt_us: int | None = None
    jitter_us: int | None = None
    loss: float | None = None
    rate_bps: int | None = None


class SwitchBody(Struct, frozen=True, rename="camel"):
    """The latest change of the decided mode."""

    before: Mode
    after: Mode
    reason: Literal["network", "forced"]
    index: int
    at_ms: Annotated[int, Meta(ge=0, le=AT_MS_MAX)]
    network: NetworkBody


class ModesBody(Struct, frozen=True, rename="camel"):
    """What the member says of the mode."""

    last_switch: SwitchBody | None = None


class StatusBody(Struct, frozen=True, rename="camel", kw_only=True):
    """What the operator reads of a member's status; indexes and views are counts."""

    name: str
    id: int | None
    phase: str
    mode: str
    epoch: int | None
    view: int | None
    active: bool
    primary: str | None
    role: str
    final_index: int
    applied_index: int
    stable_checkpoint: int
    stable_state: str | None
    ready: bool
    mute: str | None
    evidence: tuple[EvidenceBody, ...]
    settled: bool = False
    illness: str | None = None
    peers: tuple[PeerBody, ...] = ()
    modes: ModesBody | None = None


_decode_status: Callable[[bytes], StatusBody] = json_decoder_of(StatusBody)
_decode_identity: Callable[[bytes], Identity] = json_decoder_of(Identity)
_decode_records: Callable[[bytes], Records] = decoder_of(Records)
_decode_genesis: Callable[[bytes], SignedGenesis] = decoder_of(SignedGenesis)


class ProbeError(Exception):
    """The member did not answer, or not with something that holds; says what."""


class DeliveryRefusedError(Exception):
    """The member refused the genesis; carries the member's own sentence."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status code, headers and bounded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Probe:
    """One replica's client API at `url`."""

    def __init__(self, http: aiohttp.ClientSession, name: str, url: str) -> None:
        self._http = http
        self.name = name
        self._url = url

    async def report(
        self, genesis: EpochRecord, now: str, record: EpochRecord | None = None
    ) -> Report | None:
        """Its signed status; None while it waits or replays its log. Raises ProbeError.

        `record` is the newest that is known (genesis without it): it names the member's key.
        """
        record = record or genesis
        nonce = secrets.token_bytes(NONCE_BYTES)
        answer = await self._request("GET", f"/dwcp/v1/status?nonce={nonce.hex()}")
        signature = answer.headers.get("DWCP-Signature")
        if answer.status != 200:
            raise ProbeError(f"{self.name} answered its status with {answer.status}")
        if signature is None:
            return None
        number = record.member_named(self.name)
        if number is None:
            raise ProbeError(f"{self.name} is no member of epoch {record.epoch}")
        message = scope_of(genesis, genesis).signing_bytes("status", nonce + answer.body)
        key = record.members[number].identity
        if not Ed25519Verifier.check(key, message, _base64(signature)):
            raise ProbeError(f"the signature on the status of {self.name} does not verify")
        return _report(self.name, number, answer.body, now, record.epoch)

    async def records(self, after: int) -> tuple[CertifiedRecord, ...]:
        """The epoch records after `after` that it shows, unchecked. Raises ProbeError."""
        answer = await self._request("GET", f"/dwcp/v1/epochs?from={after}")
        if answer.status != 200:
            raise ProbeError(f"{self.name} answered its epochs with {answer.status}")
        try:
            return _decode_records(answer.body).records
        except msgspec.DecodeError as error:
            raise ProbeError(f"the epochs of {self.name} are malformed: {error}") from None

    async def standing(self, genesis: EpochRecord, key: bytes) -> Mapping[str, object]:
        """The whole status of whoever holds this key. Raises ProbeError."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        answer = await self._request("GET", f"/dwcp/v1/status?nonce={nonce.hex()}")
        signature = answer.headers.get("DWCP-Signature", "")
        message = scope_of(genesis, genesis).signing_bytes("status", nonce + answer.body)
        if not Ed25519Verifier.check(key, message, _base64(signature)):
            raise ProbeError(f"the signature on the status of {self.name} does not verify")
        try:
            return msgspec.json.decode(answer.body, type=dict[str, object])
        except msgspec.DecodeError as error:
            raise ProbeError(f"the status of {self.name} is malformed: {error}") from None

    async def post(self, method: str, path: str, body: bytes, mac: bytes = b"") -> str | None:
        """Bring it something; None when it was taken, else its own words. Raises ProbeError."""
        headers = {"DWCP-Token-MAC": mac.hex(), "Content-Type": "application/msgpack"}
        answer = await self._request(method, path, data=body, headers=headers)
        if answer.status < 300:
            return None
        return answer.body.decode("utf-8", "replace")[:500]

    async def ask(self, path: str, body: bytes) -> bytes:
        """What it answers to something brought to it. Raises ProbeError with its own words."""
        headers = {"Content-Type": "application/msgpack"}
        answer = await self._request("POST", path, data=body, headers=headers)
        if answer.status != 200:
            raise ProbeError(answer.body.decode("utf-8", "replace")[:500])
        return answer.body

    async def identity(self, token: bytes | None, known_key: bytes | None) -> Identity:
        """Who waits there, its proof checked, and tied by the token's MAC or by a known key.

        Raises ProbeError.
        """
        answer = await self._request("GET", "/dwcp/v1/identity")
        if answer.status != 200:
            raise ProbeError(f"{self.name} answered its identity with {answer.status}")
        try:
            shown = _decode_identity(answer.body)
        except msgspec.DecodeError as error:
            raise ProbeError(f"the identity of {self.name} is malformed: {error}") from None
        if shown.name != self.name:
            raise ProbeError(f"{self.name} shows the identity of {shown.name}")
        if not Ed25519Verifier.check(shown.identity, shown.claim(), shown.proof):
            raise ProbeError(f"the proof of {self.name} does not verify")
        if shown.identity != known_key and not _mac_holds(token, shown):
            raise ProbeError(f"{self.name} does not know the token that its volume was given")
        return shown

    async def genesis(self) -> SignedGenesis | None:
        """The genesis it holds, its signatures checked; None while it has none.

        Raises ProbeError.
        """
        answer = await self._request("GET", "/dwcp/v1/genesis")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise ProbeError(f"{self.name} answered its genesis with {answer.status}")
        return checked_genesis(self.name, answer.body)

    async def deliver(self, signed: SignedGenesis, token: bytes | None) -> SignedGenesis:
        """Offer it the genesis; returns it with the member's signature added.

        Raises ProbeError, or DeliveryRefusedError with the member's sentence.
        """
        mac = hmac.digest(token or b"", b"genesis" + signed.record.hash(), hashlib.sha256)
        answer = await self._request(
            "PUT",
            "/dwcp/v1/genesis",
            data=msgspec.msgpack.encode(signed),
            headers={"DWCP-Token-MAC": mac.hex(), "Content-Type": "application/msgpack"},
        )
        if answer.status != 200:
            said = answer.body.decode("utf-8", "replace")[:500]
            raise DeliveryRefusedError(
                f"{self.name} refused the genesis with {answer.status}: {said}"
            )
        returned = checked_genesis(self.name, answer.body)
        if returned.record.hash() != signed.record.hash():
            raise ProbeError(f"{self.name} answered with another genesis")
        return returned

    async def _request(
        self,
        method: str,
        path: str,
        *,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        try:
            # unverified TLS: what a member says is believed by its signature, proof or MAC, and
            # the certificate of one that waits is not known yet
            async with self._http.request(
                method, self._url + path, data=data, headers=headers, timeout=TIMEOUT, ssl=False
            ) as response:
                body = await _read_bounded(response)
                return Answer(response.status, response.headers, body)
        except (aiohttp.ClientError, TimeoutError) as error:
            what = str(error) or type(error).__name__
            raise ProbeError(f"{self.name} does not answer: {what}") from None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(65_536):
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise ProbeError(f"an answer is longer than {BODY_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # not base64, or not even ASCII
        return b""


def _mac_holds(token: bytes | None, shown: Identity) -> bool:
    if token is None:
        return False
    mac = hmac.digest(token, shown.claim(), hashlib.sha256)
    return hmac.compare_digest(mac, shown.mac)


def checked_genesis(name: str, body: bytes) -> SignedGenesis:
    """The genesis of a member, its signatures checked. Raises ProbeError."""
    try:
        signed = _decode_genesis(body)
    except msgspec.DecodeError as error:
        raise ProbeError(f"the genesis that {name} holds is malformed: {error}") from None
    problem = check_genesis(signed, Ed25519Verifier())
    if problem is not None:
        raise ProbeError(f"the genesis that {name} holds is not valid: {problem}")
    return signed


def _report(name: str, number: int, body: bytes, now: str, epoch: int) -> Report | None:
    try:
        status = _decode_status(body)
    except msgspec.DecodeError as error:
        raise ProbeError(f"the status of {name} is malformed: {error}") from None
    if status.name != name or (status.epoch == epoch and status.id != number):
        raise ProbeError(f"{name} signed the status of {status.name}")
    if status.epoch is None or status.view is None or status.primary is None:
        return None  # it holds the genesis, and has not replayed its log yet
    return Report(
        epoch=status.epoch,
        view=status.view,
        active=status.active,
        primary=status.primary,
        mode=status.mode,
        role=status.role,
        final_index=status.final_index,
        applied_index=status.applied_index,
        stable_checkpoint=status.stable_checkpoint,
        stable_state=status.stable_state or "",
        ready=status.ready,
        mute=status.mute,
        evidence=tuple(
            EvidenceSeen(e.member, e.kind, e.view, e.index) for e in status.evidence[:64]
        ),
        seen_at=now,
        settled=status.settled,
        illness=None if status.illness is None else status.illness[:WORDS_MAX],
        suspects={
            peer.name[:64]: peer.suspicion[:64]
            for peer in status.peers[:64]
            if peer.suspicion is not None
        },
        switch=_switch(status),
    )


def _switch(status: StatusBody) -> SwitchSeen | None:
    last = None if status.modes is None else status.modes.last_switch
    if last is None:
        return None
    numbers = msgspec.structs.asdict(last.network)
    at = datetime.fromtimestamp(last.at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return SwitchSeen(last.before, last.after, last.reason, last.index, at, **numbers)
