"""Calls that are handed on to another gRPC server: what arrives there and what comes back is what the two ends said."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.protocol import H2Protocol, Stream
from grpclib.server import Handler, Server
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes

from services.gateway.rpc.relaying import LONGEST, Hook, relaying

Headers = list[tuple[str, str]]
Answer = Callable[[Stream, Headers], Awaitable[None]]
OK = [("grpc-status", "0")]
HEAD = [(":status", "200"), ("content-type", "application/grpc")]


def framed(message: bytes, *, compressed: bool = False) -> bytes:
    return bytes([compressed]) + len(message).to_bytes(4) + message


async def message(stream: Stream) -> bytes | None:
    """The next message with what stands before it; None at the end."""
    prefix = await stream.recv_data(5)
    return prefix + await stream.recv_data(int.from_bytes(prefix[1:])) if prefix else None


class Behind(Server):
    """A server that answers as a test says, and notes what it was asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__([])
        self.answer = answer
        self.asked: list[Headers] = []
        self.left: list[str] = []
        """Methods whose callers left before the answer's end."""

    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return H2Protocol(_Answering(self, made.handler), made.config, made.h2_config)  # type: ignore[arg-type]


class _Answering(Handler):
    def __init__(self, server: Behind, like: Handler) -> None:
        super().__init__(like.mapping, like.codec, like.status_details_codec, like.dispatch)
        self._server = server

    def accept(self, stream: Stream, headers: Headers, release_stream: Callable[[], Any]) -> None:
        self._server.asked.append(headers)
        self._tasks[stream] = asyncio.ensure_future(self._answer(stream, headers, release_stream))

    async def _answer(self, stream: Stream, headers: Headers, release: Callable[[], Any]) -> None:
        try:
            await self._server.answer(stream, headers)
        except asyncio.CancelledError:
            self._server.left.append(dict(headers)[":path"])
            raise
        finally:
            release()


class Line:
    """A server, what stands before it, and a client."""

    def __init__(self, place: Path) -> None:
        self.behind_at = place / "behind.sock"
        self.front_at = place / "front.sock"
        self.hooks: dict[str, Hook] = {}
        self.methods: list[str] = []
        self.channels: list[Channel] = []

    def client(self) -> Channel:
        self.channels.append(Channel(path=str(self.front_at)))
        return self.channels[-1]

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        """What stands before it, for as long as the block lasts."""
        async with relaying(self.front_at, self.behind_at, self.hooks, watch=self.methods.append):
            yield
            for channel in self.channels:
                channel.close()

    @asynccontextmanager
    async def serving(self, answer: Answer) -> AsyncIterator[Behind]:
        """A server behind, for as long as the block lasts."""
        server = Behind(answer)
        await server.start(path=str(self.behind_at))
        try:
            yield server
        finally:
            server.close()
            self.behind_at.unlink(missing_ok=True)


@pytest.fixture
def line() -> Iterator[Line]:
    with tempfile.TemporaryDirectory(prefix="relay-") as place:  # sockets have short paths
        yield Line(Path(place))


async def opened(channel: Channel, method: str, *more: tuple[str, str]) -> Stream:
    protocol = await channel.__connect__()
    stream = protocol.processor.connection.create_stream(wrapper=Wrapper())
    headers = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"), ("te", "trailers")]
    headers += [("content-type", "application/grpc"), *more]
    await stream.send_request(headers, _processor=protocol.processor)
    return stream


async def said(stream: Stream) -> tuple[Headers, list[bytes], Headers]:
    """Headers, messages and trailers of an answer."""
    headers = await stream.recv_headers()
    messages = []
    while (each := await message(stream)) is not None:
        messages.append(each)
    return [*headers], messages, [*(stream.trailers or [])]


async def call(
    channel: Channel, method: str, *messages: bytes, more: Headers | None = None
) -> tuple[Headers, list[bytes], Headers]:
    """One call from its beginning to its end."""
    async with asyncio.timeout(30):
        stream = await opened(channel, method, *(more or []))
        for each in messages:
            await stream.send_data(each)
        await stream.end()
        return await said(stream)


async def echo(stream: Stream, headers: Headers) -> None:
    """Says back every message as it comes, with metadata before and after."""
    await stream.send_headers([*HEAD, ("x-first", "1"), ("x-bin", "AAE")])
    while (each := await message(stream)) is not None:
        await stream.send_data(each)
    await stream.send_headers([*OK, ("x-last", "2")], end_stream=True)


CUT = {
    "in the prefix": framed(b"0123456789")[:3],
    "behind the prefix": framed(b"0123456789")[:5],
    "in the message": framed(b"0123456789")[:9],
    "behind a piece of it": framed(b"0" * 70_000)[: 5 + 65_536],
    "behind a whole one": framed(b"whole") + framed(b"0123456789")[:5],
}
"""What a stream may end with that is no whole message."""


