"""Envelopes that can never be executed, whatever the state: why, and what to do instead."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from dwcp.wire.envelope import Envelope, EnvelopeBody
from dwcp.wire.operations import (
    CloseSession,
    EnvelopeFailure,
    Failure,
    MemberOperation,
    OpenSession,
)
from dwcp_replica.store.sessions import ANSWER_DROPPED, RefusalReason


class Refusal(Struct, frozen=True):
    """An envelope that will never be executed; `failure` says why and what to do instead."""

    reason: RefusalReason
    failure: Failure


def malformed(what: str = "the body is not a canonically encoded EnvelopeBody") -> Refusal:
    """The envelope is not what an envelope must be."""
    return Refusal(RefusalReason.MALFORMED, Failure(3, f"{what}: nothing was executed"))


def too_large(what: str) -> Refusal:
    """The envelope holds more than one may."""
    return Refusal(RefusalReason.TOO_LARGE, Failure(3, what))


def answer_dropped(index: int, revision: int) -> EnvelopeFailure:
    """Instead of an answer that is no longer kept."""
    return EnvelopeFailure(
        ANSWER_DROPPED,
        f"the operations were executed at index {index}, and the revision after them was "
        f"{revision}, but the answer is no longer kept: read what you need, and "
        "acknowledge answers as they arrive",
    )


def too_much_work(keys: int) -> Failure:
    """Of an operation that came after too costly ones."""
    return Failure(
        8,
        f"the operations before this one in its envelope looked at more than {keys} keys: it was "
        "not executed; send it by itself",
    )


def executed_too_large(size: int) -> Failure:
    """Of a command whose answer does not fit."""
    return Failure(
        8,
        f"the command was executed, but its answer of {size} bytes does not fit the envelope's: "
        "ask the machine for less, or in an envelope of its own",
    )


def check_shape(envelope: Envelope, body: EnvelopeBody) -> Refusal | None:
    """Rules on sessions, sequence numbers and what may stand together in an envelope."""
    if msgspec.msgpack.encode(body) != envelope.body:
        return malformed()
    opens = sum(isinstance(operation, OpenSession) for operation in body.operations)
    if body.session == 0:
        if opens == len(body.operations) == 1 and body.sequence == body.acked == 0:
            return None
        return malformed("session 0 is for one OpenSession, alone, at sequence 0 and acked 0")
    if opens:
        return malformed("OpenSession stands alone in an envelope with session 0")
    if body.sequence < 1:
        return malformed("sequence numbers start at 1")
    if body.acked >= body.sequence:
        return malformed("acked must be below the envelope's own sequence number")
    if any(isinstance(operation, MemberOperation) for operation in body.operations):
        return malformed("only members report and vote, alone and in no session")
    if any(isinstance(operation, CloseSession) for operation in body.operations[:-1]):
        return malformed("CloseSession must be the last operation of its envelope")
    return None
