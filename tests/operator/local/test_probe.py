"""A member that lies to the operator is not believed: an adversary behind real HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from dwcp.identity import Ed25519Signer
from dwcp.wire.records import (
    EpochRecord,
    Identity,
    Member,
    Parameters,
    SignedGenesis,
    genesis_signing_bytes,
    scope_of,
    start_hash,
)
from dwcp_operator.local.probe import DeliveryRefusedError, Probe, ProbeError
from dwcp_operator.plan import Report, SwitchSeen

NAMES = tuple(f"demo-{i}" for i in range(4))
SIGNERS = tuple(Ed25519Signer(bytes([i + 1]) * 32) for i in range(4))
ADMIN = Ed25519Signer(b"a" * 32)
CLUSTER_ID = b"i" * 16
GENESIS = EpochRecord(
    cluster_id=CLUSTER_ID,
    cluster="demo",
    namespace="default",
    epoch=0,
    protocol="pbft",
    trust="Byzantine",
    members=tuple(
        Member(name, signer.public_key, b"c" * 32, "127.0.0.1:1", "http://127.0.0.1:2")
        for name, signer in zip(NAMES, SIGNERS, strict=True)
    ),
    clients=(),
    admin=ADMIN.public_key,
    parameters=Parameters(),
    start_index=0,
    start_hash=start_hash(CLUSTER_ID),
    leader=0,
)
SIGNED = SignedGenesis(GENESIS, ADMIN.sign(genesis_signing_bytes(GENESIS)), (b"",) * 4)
TOKEN = b"0123456789abcdef"
STATUS: dict[str, Any] = {
    "name": "demo-1",
    "id": 1,
    "phase": "Running",
    "mode": "Internet",
    "epoch": 0,
    "view": 3,
    "active": True,
    "primary": "demo-2",
    "role": "backup",
    "finalIndex": 7,
    "appliedIndex": 6,
    "stableCheckpoint": 0,
    "stableState": None,
    "ready": True,
    "mute": None,
    "evidence": [{"member": "demo-2", "kind": "equivocation", "view": 2, "index": 5}],
    "somethingNewer": 1,
}

Handler = Callable[[web.Request], Awaitable[web.Response]]


def ask(handler: Handler, question: Callable[[Probe], Awaitable[Any]]) -> Any:
    """Put a question to a member that answers everything with `handler`."""

    async def run() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            async with aiohttp.ClientSession() as http:
                return await question(Probe(http, "demo-1", f"http://{host}:{port}"))
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def status_handler(
    body: bytes, signer: Ed25519Signer = SIGNERS[1], nonce: bytes | None = None
) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        used = bytes.fromhex(request.query["nonce"]) if nonce is None else nonce
        message = scope_of(GENESIS, GENESIS).signing_bytes("status", used + body)
        signature = base64.b64encode(signer.sign(message)).decode()
        return web.Response(body=body, headers={"DWCP-Signature": signature})

    return handle


def report(handler: Handler) -> Report | None:
    found: Report | None = ask(handler, lambda probe: probe.report(GENESIS, "now"))
    return found


def test_a_signed_status_is_read() -> None:
    found = report(status_handler(json.dumps(STATUS).encode()))
    assert found is not None
    assert (found.view, found.primary, found.applied_index) == (3, "demo-2", 6)
    assert found.evidence[0].member == "demo-2"


def encoded(**changes: object) -> bytes:
    return json.dumps({**STATUS, **changes}).encode()


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (status_handler(encoded(), signer=SIGNERS[2]), "does not verify"),
        (status_handler(encoded(), nonce=b"old" * 10), "does not verify"),
        (status_handler(encoded(name="demo-2", id=2)), "signed the status of demo-2"),
        (status_handler(encoded(id=0)), "signed the status of"),
        (status_handler(encoded(view="three")), "is malformed"),
        (status_handler(b"[]"), "is malformed"),
        (status_handler(b"x" * 2_000_000), "longer than"),
    ],
)
def test_a_status_that_does_not_hold_is_refused(handler: Handler, sentence: str) -> None:
    with pytest.raises(ProbeError, match=sentence):
        report(handler)


def test_health_suspicions_and_the_last_switch_are_read() -> None:
    network = {"rttUs": 1200, "jitterUs": None, "loss": None, "rateBps": 10**9}
    last = {"before": "Internet", "after": "Datacenter", "reason": "network", "index": 9}
    said = STATUS | {
        "illness": "w" * 1000,
        "peers": [{"name": "demo-0", "suspicion": "silent"}, {"name": "demo-2"}],
        "modes": {"lastSwitch": last | {"atMs": 1_700_000_000_000, "network": network}},
    }
    report = ask(status_handler(json.dumps(said).encode()), lambda p: p.report(GENESIS, "now"))
    assert (len(report.illness), report.suspects) == (300, {"demo-0": "silent"})
    assert report.switch == SwitchSeen(
        "Internet", "Datacenter", "network", 9, "2023-11-14T22:13:20Z", 1200, rate_bps=10**9
    )


def test_a_status_before_the_log_is_replayed_is_no_report() -> None:
    assert report(status_handler(encoded(epoch=None, view=None, primary=None))) is None


def test_a_member_that_does_not_answer() -> None:
    async def run() -> None:
        async with aiohttp.ClientSession() as http:
            await Probe(http, "demo-1", "http://127.0.0.1:1").report(GENESIS, "now")

    with pytest.raises(ProbeError, match="demo-1 does not answer"):
        asyncio.run(run())


def identity(
    name: str = "demo-1",
    signer: Ed25519Signer = SIGNERS[1],
    prover: Ed25519Signer = SIGNERS[1],
    token: bytes = TOKEN,
) -> Handler:
    bare = Identity(name, signer.public_key, b"c" * 32, bytes(64), bytes(32))
    claim = bare.claim()
    shown = msgspec.structs.replace(
        bare, proof=prover.sign(claim), mac=hmac.digest(token, claim, hashlib.sha256)
    )

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(shown))

    return handle


def test_an_identity_tied_by_the_token_is_believed() -> None:
    shown = ask(identity(), lambda probe: probe.identity(TOKEN, None))
    assert shown.identity == SIGNERS[1].public_key


def test_a_key_of_the_genesis_needs_no_token() -> None:
    key = SIGNERS[1].public_key
    shown = ask(identity(token=b"gone"), lambda probe: probe.identity(None, key))
    assert shown.identity == key


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (identity(name="demo-2"), "shows the identity of demo-2"),
        (identity(prover=SIGNERS[2]), "proof of demo-1 does not verify"),
        (identity(token=b"guess"), "does not know the token"),
    ],
)
def test_an_identity_that_does_not_hold_is_refused(handler: Handler, sentence: str) -> None:
    with pytest.raises(ProbeError, match=sentence):
        ask(handler, lambda probe: probe.identity(TOKEN, None))


def genesis_handler(signed: SignedGenesis, status: int = 200) -> Handler:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(status=status, body=msgspec.msgpack.encode(signed))

    return handle


def test_a_genesis_with_a_false_signature_is_refused() -> None:
    forged = msgspec.structs.replace(SIGNED, admin_sig=bytes(64))
    with pytest.raises(ProbeError, match="is not valid"):
        ask(genesis_handler(forged), lambda probe: probe.genesis())
    assert ask(genesis_handler(SIGNED), lambda probe: probe.genesis()) == SIGNED
    assert ask(genesis_handler(SIGNED, 404), lambda probe: probe.genesis()) is None


def test_a_refused_delivery_carries_the_members_sentence() -> None:
    async def conflict(_: web.Request) -> web.Response:
        return web.Response(status=409, text="another genesis is stored here already")

    with pytest.raises(DeliveryRefusedError, match="another genesis is stored here already"):
        ask(conflict, lambda probe: probe.deliver(SIGNED, TOKEN))


def test_the_answer_to_a_delivery_must_be_the_same_genesis() -> None:
    record = msgspec.structs.replace(GENESIS, cluster="other")
    sig = ADMIN.sign(genesis_signing_bytes(record))
    other = SignedGenesis(record, sig, (b"",) * 4)
    with pytest.raises(ProbeError, match="another genesis"):
        ask(genesis_handler(other), lambda probe: probe.deliver(SIGNED, TOKEN))