@pytest.mark.parametrize("method", ["/s/Free", "/s/Hooked"])
@pytest.mark.parametrize("cut", CUT.values(), ids=CUT.keys())
async def test_a_question_that_ends_in_the_middle_fails_and_stops_nobody(line: Line, method: str, cut: bytes) -> None:
    line.hooks["/s/Hooked"] = Hook()
    async with line.standing(), line.serving(echo) as behind:
        channel = line.client()
        async with asyncio.timeout(20):
            stream = await opened(channel, method)
            await stream.send_data(cut)
            await stream.end()
            await stream.recv_headers()
            while await stream.recv_data(1):
                pass
        ending = dict(stream.trailers or stream.headers or ())
        assert ending["grpc-status"] == "13" and "middle" in ending["grpc-message"]
        assert (await call(channel, "/s/M", framed(b"next")))[1] == [framed(b"next")]
    assert not behind.left or behind.left == [method]


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT.keys())
async def test_an_answer_that_ends_in_the_middle_is_no_success(line: Line, cut: bytes) -> None:
    async def answer(stream: Stream, headers: Headers) -> None:
        await stream.send_headers(HEAD)
        await stream.send_data(cut)
        await stream.send_headers(OK, end_stream=True)

    async with line.standing(), line.serving(answer):
        async with asyncio.timeout(20):
            stream = await opened(line.client(), "/s/M")
            await stream.send_data(framed(b"q"))
            await stream.end()
            await stream.recv_headers()
            sent = b""
            while byte := await stream.recv_data(1):
                sent += byte
        assert cut.startswith(sent)
        ending = dict(stream.trailers or ())
        assert ending["grpc-status"] == "14" and "middle" in ending["grpc-message"]


STREAMS = {"no message": [], "one": [b"a"], "an empty one": [b""], "many": [b"a", b"", b"bc" * 40_000, b"d"]}


@pytest.mark.parametrize("messages", STREAMS.values(), ids=STREAMS)
async def test_what_two_ends_say_arrives_as_it_is(line: Line, messages: list[bytes]) -> None:
    """Of a service that nobody here knows, with messages that nobody here can read."""
    more = [("authorization", "Bearer x"), ("x-bin", "AAECAw"), ("user-agent", "kubelet/1"), ("grpc-timeout", "59S")]
    async with line.standing(), line.serving(echo) as behind:
        sent = [framed(each) for each in messages]
        headers, got, trailers = await call(line.client(), "/some.Service/Method", *sent, more=more)
    assert got == sent and headers == [*HEAD, ("x-first", "1"), ("x-bin", "AAE")] and trailers == [*OK, ("x-last", "2")]
    (asked,) = behind.asked
    assert asked[-len(more) :] == more and line.methods == ["/some.Service/Method"]


async def test_messages_go_both_ways_at_their_own_pace(line: Line) -> None:
    async with line.standing(), line.serving(echo):
        stream = await opened(line.client(), "/s/Both")
        for number in range(3):
            await stream.send_data(framed(bytes([number])))
            assert await message(stream) == framed(bytes([number])), "before the question has ended"
        await stream.end()
        assert (await said(stream))[2] == [*OK, ("x-last", "2")]


async def test_what_is_compressed_or_long_goes_through_unread(line: Line) -> None:
    seen: list[bytes] = []

    async def look(content: bytes) -> None:
        seen.append(content)

    line.hooks["/s/Looked"] = Hook(before=look, after=look)
    async with line.standing(), line.serving(echo):
        for each in (framed(b"zipped", compressed=True), framed(bytes(LONGEST + 1))):
            assert (await call(line.client(), "/s/Looked", each))[1] == [each]
        largest = framed(b"x" * LONGEST)
        assert (await call(line.client(), "/s/Looked", largest))[1] == [largest]
    assert seen == [b""] * 4 + [b"x" * LONGEST] * 2


