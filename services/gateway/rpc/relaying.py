"""Stand in front of another gRPC server: every call goes through as it is, and some are looked at.

Headers, frames of data and trailers are handed on unread: methods that nobody here knows, streams in either direction,
metadata, deadlines, compression and the details of a status are what the two ends make of them. Only calls for which there is a
`Hook` are read, and those are handed on unchanged too.

Each client has a connection of its own to the server behind: one that does not read what it asked for stops nobody else.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.metadata import Deadline, encode_grpc_message, encode_timeout
from grpclib.protocol import H2Protocol, Stream
from grpclib.server import Handler, Server
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from services.gateway.rpc.framing import PREFIX, Cut, more, read
from services.gateway.rpc.serving import ManyStreams, ended
from services.gateway.rpc.sockets import listening

log = logging.getLogger(__name__)

LONGEST = 16 << 20
"""Bytes of a message that a hook is shown: what kubelet and containerd allow one to have."""

Headers = list[tuple[str, str]]
Look = Callable[[bytes], Awaitable[None]]


async def _pass(message: bytes) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Hook:
    """What is done with the message of a call that has one.

    Attributes:
        before: done before the call is handed on; whatever becomes of it, the call is handed on.
        after: done when the call has succeeded, before its caller learns of that.
    """

    before: Look = _pass
    after: Look = _pass


@asynccontextmanager
async def relaying(path: Path, behind: Path, hooks: Mapping[str, Hook], *, watch: Callable[[str], None]) -> AsyncIterator[None]:
    """Stand in front of the server at `behind` for as long as the block lasts.

    Args:
        path: socket that only this user may open.
        hooks: by method, `/service/Method`.
        watch: told of each call that begins: its method.

    Raises:
        SocketTaken, SocketUnusable: the socket cannot be had.
    """
    server = _Front(_Behind(behind, hooks, watch))
    with listening(path) as socket:
        await server.start(sock=socket)
        try:
            yield
        finally:
            await ended(server, path)


@dataclass(frozen=True, slots=True)
class _Behind:
    """What all clients have in common: where their calls go on to, and who looks at them."""

    path: Path
    hooks: Mapping[str, Hook]
    watch: Callable[[str], None]


class _Front(Server):
    def __init__(self, behind: _Behind) -> None:
        super().__init__([])
        self._behind = behind

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        assert isinstance(made.handler, Handler)
        self._handlers.discard(made.handler)
        client = _Client(made.handler, self._behind)
        self._handlers.add(client)
        return ManyStreams(client, made.config, made.h2_config)


class _Client(Handler):
    """One client's connection, and the one that is made for it."""

    def __init__(self, like: Handler, behind: _Behind) -> None:
        super().__init__(like.mapping, like.codec, like.status_details_codec, like.dispatch)
        self._behind = behind
        self._channel = Channel(path=str(behind.path))

    def accept(self, stream: Stream, headers: Headers, release_stream: Callable[[], Any]) -> None:
        self.__gc_step__()
        self._tasks[stream] = self.loop.create_task(self._call(stream, headers, release_stream))

    def close(self) -> None:
        super().close()
        self._channel.close()

    async def _call(self, stream: Stream, headers: Headers, release: Callable[[], Any]) -> None:
        call = _Call(stream)
        try:
            await self._hand_on(call, headers)
        except OSError as exc:
            await call.fail(Status.UNAVAILABLE, f"pullonce: no runtime answers at {self._behind.path}: {exc.strerror or exc}")
        except _Broken as exc:
            await call.fail(Status.UNAVAILABLE, f"pullonce: the runtime at {self._behind.path} broke off: {exc}")
        except Cut:
            await call.fail(Status.INTERNAL, "pullonce: the call ended in the middle of a message; nothing more is done for it")
        except ProtocolError:
            log.debug("a client left in the middle of a call", exc_info=True)
        except Exception:
            log.exception("a defect in handing on a call")
            await call.fail(Status.INTERNAL, "pullonce: a defect in handing on a call; its log has the details")
        finally:
            release()

    async def _hand_on(self, call: "_Call", headers: Headers) -> None:
        method = dict(headers).get(":path", "")
        self._behind.watch(method)
        hook = self._behind.hooks.get(method)
        message, framed = b"", b""
        if hook is not None:
            arrived = _deadline(headers)
            message, framed = await call.first_message()
            await _look(hook.before, message)
            headers = _due(headers, arrived)
        protocol = await self._channel.__connect__()
        broken: asyncio.Future[BaseException] = self.loop.create_future()
        there = protocol.processor.connection.create_stream(wrapper=_Breaking(broken))
        try:
            release = await there.send_request(headers, _processor=protocol.processor)
        except ProtocolError as exc:
            raise _Broken(str(exc)) from exc
        asking = self.loop.create_task(call.ask(there, framed))
        asking.add_done_callback(lambda _: _tell(broken, asking))
        answering = self.loop.create_task(call.answer(there, hook.after if hook else _pass, message))
        try:
            both: set[asyncio.Future[Any]] = {answering, broken}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and not _answered(there):
                raise broken.result()
            await answering
        finally:
            asking.cancel()
            answering.cancel()
            if there.closable:
                there.reset_nowait(ErrorCodes.CANCEL)
            release()


