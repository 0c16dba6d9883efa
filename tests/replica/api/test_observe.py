"""Status, evidence, health and metrics of a running cluster."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from dwcp.identity import Ed25519Verifier
from dwcp.wire.envelope import Rejected
from dwcp.wire.peer import Equivocation
from dwcp.wire.records import scope_of
from replica.harness import Place, RawClient, Tasks
from replica.waiting import in_loop


@in_loop
async def test_a_status_is_signed_with_the_callers_nonce(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        await cluster.bootstrap()
        verifier = Ed25519Verifier()
        for number, place in enumerate(cluster.places):
            record = cluster.running[place.name].record
            assert record is not None
            scope = scope_of(record, record)
            key = record.members[number].identity
            for nonce in (b"", b"fresh", bytes(64)):
                url = f"{place.url}/dwcp/v1/status?nonce={nonce.hex()}"
                code, body, headers = await cluster.http.call("GET", url)
                assert code == 200
                signature = base64.b64decode(headers["DWCP-Signature"])
                signed = scope.signing_bytes("status", nonce + body)
                assert verifier.verify(key, signed, signature)
                other = scope.signing_bytes("status", b"other" + body)
                assert not verifier.verify(key, other, signature)
        for bad in ("xyz", "00" * 65):
            url = f"{cluster.places[0].url}/dwcp/v1/status?nonce={bad}"
            code, body, _ = await cluster.http.call("GET", url)
            assert (code, msgspec.json.decode(body)["error"]) == (400, "nonce")


@in_loop
async def test_a_status_says_where_the_replica_stands(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        for n in range(11):
            await cluster.http.post_all(cluster.places, client.put(b"k%d" % n))
        for number, place in enumerate(cluster.places):

            async def is_stable(place: Place = place) -> bool:
                return bool((await cluster.http.status(place))["stableCheckpoint"] == 10)

            await cluster.http.eventually(is_stable, what="the checkpoint at 10")
            status = await cluster.http.status(place)
            expected = {
                "name": place.name, "id": number, "cluster": "test", "namespace": "default",
                "phase": "Running", "reason": None, "ready": True, "mode": "Internet",
                "protocol": "pbft", "epoch": 0, "view": 1, "active": True, "primary": "test-0",
                "role": "backup" if number else "primary", "finalIndex": 12, "appliedIndex": 12,
                "lastIndex": 12, "revision": 12, "checkpointSeq": 10, "pendingRequests": 0,
                "mute": None, "evidence": [],
            }  # fmt: skip
            assert {key: status[key] for key in expected} == expected
            assert len(bytes.fromhex(status["stableState"])) == 32
            peers = {peer["name"]: peer for peer in status["peers"]}
            assert set(peers) == {p.name for p in cluster.places} - {place.name}
            for peer in peers.values():
                assert peer["connected"]
                assert peer["lastContactMs"] < 5000


@in_loop
async def test_the_metrics_of_the_brief_are_there(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        await cluster.http.post_all(cluster.places, client.put(b"k"))
        primary, backup = cluster.places[0], cluster.places[1]
        expected = {
            "dwcp_view": 1, "dwcp_view_active": 1, "dwcp_replica_count": 4, "dwcp_epoch": 0,
            "dwcp_byzantine_tolerance": 1, "dwcp_executed_requests_total": 2,
            "dwcp_pending_requests": 0, "dwcp_final_index": 2, "dwcp_applied_index": 2,
            "dwcp_stable_checkpoint": 0, "dwcp_checkpoint_seq": 0,
            "dwcp_pre_prepare_log_size": 2, "dwcp_ready": 1, "dwcp_muted": 0,
            "dwcp_disk_full": 0, "dwcp_store_revision": 2,
            "dwcp_peers_connected": 3, "dwcp_state_diverged": 0, "dwcp_healthy": 1,
            'dwcp_v3_mode_latency_seconds_count{mode="Internet"}': 2,
            'dwcp_v3_component_operations_total{component="consensus"}': 2,
            'dwcp_v3_component_errors_total{component="consensus"}': 0,
            'dwcp_v3_component_latency_seconds_count{component="consensus"}': 2,
        }  # fmt: skip
        found = {name: await cluster.http.metric(backup, name) for name in expected}
        assert found == expected
        assert await cluster.http.metric(primary, "dwcp_is_primary") == 1
        assert await cluster.http.metric(backup, "dwcp_is_primary") == 0
        assert await cluster.http.metric(backup, "dwcp_wal_fsync_seconds_count") > 0
        code, body, headers = await cluster.http.call("GET", f"{primary.url}/metrics")
        assert code == 200
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"dwcp_prepare_log_size" in body
        assert b"dwcp_commit_log_size" in body


@in_loop
async def test_what_was_refused_is_an_error_of_its_component(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        client = await cluster.bootstrap()
        place = cluster.places[0]
        forged = msgspec.structs.replace(client.put(b"k"), sig=bytes(64))
        answer = await cluster.http.post(place, forged)
        assert isinstance(answer, Rejected)
        name = 'dwcp_v3_component_errors_total{component="consensus"}'
        assert await cluster.http.metric(place, name) == 1


@in_loop
async def test_a_process_that_was_never_started_as_a_member_is_not_healthy(tmp_path: Path) -> None:
    """The predecessor called it healthy, and followers at work unhealthy."""
    async with Tasks(tmp_path) as cluster:
        http, places = cluster.http, cluster.places
        for place in places:
            await http.eventually(lambda p=place: http.is_up(p), what=place.name)
            status = await http.status(place)
            assert (status["healthy"], status["illness"]) == (False, "waiting for the genesis")
            assert await http.metric(place, "dwcp_healthy") == 0
        await cluster.bootstrap()
        for place in places:
            status = await http.status(place)
            assert (status["healthy"], status["illness"]) == (True, None), "idle, and able to"

            async def trusts_all(place: Place = place) -> bool:
                peers = (await http.status(place))["peers"]
                return all(peer["suspicion"] is None and peer["lag"] == 0 for peer in peers)

            await http.eventually(trusts_all, what="nobody suspected")


@in_loop
async def test_who_is_down_is_suspected_with_a_reason(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        await cluster.bootstrap()
        http, (first, *_, last) = cluster.http, cluster.places
        assert await cluster.stop(last) == 0

        async def suspects() -> bool:
            peers = {peer["name"]: peer for peer in (await http.status(first))["peers"]}
            return bool(peers[last.name]["suspicion"] == "silent")

        await http.eventually(suspects, what="suspicion")
        status = await http.status(first)
        assert status["healthy"], "three of four commit"
        assert [p["name"] for p in status["peers"] if p["suspicion"]] == [last.name]
        assert await http.metric(first, f'dwcp_peer_suspected{{peer="{last.name}"}}') == 1


@in_loop
async def test_without_lies_there_is_no_evidence(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        await cluster.bootstrap()
        code, body, _ = await cluster.http.call("GET", f"{cluster.places[0].url}/dwcp/v1/evidence")
        assert (code, body) == (200, b"[]")


@in_loop
async def test_a_proven_lie_is_shown_with_its_proof(tmp_path: Path) -> None:
    """The first primary signs two entries at one place: whoever sees both can prove it."""
    async with Tasks(tmp_path, liars={0: "equivocate"}) as cluster:
        honest = cluster.places[1:]
        genesis = (await cluster.operator.bootstrap(cluster.places)).record
        client = RawClient(genesis, cluster.client)
        replies = await cluster.http.post_all(honest, client.opening())
        client.opened(replies[0])
        replies = await cluster.http.post_all(honest, client.put(b"k"))
        await client.follow(cluster.http, honest[0])  # the lie may have ended the epoch by now
        client.agreed(replies)

        async def is_shown() -> bool:
            return bool((await cluster.http.status(honest[0]))["evidence"])

        await cluster.http.eventually(is_shown, what="the evidence")
        (summary,) = (await cluster.http.status(honest[0]))["evidence"]
        assert (summary["member"], summary["kind"]) == ("test-0", "equivocation")
        _, body, _ = await cluster.http.call("GET", f"{honest[0].url}/dwcp/v1/evidence")
        (view,) = msgspec.json.decode(body)
        assert {key: view[key] for key in summary} == summary
        proof = msgspec.msgpack.decode(base64.b64decode(view["proof"]), type=Equivocation)
        scope, key = scope_of(genesis, genesis), genesis.members[0].identity
        for header in (proof.first, proof.second):
            assert Ed25519Verifier().verify(key, header.signing_bytes(scope), header.sig)
        assert proof.first.hash() != proof.second.hash()
        name = 'dwcp_byzantine_evidence_total{kind="equivocation"}'
        assert await cluster.http.metric(honest[0], name) == 1


@in_loop
async def test_a_member_that_reaches_no_quorum_is_not_ready_and_says_so(tmp_path: Path) -> None:
    async with Tasks(tmp_path) as cluster:
        await cluster.bootstrap()
        http, (first, second, third, last) = cluster.http, cluster.places
        assert await cluster.stop(third) == 0
        await http.all_ready((first, second, last))
        assert await cluster.stop(last) == 0

        async def says() -> bool:
            status = await http.status(first)
            return (
                status["reason"] == "connected to 1 other members; a quorum needs 2"
                and not status["ready"]
                and await http.metric(first, "dwcp_ready") == 0
            )

        await http.eventually(says, what="not ready")
        cluster.start(last)
        await http.all_ready((first, second, last))
