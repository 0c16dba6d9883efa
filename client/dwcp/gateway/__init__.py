"""etcd's v3 JSON API over a verifying client: `dwcp gateway`.

A gateway holds a client identity, sends what its users ask for to the replicas, and answers what
enough of them have signed alike. Its users need no keys: whoever reaches it acts as that
client. It belongs next to them, on a loopback or in their pod.

shapes.py   etcd's JSON to operations and back: pure
server.py   HTTP: paths, limits, errors, health, metrics
"""
