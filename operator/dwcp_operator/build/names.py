"""What everything of one cluster on Kubernetes is called, labelled and owned by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dwcp_operator.resources import API_VERSION, KIND, DWCPCluster

Object = dict[str, Any]
"""A Kubernetes object as it is in JSON."""

MANAGER: Final = "dwcp-operator"
CLUSTER_LABEL: Final = "dwcp.dev/cluster"
CLUSTER_ID_LABEL: Final = "dwcp.dev/cluster-id"
MEMBER_LABEL: Final = "dwcp.dev/member"
CLIENT_PORT: Final = 7420
PEER_PORT: Final = 7421
SERVE_PORT: Final = 7430


@dataclass(frozen=True, slots=True)
class Subject:
    """The cluster that objects are built for; `uid` is the UID that the API server gave it.

    `present` are the members by the newest epoch record, None before there is one; `joining` are
    to become members.
    """

    cluster: DWCPCluster
    uid: str
    present: tuple[str, ...] | None = None
    joining: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the cluster."""
        return self.cluster.metadata.name

    @property
    def namespace(self) -> str:
        """Namespace of the cluster and of everything that is built for it."""
        return self.cluster.metadata.namespace

    @property
    def members(self) -> tuple[str, ...]:
        """The members' names, which are their Pods' names too."""
        return self.cluster.member_names if self.present is None else self.present

    @property
    def everyone(self) -> tuple[str, ...]:
        """Members, and who is to become one."""
        return (*self.members, *self.joining)

    @property
    def cluster_id(self) -> str:
        """32 hex digits: the resource's UID, which is random and given once, or the adopted id.

        Taking the UID means that it can not be made twice, by two operators or after a crash.
        """
        adopt = self.cluster.spec.adopt
        return adopt.cluster_id if adopt is not None else self.uid.replace("-", "")

    # --- names -----------------------------------------------------------------------------

    @property
    def _tag(self) -> str:
        return self.cluster_id[:8]

    @property
    def client_service(self) -> str:
        """The Service whose name clients outside the genesis use: any ready member."""
        return self.name

    @property
    def members_service(self) -> str:
        """The headless Service that gives each member a name."""
        return f"{self.name}-members"

    @property
    def account(self) -> str:
        """The members' ServiceAccount, which may do nothing."""
        return f"{self.name}-member"

    @property
    def admin_secret(self) -> str:
        """Keeps the key that signs the genesis; kept and removed as the volumes are."""
        return f"{self.name}-{self._tag}-admin"

    @property
    def client_keys_secret(self) -> str:
        """Keeps the clients' keys; kept and removed as the volumes are."""
        return f"{self.name}-{self._tag}-clients"

    @property
    def genesis_map(self) -> str:
        """The immutable ConfigMap with the genesis record, made once."""
        return f"{self.name}-{self._tag}-genesis"

    @property
    def dashboard_map(self) -> str:
        """The ConfigMap with the Grafana dashboard."""
        return f"{self.name}-dashboard"

    @property
    def restore_name(self) -> str:
        """The Pod and the Service that serve the backup which the cluster begins from."""
        return f"{self.name}-restore"

    @property
    def restore_url(self) -> str:
        """Where members fetch that backup."""
        return f"http://{self.restore_name}.{self.namespace}.svc:{SERVE_PORT}/backup"

    def client_secret(self, client: str) -> str:
        """What a client's pod mounts: its key and the complete genesis."""
        first = client == self.cluster.spec.clients[0]
        return f"{self.name}-client" if first else f"{self.name}-client-{client}"

    @property
    def gateway_name(self) -> str:
        """The gateways' Deployment, Service and disruption budget."""
        return f"{self.name}-gateway"

    def gateway_secret(self, what: str) -> str:
        """A Secret for the gateways: "ca", "tls", or "client" for their users."""
        return f"{self.gateway_name}-{what}"

    def token_secret(self, member: str) -> str:
        """The member's one-time token."""
        return f"{member}-{self._tag}-token"

    def claim(self, member: str) -> str:
        """The member's PersistentVolumeClaim.

        It carries the cluster's id, so that a new cluster of the same name never finds itself
        on the volumes of an old one: taking those over is asked for by name.
        """
        adopt = self.cluster.spec.adopt
        adopted = {v.member: v.claim for v in adopt.volumes} if adopt is not None else {}
        if member in adopted:
            return adopted[member]
        return f"{member}-{self._tag}"

    def host(self, member: str) -> str:
        """The member's name in cluster DNS, which stays when its Pod's address changes."""
        return f"{member}.{self.members_service}.{self.namespace}.svc"

    @property
    def speaks_tls(self) -> bool:
        """Whether the members' client port speaks TLS."""
        return self.cluster.spec.tls is not None

    @property
    def tls_secret(self) -> str | None:
        """The user's Secret with the certificate of that port, if there is one."""
        tls = self.cluster.spec.tls
        return None if tls is None else tls.secret_name

    def url(self, host: str) -> str:
        """The client API at a name or address."""
        return f"{'https' if self.speaks_tls else 'http'}://{host}:{CLIENT_PORT}"

    def client_url(self, member: str) -> str:
        """The member's client API, as records name it."""
        return self.url(self.host(member))

    # --- metadata --------------------------------------------------------------------------

    @property
    def selector(self) -> dict[str, str]:
        """Labels that exactly this cluster's Pods have."""
        return {CLUSTER_LABEL: self.name}

    def labels(self, member: str | None = None) -> dict[str, str]:
        """Labels of every object, those that Kubernetes recommends first."""
        labels = {
            "app.kubernetes.io/name": "dwcp",
            "app.kubernetes.io/instance": self.name,
            "app.kubernetes.io/component": "member" if member is not None else "cluster",
            "app.kubernetes.io/part-of": "dwcp",
            "app.kubernetes.io/managed-by": MANAGER,
            CLUSTER_LABEL: self.name,
            CLUSTER_ID_LABEL: self.cluster_id,
        }
        return labels if member is None else {**labels, MEMBER_LABEL: member}

    def owner(self) -> Object:
        """The reference by which Kubernetes removes an object when the resource is deleted."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def metadata(self, name: str, member: str | None = None) -> Object:
        """Metadata of an object that goes with the resource."""
        return {**self.kept_metadata(name, member), "ownerReferences": [self.owner()]}

    def kept_metadata(self, name: str, member: str | None = None) -> Object:
        """Metadata of an object that stays when the resource is deleted."""
        return {"name": name, "namespace": self.namespace, "labels": self.labels(member)}

    def reclaimed_metadata(self, name: str, member: str | None = None) -> Object:
        """Metadata of what follows spec.storage.reclaim: with Delete it goes with the resource."""
        if self.cluster.spec.storage.reclaim == "Delete":
            return self.metadata(name, member)
        return self.kept_metadata(name, member)
