"""Serve the methods of gRPC services on a unix socket, by grpclib: one object, one coroutine a method.

A method takes the request and answers with a message, or with one that is encoded already; where the answer is a stream, it
yields. `CallError` becomes the status it names; any other error of `pullonce.errors` is UNAVAILABLE with its message; a defect
is INTERNAL, with the traceback in the log.
"""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Handler as Connected
from grpclib.server import Server, Stream
from h2.settings import SettingCodes

from pullonce.errors import PullonceError
from services.gateway.rpc.sockets import listening

log = logging.getLogger(__name__)

Watch = Callable[[str, Message, float, str], None]
"""Told of each call that has ended: method, request, seconds, and the name of its status."""

metadata: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar("metadata", default={})  # noqa: B039
"""What came with the call that is being answered, beside its message."""

_STREAMS = 100_000
"""Calls of one connection at a time. A client such as containerd has one connection for all; with the 100 that HTTP/2 libraries
allow, as many waits for pulls would keep everything else from being asked."""
_DRAIN = 5.0
"""Seconds that running calls have to end when the service stops."""


class CallError(Exception):
    """A call fails with a status that its caller knows what to do with."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def _ignore(method: str, request: Message, seconds: float, status: str) -> None:
    pass


@asynccontextmanager
async def serving(
    services: Sequence[ServiceDescriptor], methods: object, path: Path, *, watch: Watch = _ignore
) -> AsyncIterator[None]:
    """Answer the calls of some services on a socket that only this user may open, for as long as the block lasts.

    Args:
        methods: has a coroutine for each method, under its name.

    Raises:
        SocketTaken, SocketUnusable: the socket cannot be had.
    """
    server = _Server([_Service(each, methods, watch) for each in services], codec=_Codec())
    with listening(path) as socket:
        await server.start(sock=socket)
        try:
            yield
        finally:
            await ended(server, path)


async def ended(server: Server, path: Path) -> None:
    """Stop a server; calls that are running have a moment to end."""
    server.close()
    try:
        async with asyncio.timeout(_DRAIN):
            await server.wait_closed()
    except TimeoutError:
        log.warning("calls were still running when the service stopped", extra={"socket": str(path)})


class _Service:
    """What grpclib wants of a service: a table from path to handler."""

    def __init__(self, service: ServiceDescriptor, methods: object, watch: Watch) -> None:
        self._service = service
        self._methods = methods
        self._watch = watch

    def __mapping__(self) -> dict[str, Handler]:
        return {f"/{self._service.full_name}/{each.name}": self._handler(each) for each in self._service.methods}

    def _handler(self, method: MethodDescriptor) -> Handler:
        carry_out = getattr(self._methods, method.name)
        streams = method.server_streaming
        shape = Cardinality.UNARY_STREAM if streams else Cardinality.UNARY_UNARY

        async def call(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            if request is None:
                raise GRPCError(Status.INVALID_ARGUMENT, f"{method.name} was called without a message")
            metadata.set(stream.metadata or {})
            began, status = asyncio.get_running_loop().time(), Status.CANCELLED
            try:
                await _answer(stream, carry_out(request), streams=streams)
                status = Status.OK
            except GRPCError as exc:
                status = exc.status
                raise
            except Exception as exc:
                failure = _failure(method.name, exc)
                status = failure.status
                raise failure from exc
            finally:
                self._watch(method.name, request, asyncio.get_running_loop().time() - began, status.name)

        return Handler(call, shape, GetMessageClass(method.input_type), GetMessageClass(method.output_type))


async def _answer(
    stream: Stream[Any, Any], answer: Awaitable[Message | bytes] | AsyncIterator[Message | bytes], *, streams: bool
) -> None:
    if not streams:
        assert isinstance(answer, Awaitable)
        await stream.send_message(await answer)
        return
    assert isinstance(answer, AsyncIterator)
    async for message in answer:
        await stream.send_message(message)


def _failure(method: str, error: Exception) -> GRPCError:
    """The status of an error, as the caller sees it."""
    if isinstance(error, CallError):
        return GRPCError(error.status, str(error))
    if isinstance(error, PullonceError):
        return GRPCError(Status.UNAVAILABLE, f"pullonce: {error}")
    log.exception("a defect in %s", method)
    return GRPCError(Status.INTERNAL, f"pullonce: a defect in {method}: {type(error).__name__}; its log has the details")


class _Methods(dict[str, Handler]):
    """A table from path to handler that has one for every path: grpclib's own refusal lacks headers that Go's clients want."""

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path) or Handler(partial(_refuse, path), Cardinality.UNARY_UNARY, bytes, bytes)


async def _refuse(path: str, stream: Stream[Any, Any]) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, f"pullonce: {path} is not served here")


class _Codec(ProtoCodec):
    """Messages, or what is encoded already."""

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else super().encode(message, message_type)


class _Server(Server):
    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        assert isinstance(made.handler, Connected)
        made.handler.mapping = _Methods(made.handler.mapping)
        return ManyStreams(made.handler, made.config, made.h2_config)


class ManyStreams(H2Protocol):
    """A connection that allows many calls at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connection._connection.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS})
        self.connection.flush()
