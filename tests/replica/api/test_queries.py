"""Reads beside the log, against real replicas."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from dwcp.client import Client
from dwcp.identity import Ed25519Signer
from dwcp.wire.envelope import Busy, Rejected, Reply, decode_results
from dwcp.wire.operations import Failure, RangeRequest, RangeResponse
from dwcp.wire.query import MAX_QUERY_BYTES, QueryBody, QueryReply
from replica.harness import QUICK, RawClient, Tasks
from replica.waiting import in_loop

READ = RangeRequest(b"k")
FAST = msgspec.structs.replace(QUICK, fast_reads=True)


@in_loop
async def test_each_replica_answers_from_its_own_state_without_the_log(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        await cluster.http.post_all(cluster.places, client.put(b"k", b"v"))
        before = await cluster.http.status(cluster.places[0])
        for place in cluster.places[1:]:
            await cluster.stop(place)  # nothing can be agreed on now
        query = client.query(READ, RangeRequest(b"none"))
        reply = await cluster.http.post(cluster.places[0], query)
        assert isinstance(reply, QueryReply)
        assert client.checker.refuse(0, reply, query.sig) is None
        assert (reply.request, reply.revision) == (query.digest(), before["revision"])
        found, none = decode_results(reply.results)
        assert isinstance(found, RangeResponse)
        assert [kv.value for kv in found.kvs] == [b"v"]
        assert none == RangeResponse()
        status = await cluster.http.status(cluster.places[0])
        assert status["lastIndex"] == before["lastIndex"]
        answered = 'dwcp_queries_total{got="answered"}'
        assert await cluster.http.metric(cluster.places[0], answered) == 1


@in_loop
async def test_bad_queries_are_refused_with_a_signed_reason(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        record = cluster.running[cluster.places[0].name].record
        assert record is not None
        stranger = RawClient(record, Ed25519Signer.generate())
        good = client.query(READ)
        place = cluster.places[1]
        for query, reason in [
            (msgspec.structs.replace(good, sig=bytes(64)), "signature"),
            (stranger.query(READ), "unknown-client"),
            (client.sign_query(b"\xc1"), "malformed"),
            (client.sign_query(b"\x92" + b"\x91" * 100_000), "malformed"),
            (client.query(), "too-large"),
            (client.query(*[READ] * 5000), "too-large"),
            (client.query(RangeRequest(bytes(MAX_QUERY_BYTES))), "too-large"),
            # a write can not be signed as a read
            (client.sign_query(client.put(b"k").body), "malformed"),
        ]:
            metric = f'dwcp_rejected_total{{reason="{reason}"}}'
            before = await cluster.http.metric(place, metric)
            answer = await cluster.http.post(place, query)
            assert isinstance(answer, Rejected), reason
            assert answer.reason == reason, answer
            assert client.checker.refuse(1, answer, query.sig) is None
            assert await cluster.http.metric(place, metric) == before + 1
        # nor does the signature on an envelope do for a query, or the other way round
        body = msgspec.msgpack.encode(QueryBody(bytes(16), (READ,)))
        crossed = msgspec.structs.replace(good, body=body, sig=client.sign(body).sig)
        answer = await cluster.http.post(place, crossed)
        assert isinstance(answer, Rejected)
        assert answer.reason == "signature"


@in_loop
async def test_limits_are_those_of_ordered_reads(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        for n in range(9):
            await cluster.http.post(cluster.places[0], client.put(b"k%d" % n, bytes(1_000_000)))
        everything = RangeRequest(b"\0", b"\0")
        reply = await cluster.http.post(cluster.places[0], client.query(everything))
        assert isinstance(reply, QueryReply)
        (failure,) = decode_results(reply.results)
        assert isinstance(failure, Failure)
        ordered = await cluster.http.post(cluster.places[0], client.envelope(everything))
        assert isinstance(ordered, Reply)
        assert decode_results(ordered.results) == (failure,)


@in_loop
async def test_a_client_reads_beside_the_log_and_one_liar_does_not_matter(tmp_path: Path) -> None:
    async with Tasks(tmp_path, liars={2: "wrong-replies"}) as cluster:
        genesis = await cluster.operator.bootstrap(cluster.places, FAST)
        async with Client.connect(genesis, cluster.client) as client:
            for n in range(30):
                await client.put("k", str(n))
                found = await client.get("k")
                assert found is not None
                assert found.value == str(n).encode()
            await asyncio.gather(*(client.get("k") for _ in range(100)))
            assert client.reads["fast"] > 100, dict(client.reads)
            old = await client.get("k", serializable=True)
            assert old is not None
            assert client.reads["serializable"] == 1
            assert list(client.liars) == [cluster.places[2].name]


@in_loop
async def test_after_a_restart_a_replica_waits_until_it_is_as_far_as_it_was(tmp_path: Path) -> None:
    """What it has executed stood in its log, durably; that it was final may not have."""
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        await cluster.http.post_all(cluster.places, client.put(b"k", b"v"))
        await cluster.http.post_all(cluster.places, client.put(b"k", b"w"))
        for place in cluster.places:
            await cluster.stop(place)
        alone = cluster.places[3]
        cluster.start(alone)
        await cluster.http.eventually(lambda: cluster.http.is_up(alone), what="up")
        process = cluster.running[alone.name]
        await cluster.http.eventually(lambda: _runs(process), what="running")
        running = process.running
        assert running is not None
        query = client.query(READ)
        answer = await cluster.http.post(alone, query)
        behind = running.store.applied_index < running.engine.standing.last
        assert isinstance(answer, Busy if behind else QueryReply)
        for place in cluster.places[:3]:
            cluster.start(place)
        await cluster.http.all_ready(cluster.places)
        await cluster.http.post_all(cluster.places, client.put(b"k2"))
        reply = await cluster.http.post(alone, client.query(READ))
        assert isinstance(reply, QueryReply)
        assert b"w" in reply.results


async def _runs(process: object) -> bool:
    return getattr(process, "running", None) is not None
