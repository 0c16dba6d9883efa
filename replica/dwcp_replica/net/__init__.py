"""How replicas reach each other: TLS 1.3, pinned certificates, signed hellos, bounded queues.

Connections are one-way. A replica sends over those it dialed and receives over those it
accepted, so that each direction is authenticated by the side whose word counts there: the
dialer pins the server's certificate, the server checks the dialer's signature.
"""
