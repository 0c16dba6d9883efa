"""What a replica offers over HTTP on its client port; everything that matters is signed.

GET  /healthz                  the event loop progresses
GET  /readyz                   this replica votes, or 503 with the reason
GET  /metrics                  Prometheus text
GET  /dwcp/v1/identity         key, certificate, proof of possession, MAC
GET  /dwcp/v1/genesis          the complete genesis, or 404 while waiting for it
PUT  /dwcp/v1/genesis          offers a genesis to a waiting replica
POST /dwcp/v1/envelopes        one signed envelope in, one signed reply out
GET  /dwcp/v1/connect          WebSocket: envelopes in, replies out
GET  /dwcp/v1/status           where the replica stands, signed with the caller's nonce
GET  /dwcp/v1/evidence         proofs against members
*    /v3/...                   401: etcd's API is the gateway's
"""
