"""gRPC for the gateway: etcd's services under etcd's names, so that its clients work unchanged.

Messages are decoded here rather than by the library, so that what is none is the caller's
mistake (INVALID_ARGUMENT) and counted, not an internal error.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from dwcp.certificates import Renewed, TlsFiles
from dwcp.gateway.desk import Desk, code_of
from dwcp.gateway.metrics import GatewayMetrics
from dwcp.gateway.services import METHODS, STREAMS, UNARY, Method, Stream, Unary
from dwcp.gateway.shapes import ShapeError

REQUEST_BYTES_MAX: Final = 2 * 1024 * 1024
"""etcd's: 1.5 MiB and what is around them."""
SHUTDOWN_S: Final = 2.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    # etcd's clients ask every few seconds whether the server lives
    ("grpc.http2.min_ping_interval_without_data_ms", 1000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
)
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class RpcServer:
    """Serves the desk over gRPC."""

    def __init__(self, desk: Desk, metrics: GatewayMetrics) -> None:
        self._desk = desk
        self._metrics = metrics
        self._server = grpc.aio.server(options=_OPTIONS)
        handlers: dict[str, dict[str, Any]] = {}
        for method in METHODS.values():
            _, service, name = method.path.split("/")
            handlers.setdefault(service, {})[name] = self._handler(method)
        for service, those in handlers.items():
            generic = grpc.method_handlers_generic_handler(service, those)
            self._server.add_generic_rpc_handlers((generic,))

    async def start(self, host: str, port: int, files: TlsFiles | None = None) -> int:
        """Listen, with TLS where there are files; the port, which is a free one for 0.

        Raises OSError, also when the files can not be used.
        """
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if files is None:
                bound: int = self._server.add_insecure_port(where)
            else:
                bound = self._server.add_secure_port(where, _credentials(files))
        except RuntimeError as error:
            raise OSError(0, str(error)) from None
        await self._server.start()
        return bound

    async def stop(self) -> None:
        """End: calls under way have a moment."""
        await self._server.stop(SHUTDOWN_S)

    def _handler(self, method: Method) -> Any:
        if method.name in UNARY:
            call = self._unary(method, UNARY[method.name][0])
            return grpc.unary_unary_rpc_method_handler(call)
        stream = STREAMS[method.name][0]
        if method.client_streams:
            return grpc.stream_stream_rpc_method_handler(self._stream(method, stream))
        return grpc.unary_stream_rpc_method_handler(self._answers(method, stream))

    def _unary(self, method: Method, function: Unary) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def call(data: bytes, context: Any) -> bytes:
            began_s = time.monotonic()
            code = 0
            try:
                answer = await function(self._desk, decode(method, data))
                return answer.SerializeToString()
            except Exception as error:
                failure = code_of(error)
                code = 13 if failure is None else failure[0]
                if failure is None:
                    raise
                return await context.abort(_CODES[code], failure[1])  # type: ignore[no-any-return]
            finally:
                self._metrics.answered(method.path, f"grpc-{code}", began_s)

        return call

    def _stream(self, method: Method, function: Stream) -> Any:
        async def call(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async def decoded() -> AsyncIterator[Message]:
                async for data in requests:
                    yield decode(method, data)

            async with aclosing(self._guarded(method, function, decoded(), context)) as answers:
                async for answer in answers:
                    yield answer

        return call

    def _answers(self, method: Method, function: Stream) -> Any:
        async def call(data: bytes, context: Any) -> AsyncIterator[bytes]:
            async def decoded() -> AsyncIterator[Message]:
                yield decode(method, data)

            async with aclosing(self._guarded(method, function, decoded(), context)) as answers:
                async for answer in answers:
                    yield answer

        return call

    async def _guarded(
        self, method: Method, function: Stream, requests: AsyncIterator[Message], context: Any
    ) -> AsyncGenerator[bytes, None]:
        began_s = time.monotonic()
        code = 0
        try:
            async with aclosing(function(self._desk, requests)) as answers:
                async for answer in answers:
                    yield answer.SerializeToString()
        except Exception as error:
            failure = code_of(error)
            code = 13 if failure is None else failure[0]
            if failure is None:
                raise
            await context.abort(_CODES[code], failure[1])
        finally:
            self._metrics.answered(method.path, f"grpc-{code}", began_s)


def _credentials(files: TlsFiles) -> Any:
    """What the gRPC port shows: asked for at each handshake, from a thread of the library's."""
    renewed = Renewed(files)

    def newer() -> Any:
        return _configuration(files) if renewed.look() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(files), newer, require_client_authentication=files.authority is not None
    )


def _configuration(files: TlsFiles) -> Any:
    authority = None if files.authority is None else files.authority.read_bytes()
    pair = (files.key.read_bytes(), files.certificate.read_bytes())
    return grpc.ssl_server_certificate_configuration([pair], authority)


def decode(method: Method, data: bytes) -> Message:
    """A request. Raises ShapeError."""
    try:
        return method.request.FromString(data)
    except DecodeError as error:
        raise ShapeError(f"the message is no {method.request.__name__}: {error}") from None
