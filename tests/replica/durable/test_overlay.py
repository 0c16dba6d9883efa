from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dwcp_replica.durable.overlay import Overlay

KEYS = st.binary(max_size=2)
STEPS = st.lists(st.tuples(st.sampled_from(["set", "drop", "scan"]), KEYS, KEYS), max_size=60)


@given(STEPS)
def test_the_order_is_that_of_the_keys_whenever_it_is_asked_for(
    steps: list[tuple[str, bytes, bytes]],
) -> None:
    overlay, held = Overlay(), dict[bytes, bytes | None]()
    for what, one, other in steps:
        if what == "set":
            overlay.set(one, other or None)
            held[one] = other or None
        elif what == "drop":
            gone = [key for key in held if key < one]
            overlay.drop(gone)
            for key in gone:
                del held[key]
        else:
            low, high = sorted((one, other))
            within = sorted(key for key in held if low <= key < high)
            assert list(overlay.keys(low, high, reverse=False)) == within
            assert list(overlay.keys(low, None, reverse=True)) == sorted(
                (key for key in held if key >= low), reverse=True
            )
    assert overlay.values == held