REFUSALS: dict[str, Headers] = {
    "without an answer": [*HEAD, ("grpc-status", "5"), ("grpc-message", "no%20such"), ("grpc-status-details-bin", "CAUSAA")],
    "by HTTP": [(":status", "415"), ("grpc-status", "2")],
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_the_servers_own(line: Line, refusal: Headers) -> None:
    async def refuse(stream: Stream, headers: Headers) -> None:
        await stream.send_headers(refusal, end_stream=True)

    async with line.standing(), line.serving(refuse):
        assert await call(line.client(), "/s/Refused", framed(b"q")) == (refusal, [], [])


async def test_a_status_after_an_answer_is_the_servers_own(line: Line) -> None:
    end = [("grpc-status", "8"), ("grpc-message", "full"), ("grpc-status-details-bin", "CAUSAA"), ("x-more", "y")]

    async def half(stream: Stream, headers: Headers) -> None:
        await stream.send_headers(HEAD)
        await stream.send_data(framed(b"half"))
        await stream.send_headers(end, end_stream=True)
        stream.reset_nowait(ErrorCodes.NO_ERROR)  # the question has not ended

    async with line.standing(), line.serving(half):
        stream = await opened(line.client(), "/s/Half")
        assert await said(stream) == (HEAD, [framed(b"half")], end)


async def test_who_leaves_is_gone_behind_too(line: Line) -> None:
    async def never(stream: Stream, headers: Headers) -> None:
        await stream.send_headers(HEAD)
        await asyncio.Event().wait()

    async with line.standing(), line.serving(never) as behind:
        channel = line.client()
        one, other = await opened(channel, "/s/One"), await opened(channel, "/s/Other")
        await asyncio.gather(one.recv_headers(), other.recv_headers())
        await one.reset(ErrorCodes.CANCEL)
        async with asyncio.timeout(10):
            while behind.left != ["/s/One"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            channel.close()
            while behind.left != ["/s/One", "/s/Other"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_who_reads_nothing_stops_nobody_else(line: Line) -> None:
    async def flood(stream: Stream, headers: Headers) -> None:
        await stream.send_headers(HEAD)
        while True:
            await stream.send_data(framed(bytes(1 << 20)))

    async def either(stream: Stream, headers: Headers) -> None:
        await (flood if dict(headers)[":path"] == "/s/Flood" else echo)(stream, headers)

    async with line.standing(), line.serving(either):
        await (await opened(line.client(), "/s/Flood")).recv_headers()
        await asyncio.sleep(0.2)
        assert (await call(line.client(), "/s/Echo", framed(b"x" * 100_000)))[1] == [framed(b"x" * 100_000)]


async def test_a_server_that_is_away_or_dies_is_told_of_and_found_again(line: Line) -> None:
    async with line.standing():
        channel = line.client()
        headers, _, _ = await call(channel, "/s/M", framed(b"q"))
        assert dict(headers)["grpc-status"] == "14" and "no runtime answers at" in dict(headers)["grpc-message"]

        async def dies(stream: Stream, headers: Headers) -> None:
            await stream.send_headers(HEAD)
            await stream.send_data(framed(b"half"))
            stream.connection.close()

        async with line.serving(dies):
            _, got, trailers = await call(channel, "/s/M", framed(b"q"))
            assert (
                got == [framed(b"half")]
                and dict(trailers)["grpc-status"] == "14"
                and "broke off" in dict(trailers)["grpc-message"]
            )
        async with line.serving(echo):
            assert (await call(channel, "/s/M", framed(b"again")))[1] == [framed(b"again")]


async def test_a_hook_sees_its_method_before_and_after_and_only_what_succeeded(line: Line) -> None:
    steps: list[str] = []

    def step(name: str) -> Callable[[bytes], Awaitable[None]]:
        async def note(content: bytes) -> None:
            await asyncio.sleep(0.05)
            steps.append(f"{name} {content.decode()}")

        return note

    async def answer(stream: Stream, headers: Headers) -> None:
        asked = await message(stream)
        assert asked is not None
        steps.append(f"asked {asked[5:].decode()}")
        await stream.send_headers(HEAD)
        await stream.send_data(asked)
        await stream.send_headers([("grpc-status", "5" if asked[5:] == b"bad" else "0")], end_stream=True)

    line.hooks["/s/Hooked"] = Hook(before=step("before"), after=step("after"))
    async with line.standing(), line.serving(answer) as behind:
        await call(line.client(), "/s/Hooked", framed(b"good"), more=[("grpc-timeout", "9S")])
        steps.append("answered")
        await call(line.client(), "/s/Hooked", framed(b"bad"))
        await call(line.client(), "/s/Free", framed(b"free"))
    assert steps == ["before good", "asked good", "after good", "answered", "before bad", "asked bad", "asked free"]
    left = dict(behind.asked[0])["grpc-timeout"]
    assert left != "9S" and left[-1] in "mS", "the time that the hook took is not given again"


async def test_a_hook_with_a_defect_keeps_nothing_from_going_through(line: Line) -> None:
    async def defect(content: bytes) -> None:
        raise ValueError("a defect")

    line.hooks["/s/Hooked"] = Hook(before=defect, after=defect)
    async with line.standing(), line.serving(echo):
        assert (await call(line.client(), "/s/Hooked", framed(b"q")))[2] == [*OK, ("x-last", "2")]


async def test_who_leaves_while_a_hook_runs_ends_it(line: Line) -> None:
    left = asyncio.Event()

    async def wait(content: bytes) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    line.hooks["/s/Hooked"] = Hook(before=wait)
    async with line.standing(), line.serving(echo) as behind:
        stream = await opened(line.client(), "/s/Hooked")
        await stream.send_data(framed(b"q"))
        await stream.end()
        await asyncio.sleep(0.1)
        await stream.reset(ErrorCodes.CANCEL)
        async with asyncio.timeout(10):
            await left.wait()
    assert behind.asked == []
