"""A cluster's keys and record, made from nothing but numbers, and replies signed with them."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from dwcp.identity import Ed25519Signer, Ed25519Verifier
from dwcp.matching import ReplyChecker
from dwcp.wire.envelope import (
    Busy,
    Envelope,
    Rejected,
    Reply,
    reply_signing_bytes,
    signed_refusal,
)
from dwcp.wire.operations import PutResponse, Result
from dwcp.wire.query import Query, QueryReply, query_reply_signing_bytes
from dwcp.wire.records import (
    ClientIdentity,
    EpochRecord,
    Member,
    Parameters,
    SignedGenesis,
    genesis_signing_bytes,
    scope_of,
    start_hash,
)
from dwcp.wire.signing import digest
from dwcp.wire.watch import Page, page_signing_bytes

OK = msgspec.msgpack.encode((PutResponse(),))


def results(*items: Result) -> bytes:
    return msgspec.msgpack.encode(items)


def signer(name: str) -> Ed25519Signer:
    return Ed25519Signer(digest("test-key", name.encode()))


@dataclass
class Members:
    """n members; `urls` are their client addresses."""

    n: int = 4
    urls: list[str] = field(default_factory=list)
    fast_reads: bool = False

    def __post_init__(self) -> None:
        self.signers = [signer(f"member-{i}") for i in range(self.n)]
        self.client = signer("client")
        self.admin = signer("admin")
        self.verifier = Ed25519Verifier()
        self.genesis = self._record()
        self.scope = scope_of(self.genesis, self.genesis)

    @property
    def f(self) -> int:
        return (self.n - 1) // 3

    @property
    def checker(self) -> ReplyChecker:
        return ReplyChecker(self.genesis, self.verifier)

    def reply(
        self,
        member: int,
        request: bytes,
        *,
        index: int = 7,
        revision: int = 3,
        content: bytes = OK,
        view: int = 1,
        epoch: int = 0,
        signed_by: int | None = None,
    ) -> Reply:
        unsigned = Reply(request, index, revision, content, epoch, view, member, bytes(64))
        return self.sign(unsigned, signed_by)

    def sign(self, unsigned: Reply, signed_by: int | None = None) -> Reply:
        key = self.signers[unsigned.member if signed_by is None else signed_by]
        sig = key.sign(reply_signing_bytes(self.scope, unsigned))
        return msgspec.structs.replace(unsigned, sig=sig)

    def busy(self, member: int, envelope: Envelope, wait_ms: int) -> Busy:
        unsigned = Busy(envelope.digest(), wait_ms, 0, member, bytes(64))
        return signed_refusal(unsigned, self.scope, self.signers[member], envelope.sig)

    def rejected(self, member: int, envelope: Envelope, reason: str, message: str) -> Rejected:
        unsigned = Rejected(envelope.digest(), reason, message, 0, member, bytes(64))
        return signed_refusal(unsigned, self.scope, self.signers[member], envelope.sig)

    def sign_page(self, page: Page) -> Page:
        """The page, signed by the member that it names."""
        sig = self.signers[page.member].sign(page_signing_bytes(self.scope, page))
        return msgspec.structs.replace(page, sig=sig)

    def query_reply(
        self,
        member: int,
        query: Query,
        content: bytes,
        *,
        revision: int = 3,
        index: int = 7,
        signed_by: int | None = None,
    ) -> QueryReply:
        reply = QueryReply(query.digest(), index, revision, content, 0, 1, member, bytes(64))
        key = self.signers[member if signed_by is None else signed_by]
        sig = key.sign(query_reply_signing_bytes(self.scope, reply))
        return msgspec.structs.replace(reply, sig=sig)

    def signed_genesis(self) -> SignedGenesis:
        message = genesis_signing_bytes(self.genesis)
        return SignedGenesis(
            self.genesis, self.admin.sign(message), tuple(s.sign(message) for s in self.signers)
        )

    def _record(self) -> EpochRecord:
        urls = self.urls or [f"http://127.0.0.1:{9 + i}" for i in range(self.n)]
        cluster_id = digest("test-cluster")[:16]
        return EpochRecord(
            cluster_id=cluster_id,
            cluster="test",
            namespace="default",
            epoch=0,
            protocol="pbft",
            trust="Byzantine",
            members=tuple(
                Member(f"test-{i}", s.public_key, digest("cert", bytes((i,))), "127.0.0.1:1", url)
                for i, (s, url) in enumerate(zip(self.signers, urls, strict=True))
            ),
            clients=(ClientIdentity("app", self.client.public_key),),
            admin=self.admin.public_key,
            parameters=Parameters(fast_reads=self.fast_reads),
            start_index=0,
            start_hash=start_hash(cluster_id),
            leader=0,
        )
