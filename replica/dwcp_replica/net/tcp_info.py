"""What Linux says of a TCP connection: getsockopt(TCP_INFO), struct tcp_info of linux/tcp.h.

The struct has only ever grown at its end, so that an offset holds for every later kernel. An
older one that gives fewer bytes gives no sample.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Protocol

from dwcp_replica.core.modes.meter import TcpSample

_BYTES_MIN: Final = 168
_FLAGS_AT: Final = 7
_RTT_AT: Final = 68
_TOTAL_RETRANS_AT: Final = 100
_DATA_SEGS_OUT_AT: Final = 156
_DELIVERY_RATE_AT: Final = 160
_BITS: Final = 8


class HasOptions(Protocol):
    """A socket, or what an event loop's transport shows of it."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """See socket.socket."""
        ...


def sample(connection: HasOptions) -> TcpSample | None:
    """The kernel's figures, or None where this system has none. Raises OSError when closed."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None:
        return None
    info = connection.getsockopt(socket.IPPROTO_TCP, option, 256)
    return parse(info)


def parse(info: bytes) -> TcpSample | None:
    """Read a struct tcp_info; None when it is too short to hold what is needed."""
    if len(info) < _BYTES_MIN:
        return None
    (rtt_us,) = struct.unpack_from("=I", info, _RTT_AT)
    (retransmitted,) = struct.unpack_from("=I", info, _TOTAL_RETRANS_AT)
    (sent,) = struct.unpack_from("=I", info, _DATA_SEGS_OUT_AT)
    (rate,) = struct.unpack_from("=Q", info, _DELIVERY_RATE_AT)
    return TcpSample(rtt_us, retransmitted, sent, rate * _BITS, bool(info[_FLAGS_AT] & 1))
