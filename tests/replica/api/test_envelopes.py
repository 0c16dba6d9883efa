"""Envelopes over plain HTTP, against four real replicas."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dwcp.identity import Ed25519Signer
from dwcp.wire.envelope import MAX_ENVELOPE_BYTES, Envelope, EnvelopeBody, Rejected, Reply
from dwcp.wire.operations import PutResponse, RangeRequest, RangeResponse
from dwcp.wire.signing import ZERO_HASH
from replica.harness import RawClient, Tasks
from replica.waiting import in_loop


@in_loop
async def test_a_signed_envelope_commits_on_all(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        replies = await cluster.http.post_all(cluster.places, client.put(b"k", b"v"))
        assert client.agreed(replies) == (PutResponse(),)
        through_a_backup = client.envelope(RangeRequest(b"k"))
        reply = await cluster.http.post(cluster.places[3], through_a_backup)
        assert isinstance(reply, Reply)
        (result,) = client.agreed([reply])
        assert isinstance(result, RangeResponse)
        assert [kv.value for kv in result.kvs] == [b"v"]
        for place in cluster.places:
            assert await cluster.http.metric(place, "dwcp_executed_requests_total") >= 2
            assert await cluster.http.metric(place, "dwcp_commit_seconds_count") >= 1


@in_loop
async def test_a_repeated_envelope_gets_the_first_answer(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        envelope = client.put(b"k", b"v")
        first = await cluster.http.post_all(cluster.places, envelope)
        again = await cluster.http.post_all(cluster.places, envelope)
        assert client.agreed([first[0], *again[1:]]) == client.agreed(first)
        assert again == first


@in_loop
async def test_bad_envelopes_are_refused_with_a_reason(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        genesis = cluster.running[cluster.places[0].name].record
        assert genesis is not None
        good = client.put(b"k")
        stranger = RawClient(genesis, Ed25519Signer.generate())
        for envelope, code, reason in [
            (msgspec.structs.replace(good, sig=bytes(64)), 401, "signature"),
            (
                msgspec.structs.replace(good, client=stranger.signer.public_key),
                403,
                "unknown-client",
            ),
            (stranger.put(b"k"), 403, "unknown-client"),
            (client.sign(b"\xc1"), 400, "malformed"),
            (client.sign(b"\x95" + good.body[1:] + b"\x91" * 100_000), 400, "malformed"),
            (client.sign(good.body + b"\x00"), 400, "malformed"),
            (client.sign(_body(sequence=0)), 400, "malformed"),
        ]:
            found = await _refused(
                cluster, msgspec.msgpack.encode(envelope), code, reason, envelope
            )
            assert client.checker.refuse(1, found, envelope.sig) is None, reason
        await _refused(cluster, b"\xc1", 400, "malformed", None)
        await _refused(cluster, b"\x95" + b"\x91" * 100_000, 400, "malformed", None)
        await _refused(cluster, b"", 400, "malformed", None)
        await _refused(cluster, bytes(MAX_ENVELOPE_BYTES + 1), 413, "too-large", None)
        replies = await cluster.http.post_all(cluster.places, good)
        assert client.agreed(replies) == (PutResponse(),)


def _body(sequence: int) -> bytes:
    return msgspec.msgpack.encode(EnvelopeBody(1, sequence, 0, ()))


async def _refused(
    cluster: Tasks, body: bytes, code: int, reason: str, envelope: Envelope | None
) -> Rejected:
    place = cluster.places[1]
    metric = f'dwcp_rejected_total{{reason="{reason}"}}'
    before = await cluster.http.metric(place, metric)
    found, answer, _ = await cluster.http.call("POST", f"{place.url}/dwcp/v1/envelopes", body)
    rejected = msgspec.msgpack.decode(answer, type=Rejected)
    assert (found, rejected.reason) == (code, reason), rejected
    assert rejected.request == (ZERO_HASH if envelope is None else envelope.digest())
    assert await cluster.http.metric(place, metric) == before + 1
    return rejected


@in_loop
async def test_an_unanswered_envelope_times_out_and_is_answered_later(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        envelope = client.put(b"k")
        for place in cluster.places[2:]:
            await cluster.stop(place)
        first = cluster.places[0]
        url = f"{first.url}/dwcp/v1/envelopes"
        body = msgspec.msgpack.encode(envelope)
        code, answer, _ = await cluster.http.call("POST", f"{url}?timeout_ms=50", body)
        assert (code, msgspec.json.decode(answer)["error"]) == (504, "timeout")
        for place in cluster.places[2:]:
            cluster.start(place)
        reply = await cluster.http.post(first, envelope, timeout_ms=30_000)
        assert isinstance(reply, Reply)


@in_loop
async def test_timeouts_have_bounds(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        await cluster.bootstrap()
        url = f"{cluster.places[0].url}/dwcp/v1/envelopes?timeout_ms="
        for text in ("0", "-1", "60001", "1e3", "soon", "", "9" * 400):
            code, answer, _ = await cluster.http.call("POST", url + text, b"")
            assert (code, msgspec.json.decode(answer)["error"]) == (400, "timeout")


@in_loop
async def test_other_paths_say_where_to_go(tmp_path: Path) -> None:
    async with Tasks(tmp_path, 1) as cluster:
        (place,) = cluster.places
        http = cluster.http
        await http.eventually(lambda: http.is_up(place), what="up")
        for path in ("/v3/kv/put", "/v3/kv/range", "/v3/", "/v3/auth/authenticate"):
            code, body, _ = await http.call("POST", place.url + path, b"{}")
            error = msgspec.json.decode(body)
            assert (code, error["code"]) == (401, 16)
            assert "dwcp gateway" in error["message"] == error["error"]
        assert await http.metric(place, 'dwcp_rejected_total{reason="etcd-path"}') == 4
        code, body, _ = await http.call("GET", f"{place.url}/nowhere")
        assert (code, msgspec.json.decode(body)["error"]) == (404, "not-found")
        code, body, headers = await http.call("DELETE", f"{place.url}/dwcp/v1/status")
        assert (code, msgspec.json.decode(body)["error"]) == (405, "method-not-allowed")
        assert "GET" in headers["Allow"]
