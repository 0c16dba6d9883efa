"""Prometheus metrics of one replica, on a registry of their own.

Labels are enumerated words only: never a key, a client or anything else that users can grow.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from dwcp_replica.api.components import Component, ComponentCollector
from dwcp_replica.api.views import PeerView
from dwcp_replica.core.modes.reach import Link

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_FSYNC_BUCKETS_S: Final = (
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.2, 1.0, 5.0,
)  # fmt: skip
_COMMIT_BUCKETS_S: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0,
)  # fmt: skip


class ReplicaMetrics:
    """Every metric of a replica process. Gauges are set when they are asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.mode = "Internet"
        """The mode that runs."""
        self._make_standing()
        self._make_core()
        self._make_transport()
        self._make_links()
        self._make_clients()
        self._make_process()
        self._make_documents()
        self._make_components()

    def _gauge(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"dwcp_{name}", about, labels, registry=self.registry)

    def _counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"dwcp_{name}", about, labels, registry=self.registry)

    def _make_standing(self) -> None:
        self.epoch = self._gauge("epoch", "Epoch in force.")
        self.view = self._gauge("view", "View of the epoch.")
        self.view_active = self._gauge(
            "view_active", "1 while this replica takes part in its view."
        )
        self.is_primary = self._gauge("is_primary", "1 while this replica leads its view.")
        self.last_index = self._gauge("last_index", "Highest log index held.")
        self.prepared_index = self._gauge("prepared_index", "Highest prepared log index.")
        self.final_index = self._gauge("final_index", "Highest final log index.")
        self.applied_index = self._gauge("applied_index", "Highest executed log index.")
        self.checkpoint_seq = self._gauge(
            "checkpoint_seq", "Newest checkpoint that this replica made, stable or not."
        )
        self.stable_checkpoint = self._gauge("stable_checkpoint", "Highest stable checkpoint.")
        self.pending = self._gauge("pending_requests", "Requests that are not executed yet.")
        self.revision = self._gauge("store_revision", "Revision of the key store.")
        self.pre_prepare_log_size = self._gauge(
            "pre_prepare_log_size", "Log entries above the stable checkpoint."
        )
        self.log_base = self._gauge("log_base_index", "Entries up to here are cut from memory.")
        self.log_bytes = self._gauge("log_bytes", "Bytes of log on disk.")
        self.saved_index = self._gauge("state_saved_index", "A restart finds the state here.")
        self.snapshot_index = self._gauge("snapshot_index", "Where the newest snapshot stands.")
        self.transfer_index = self._gauge(
            "state_transfer_index", "Checkpoint whose state is being fetched; 0 for none."
        )
        self.transfer_left = self._gauge(
            "state_transfer_left", "Parts of it that are known to be missing."
        )
        self.prepare_log_size = self._gauge("prepare_log_size", "Prepare votes held.")
        self.commit_log_size = self._gauge("commit_log_size", "Commit votes held.")
        self.replica_count = self._gauge("replica_count", "Members of the epoch.")
        self.tolerance = self._gauge("byzantine_tolerance", "Members that may lie (f).")
        self.peers_connected = self._gauge("peers_connected", "Members that this one can send to.")

    def _make_core(self) -> None:
        self.executed = self._counter("executed_requests", "Requests executed since the start.")
        self.view_changes = self._counter(
            "view_changes", "Views this replica asked for, by reason.", ("reason",)
        )
        self.stepped_down = self._counter(
            "leader_stepped_down", "Raft terms this replica gave up leading: no quorum followed."
        )
        self.panics = self._counter(
            "panics",
            "Raft terms in which this replica wanted PBFT instead, by reason.",
            ("reason",),
        )
        self.evidence = self._counter(
            "byzantine_evidence", "Proofs against members found or received.", ("kind",)
        )
        self.messages_refused = self._counter(
            "messages_refused", "Peer messages that changed nothing.", ("kind", "reason")
        )
        self.state_diverged = self._gauge(
            "state_diverged", "1 when the state differs from a stable checkpoint."
        )
        self.transfers = self._counter(
            "state_transfers", "States that had to be fetched from others.", ("reason",)
        )
        self.transfer_bytes = self._counter(
            "state_transfer_received_bytes", "Bytes of state taken from others."
        )
        self.state_lies = self._counter(
            "state_source_lies", "Parts of a state that were not the certified ones.", ("member",)
        )
        self.halted = self._gauge("halted", "1 when the engine stopped for safety.")

    def _make_transport(self) -> None:
        self.peer_refused = self._counter(
            "peer_frames_refused", "Incoming peer connections and frames refused.", ("reason",)
        )
        self.peer_failures = self._counter(
            "peer_dials_failed", "Connections to peers not made or lost.", ("reason",)
        )
        self.peer_dropped = self._counter(
            "peer_frames_dropped", "Outgoing peer frames dropped, oldest first: queue full."
        )

    def _make_links(self) -> None:
        self._links = {
            "rtt_us": self._gauge("link_rtt_seconds", "Round trip to a member.", ("peer",)),
            "jitter_us": self._gauge("link_jitter_seconds", "Its mean change.", ("peer",)),
            "loss": self._gauge("link_loss_ratio", "Share of segments sent again.", ("peer",)),
            "rate_bps": self._gauge("link_rate_bits_per_second", "Achieved rate.", ("peer",)),
        }
        self._peers = {
            "last_contact_ms": self._gauge(
                "peer_silence_seconds", "Since a member was heard last.", ("peer",)
            ),
            "lag": self._gauge("peer_lag", "Final entries that a member lacks.", ("peer",)),
            "view": self._gauge("peer_view", "The view that a member says.", ("peer",)),
        }
        self._suspected = self._gauge(
            "peer_suspected",
            "1 while something speaks against a member; see the status.",
            ("peer",),
        )
        self.mode_latency = Histogram(
            "dwcp_v3_mode_latency_seconds",
            "From an envelope's arrival here until it was executed here, by the mode that runs.",
            ("mode",),
            buckets=_COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self.reports = self._counter("network_reports", "Reports of its network sent to the log.")
        self.placements = self._counter(
            "leader_placements", "Times this leader handed over to a better placed one."
        )
        self.mode_switches = self._counter(
            "v3_mode_switches",
            "Changes of the mode that runs.",
            ("node_id", "from_mode", "to_mode"),
        )

    def show_link(self, peer: str, link: Link) -> None:
        """Set the gauges of one link; what is not known is absent."""
        for name, gauge in self._links.items():
            value = getattr(link, name)
            if value is not None:
                gauge.labels(peer).set(value / 1e6 if name.endswith("_us") else value)
            else:
                gauge.remove(peer)

    def show_peer(self, peer: PeerView) -> None:
        """Set the gauges of one other member; what is not known is absent."""
        for name, gauge in self._peers.items():
            value = getattr(peer, name)
            if value is not None:
                gauge.labels(peer.name).set(value / 1e3 if name.endswith("_ms") else value)
            else:
                gauge.remove(peer.name)
        self._suspected.labels(peer.name).set(peer.suspicion is not None)

    def _make_components(self) -> None:
        """The brief's view of the same counts: by component."""
        self.registry.register(
            ComponentCollector(
                Component("consensus", self.commit_seconds, (self.rejected, self.busy)),
                Component("sync", self.sync_latency_seconds, (self.document_refused,)),
                Component("log", self.fsync_seconds, (self.wal_damage,)),
            )
        )

    def _make_clients(self) -> None:
        self.rejected = self._counter(
            "rejected", "Client requests refused, by reason; they changed nothing.", ("reason",)
        )
        self.busy = self._counter("busy", "Envelopes turned away because the queue was full.")
        self.queries = self._counter("queries", "Reads beside the log, by what they got.", ("got",))
        self.connections = self._gauge("client_connections", "Open client WebSockets.")
        self.commit_seconds = Histogram(
            "dwcp_commit_seconds",
            "From an envelope's arrival here until it was executed here.",
            buckets=_COMMIT_BUCKETS_S,
            registry=self.registry,
        )

        self.phase_seconds = Histogram(
            "dwcp_phase_seconds",
            "From an entry's acceptance to its first certificate, and from there to final.",
            ("phase",),
            buckets=_COMMIT_BUCKETS_S,
            registry=self.registry,
        )

    def _make_process(self) -> None:
        self.ready = self._gauge("ready", "1 while this replica votes.")
        self.healthy = self._gauge(
            "healthy", "1 while this replica commits, or is idle and able to; see the status."
        )
        self.muted = self._gauge("muted", "1 while this replica signs nothing; see the status.")
        self.disk_full = self._gauge("disk_full", "1 while there is no room for the log.")
        self.start_refused = self._gauge(
            "start_refused", "1 when the data directory can not be used.", ("reason",)
        )
        self.directory_refusals = self._gauge(
            "data_directory_refusals", "Processes refused this replica's directory since its start."
        )
        self.wal_damage = self._counter("wal_damage", "Damage found in the log.", ("kind",))
        self.fsync_seconds = Histogram(
            "dwcp_wal_fsync_seconds",
            "Writing and syncing one group of records.",
            buckets=_FSYNC_BUCKETS_S,
            registry=self.registry,
        )
        self.group_records = Histogram(
            "dwcp_wal_group_records",
            "Records that shared one sync.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 1024),
            registry=self.registry,
        )

    def _make_documents(self) -> None:
        self.sync_mode = self._gauge(
            "sync_mode", "1 for the way in which documents travel now.", ("mode",)
        )
        self.sync_count = self._counter("sync_count", "Times a document became level with a peer.")
        self.last_sync_time = self._gauge(
            "last_sync_time", "When that was last, in seconds since 1970."
        )
        self.avg_sync_latency = self._gauge(
            "avg_sync_latency", "Mean seconds from the first sign of a difference until level."
        )
        self.sync_latency_seconds = Histogram(
            "dwcp_sync_latency_seconds",
            "From the first sign that a peer has another version until both were level.",
            buckets=_COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self.conflict_count = self._gauge(
            "conflict_count", "Conflicts that were shown to somebody here, each once."
        )
        self.documents = self._gauge("documents", "Documents held.")
        self.document_operations = self._counter(
            "document_operations", "Operations on documents applied since the start."
        )
        self.document_refused = self._counter(
            "document_operations_refused", "Operations that changed nothing.", ("reason",)
        )
        self.document_damage = self._counter(
            "document_damage", "Damaged rows of the documents' file, left out."
        )
        self.document_collected = self._counter(
            "document_collected", "Documents whose old edits were forgotten, each time."
        )
        self.document_stranded = self._counter(
            "document_stranded", "Operations that an agreed frontier left no place for here."
        )
        self.gossip_dropped = self._counter(
            "gossip_dropped", "Messages about documents dropped: too much of one peer waited."
        )
        self._sync_seconds = 0.0
        self._syncs = 0

    def committed(self, latency_s: float) -> None:
        """An envelope that came in here was executed here, so many seconds later."""
        self.commit_seconds.observe(latency_s)
        self.mode_latency.labels(self.mode).observe(latency_s)

    def synced(self, latency_s: float) -> None:
        """A document became level with a peer."""
        self.sync_count.inc()
        self.last_sync_time.set_to_current_time()
        self.sync_latency_seconds.observe(latency_s)
        self._sync_seconds += latency_s
        self._syncs += 1
        self.avg_sync_latency.set(self._sync_seconds / self._syncs)

    # --- what the peer transport reports (net.counters.PeerCounters) -------------------------

    def frame_refused(self, reason: str) -> None:
        """An incoming peer connection or frame was refused."""
        self.peer_refused.labels(reason).inc()

    def dial_failed(self, reason: str) -> None:
        """A connection to a peer could not be made or was lost."""
        self.peer_failures.labels(reason).inc()

    def frames_dropped(self, count: int) -> None:
        """Outgoing frames were dropped."""
        self.peer_dropped.inc(count)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
