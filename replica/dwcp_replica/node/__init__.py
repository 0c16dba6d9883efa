"""The process of one replica: the one place that owns the event loop.

It joins the core, which acts on nothing, with the disk, the peers and the clients, which
know nothing of the protocol. See `engine` for the order in which things become true.
"""
