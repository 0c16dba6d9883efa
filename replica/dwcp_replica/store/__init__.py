"""The replicated state machine: keys with history, client sessions, and a digest of both.

Pure: the same batches in the same order give the same outcomes and the same digest in every
process, on every platform. No clock, no randomness, no I/O; time is the batch's agreed stamp.
"""

from dwcp_replica.store.keystore import KeyLimits, KeyStore
from dwcp_replica.store.refusals import Refusal
from dwcp_replica.store.sessions import RefusalReason, SessionLimits, Sessions
from dwcp_replica.store.store import Outcome, Store, StoreLimits

__all__ = [
    "KeyLimits",
    "KeyStore",
    "Outcome",
    "Refusal",
    "RefusalReason",
    "SessionLimits",
    "Sessions",
    "Store",
    "StoreLimits",
]
