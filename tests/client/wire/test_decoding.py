from __future__ import annotations

import msgspec
import pytest

from dwcp.wire.envelope import decode_batch, decode_body, decode_results
from dwcp.wire.peer import decode_message


@pytest.mark.parametrize("decode", [decode_batch, decode_body, decode_results, decode_message])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91" * 100_000 + b"\xc0", b"\x00" * 40])
def test_garbage_is_one_kind_of_error(decode, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(msgspec.DecodeError):
        decode(data)


def test_deep_nesting_in_a_field_that_is_skipped() -> None:
    """Unknown trailing fields are skipped, to a depth that must not matter."""
    deep = b"\x91" * 100_000 + b"\xc0"
    body = b"\x95\x01\x01\x00\x90" + deep
    with pytest.raises(msgspec.DecodeError):
        decode_body(body)
