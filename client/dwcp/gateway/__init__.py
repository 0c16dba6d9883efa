"""etcd's v3 API, JSON and gRPC, over a verifying client: `dwcp gateway`.

A gateway holds a client identity, sends what its users ask for to the replicas, and answers what
enough of them have signed alike. Its users need no keys: whoever reaches it acts as that
client. It belongs next to them, on a loopback or in their pod.

proto/       etcd's messages, and what the protobuf compiler makes of them
shapes.py    etcd's JSON to operations and back: pure
messages.py  etcd's messages to operations and back: pure
desk.py      one operation's answer, headers, errors by code
keys.py, watches.py, locks.py, upkeep.py, users.py   etcd's services
snapshot.py, bolt.py   a snapshot that etcd can restore
services.py  which function answers which method, and under which path
rpc.py       gRPC
server.py    HTTP: limits, errors, health, metrics
"""
