"""The bytes that cross the network: operations, envelopes, replies, records, peer messages.

Everything here is pure: structs that say what they hold, and the canonical bytes that
signatures cover. MessagePack by msgspec; tags are spelled out, so that renaming a class
never changes the wire. New fields come last and take defaults.
"""
