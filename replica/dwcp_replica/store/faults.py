"""The refusals of etcd, word for word where etcd has them, and a few of our own."""

from __future__ import annotations

from typing import Final

from dwcp.wire.operations import MAX_KEY_BYTES, Failure

KEY_NOT_PROVIDED: Final = Failure(3, "etcdserver: key is not provided")
KEY_NOT_FOUND: Final = Failure(3, "etcdserver: key not found")
VALUE_PROVIDED: Final = Failure(3, "etcdserver: value is provided")
LEASE_PROVIDED: Final = Failure(3, "etcdserver: lease is provided")
TOO_MANY_OPERATIONS: Final = Failure(3, "etcdserver: too many operations in txn request")
DUPLICATE_KEY: Final = Failure(3, "etcdserver: duplicate key given in txn request")
PERMISSION_DENIED: Final = Failure(7, "etcdserver: permission denied")
LEASE_NOT_FOUND: Final = Failure(5, "etcdserver: requested lease not found")
NO_SPACE: Final = Failure(8, "etcdserver: mvcc: database space exceeded")
LEASE_EXISTS: Final = Failure(9, "etcdserver: lease already exists")
COMPACTED: Final = Failure(11, "etcdserver: mvcc: required revision has been compacted")
FUTURE_REVISION: Final = Failure(11, "etcdserver: mvcc: required revision is a future revision")
TTL_TOO_LARGE: Final = Failure(11, "etcdserver: too large lease TTL")
CORRUPT: Final = Failure(15, "etcdserver: corrupt cluster")
KEY_TOO_LONG: Final = Failure(3, f"a key has at most {MAX_KEY_BYTES} bytes: use a shorter one")


def too_large(answer_bytes_max: int) -> Failure:
    """The answer would not fit; nothing was changed."""
    return Failure(
        8,
        f"the answer is larger than {answer_bytes_max} bytes allow: "
        "ask for less with limit, keys_only or a narrower range, or in an envelope of its own",
    )


def too_many_leases(leases_max: int) -> Failure:
    """No more leases."""
    return Failure(
        8, f"there are {leases_max} leases, the most allowed: revoke some, or share one among keys"
    )