class _Broken(Exception):
    """The server behind did not end a call as it should."""


class _Breaking(Wrapper):
    """Told when a call behind was broken off."""

    def __init__(self, broken: asyncio.Future[BaseException]) -> None:
        super().__init__()
        self._broken = broken

    def cancel(self, error: Exception) -> None:
        if not self._broken.done():
            self._broken.set_result(_Broken(str(error)))


def _tell(broken: asyncio.Future[BaseException], asking: asyncio.Task[None]) -> None:
    """A question that cannot be handed on to its end gets no answer either."""
    if not asking.cancelled() and (failure := asking.exception()) is not None and not broken.done():
        broken.set_result(failure)


class _Call:
    """One call of a client."""

    def __init__(self, here: Stream) -> None:
        self._here = here
        self._begun = False
        """Whether its answer has begun."""

    async def first_message(self) -> tuple[bytes, bytes]:
        """What a hook is shown, empty where it is compressed or too long; and all that was read of the call."""
        prefix = await read(self._here, PREFIX)
        length = int.from_bytes(prefix[1:])
        if not prefix or prefix[0] or length > LONGEST:
            return b"", prefix
        message = await read(self._here, length)
        if length and not message:
            raise Cut
        return message, prefix + message

    async def ask(self, there: Stream, begun: bytes) -> None:
        """Hand on what the client says, from what was read already to its end."""
        with suppress(ProtocolError):  # the answer is there before the question has ended
            if begun:
                await there.send_data(begun)
            if len(begun) == PREFIX:
                await self._hand_on(there, int.from_bytes(begun[1:]))
            while prefix := await read(self._here, PREFIX):
                await there.send_data(prefix)
                await self._hand_on(there, int.from_bytes(prefix[1:]))
            await there.end()

    async def answer(self, there: Stream, after: Look, message: bytes) -> None:
        """Hand on what the server says.

        Raises:
            _Broken: it ended without a status, or in the middle of a message.
        """
        headers = await there.recv_headers()
        over = "grpc-status" in dict(headers)
        await self._here.send_headers(headers, end_stream=over)
        self._begun = True
        if over:
            return
        try:
            await self._messages(there)
        except Cut:
            raise _Broken("its answer ended in the middle of a message") from None
        if there.trailers is None:
            raise _Broken("its answer has no end")
        if dict(there.trailers).get("grpc-status") == str(Status.OK.value):
            await _look(after, message)
        await self._here.send_headers(there.trailers, end_stream=True)

    async def _messages(self, there: Stream) -> None:
        while prefix := await read(there, PREFIX):
            left = int.from_bytes(prefix[1:])
            piece = await more(there, left)
            await self._here.send_data(prefix + piece)
            left -= len(piece)
            while left:
                piece = await more(there, left)
                await self._here.send_data(piece)
                left -= len(piece)

    async def fail(self, status: Status, message: str) -> None:
        """End the call with a status of our own."""
        head = [] if self._begun else [(":status", "200"), ("content-type", "application/grpc")]
        end = [("grpc-status", str(status.value)), ("grpc-message", encode_grpc_message(message))]
        with suppress(ProtocolError):  # the client has gone
            await self._here.send_headers(head + end, end_stream=True)
            if self._here.closable:
                self._here.reset_nowait()

    async def _hand_on(self, there: Stream, left: int) -> None:
        while left:
            piece = await more(self._here, left)
            await there.send_data(piece)
            left -= len(piece)


async def _look(look: Look, message: bytes) -> None:
    """A hook is no reason for a call not to go through."""
    try:
        await look(message)
    except Exception:
        log.exception("a defect in looking at a call; it is handed on")


def _answered(there: Stream) -> bool:
    """Whether all of an answer is here, however its stream ended afterwards."""
    return there.trailers is not None or "grpc-status" in dict(there.headers or ())


def _deadline(headers: Headers) -> Deadline | None:
    with suppress(ValueError):
        return Deadline.from_headers(headers)
    return None


def _due(headers: Headers, deadline: Deadline | None) -> Headers:
    """The headers of a call that was kept for a while, with the time that is left to it."""
    if deadline is None:
        return headers
    left = encode_timeout(max(deadline.time_remaining(), 1e-6))
    return [(name, left if name == "grpc-timeout" else value) for name, value in headers]
