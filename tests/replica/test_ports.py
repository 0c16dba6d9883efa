"""Ports that are chosen one after the other are different ones, bound or not."""

from __future__ import annotations

from replica.ports import FIRST, LAST, free_port


def test_ports_not_yet_bound_are_not_given_out_twice() -> None:
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == 500
    assert all(FIRST <= port < LAST for port in ports)
