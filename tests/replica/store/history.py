"""A fixed history; run as a module, the digest of the state that it ends in."""

from __future__ import annotations

from dwcp.wire.operations import (
    CloseSession,
    CompactionRequest,
    Compare,
    DeleteRangeRequest,
    LeaseGrantRequest,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from replica.store.driver import BOB, Driver, envelope

PUT = PutRequest(b"k", b"v")


def scenario(driver: Driver) -> None:
    """A little of everything that changes state."""
    alice, bob = driver.open(), driver.open(BOB)
    for i in range(1, 90):
        driver.one(
            envelope(alice, i, PutRequest(b"k%d" % (i % 7), b"v%d" % i), acked=max(0, i - 5))
        )
    driver.apply(
        envelope(bob, 2, RangeRequest(b"\0", b"\0"), signer=BOB),
        envelope(bob, 1, DeleteRangeRequest(b"k1", b"k3", prev_kv=True), signer=BOB),
        envelope(bob, 1, PUT, signer=BOB),
    )
    driver.one(envelope(alice, 90, LeaseGrantRequest(ttl=5), LeaseGrantRequest(7, id=-1), acked=85))
    leased = PutRequest(b"leased", b"v", lease=-1)
    kept = TxnRequest((Compare(b"k6", "VALUE", "EQUAL", value=b"v83"),), (leased,), (PUT,))
    driver.one(envelope(alice, 91, kept, CompactionRequest(40), acked=86))
    driver.stamp_ms += 6000
    driver.apply()
    driver.one(envelope(bob, 3, CloseSession(), signer=BOB))


if __name__ == "__main__":
    driver = Driver()
    scenario(driver)
    print(driver.store.digest().hex())
