from __future__ import annotations

import random
import socket

import pytest

from dwcp_operator.local import ports


def test_chosen_ports_are_different_free_and_below_the_ephemeral_range() -> None:
    chosen = ports.choose(8)
    assert len(set(chosen)) == 8
    assert all(ports.PORT_MIN <= p < ports.ephemeral_start() for p in chosen)
    assert all(ports.is_free(p) for p in chosen)


def test_a_port_that_somebody_listens_on_is_not_chosen() -> None:
    start = ports.choose(1)[0]
    with socket.socket() as listener:
        # as servers do: old connections of the port may still be in TIME_WAIT
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ports.LOOPBACK, start))
        listener.listen()
        assert not ports.is_free(start)
        assert start not in ports.choose(2, draw=FirstPort(start))
    assert ports.is_free(start)


def test_too_few_ports_are_an_error() -> None:
    with pytest.raises(ports.NoFreePortsError, match="free ports are needed"):
        ports.choose(100_000)


class FirstPort(random.Random):
    """Begins the search at one port."""

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return self.start
