"""The kernel's figures of a real connection over loopback."""

from __future__ import annotations

import socket
import struct

from dwcp_replica.net.tcp_info import parse, sample


def test_a_loopback_connection_has_a_round_trip_and_counts_what_it_sends() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as there,
    ):
        before = sample(client)
        client.sendall(bytes(200_000))
        got = 0
        while got < 200_000:
            got += len(there.recv(65_536))
        after = sample(client)
    assert before is not None
    assert after is not None
    assert 0 < after.rtt_us < 1_000_000
    assert after.sent > before.sent
    assert after.rate_bps > 0


def test_the_fields_stand_where_the_kernel_puts_them() -> None:
    info = bytearray(232)
    info[7] = 1
    struct.pack_into("=I", info, 68, 1234)
    struct.pack_into("=I", info, 100, 5)
    struct.pack_into("=I", info, 156, 700)
    struct.pack_into("=Q", info, 160, 125_000_000)
    found = parse(bytes(info))
    assert found is not None
    assert (found.rtt_us, found.retransmitted, found.sent) == (1234, 5, 700)
    assert (found.rate_bps, found.app_limited) == (10**9, True)


def test_an_older_kernels_shorter_struct_gives_no_sample() -> None:
    assert parse(bytes(104)) is None
