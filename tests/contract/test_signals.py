"""The contract of `bus.Signals`."""

import asyncio

import pytest

from schemas.routing import event_subject
from tests.support.buses import Place, fetched, soon


async def test_whoever_listens_hears(place: Place) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    async with place.connect() as one, place.connect() as other:
        subscription = await one.signals.subscribe("progress.default.*", lambda *message: heard.put_nowait(message))
        await other.signals.publish("progress.other.x", b"0")
        await other.signals.publish("progress.default.x", b"1")
        assert await soon(heard.get()) == ("progress.default.x", b"1")
        await subscription.stop()
        await subscription.stop()
        await other.signals.publish("progress.default.x", b"2")
        again = await one.signals.subscribe("progress.next.>", lambda *message: heard.put_nowait(message))
        await other.signals.publish("progress.next.x.y", b"3")
        assert await soon(heard.get()) == ("progress.next.x.y", b"3")
        await again.stop()


async def test_what_is_stored_passes_by(place: Place) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with place.connect() as one, place.connect() as other:
        await one.signals.subscribe("blob.fetched.default.*", lambda subject, body: heard.put_nowait(subject))
        await other.log.append(fetched(1))
        assert await soon(heard.get()) == event_subject(fetched(1))


async def test_a_group_shares_its_messages(place: Place) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()
    async with place.connect() as bus:
        for _ in range(3):
            await bus.signals.subscribe("work", lambda _, body: heard.put_nowait(int(body)), queue="group")
        for number in range(30):
            await bus.signals.publish("work", b"%d" % number)
        assert sorted([await soon(heard.get()) for _ in range(30)]) == list(range(30))
        assert heard.empty()


async def test_a_listener_that_fails_goes_on_hearing(place: Place) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    def listen(subject: str, body: bytes) -> None:
        if body == b"bad":
            raise ZeroDivisionError
        heard.put_nowait(body)

    async with place.connect() as bus:
        await bus.signals.subscribe("x", listen)
        await bus.signals.publish("x", b"bad")
        await bus.signals.publish("x", b"good")
        assert await soon(heard.get()) == b"good"


async def test_a_request_gets_the_first_answer(place: Place) -> None:
    async with place.connect() as one, place.connect() as other:
        subscription = await one.signals.answer("ask", lambda body: body.upper())
        assert await other.signals.request("ask", b"hello", timeout=5) == b"HELLO"
        await subscription.stop()
        with pytest.raises(TimeoutError):
            await soon(other.signals.request("ask", b"hello", timeout=1))


async def test_an_answer_that_takes_its_time_holds_up_no_other(place: Place) -> None:
    gate = asyncio.Event()

    async def reply(body: bytes) -> bytes:
        if body == b"slow":
            await gate.wait()
        if body == b"bad":
            raise ZeroDivisionError
        return body

    async with place.connect() as one, place.connect() as other:
        await one.signals.answer("ask", reply)
        slow = asyncio.ensure_future(other.signals.request("ask", b"slow", timeout=30))
        with pytest.raises(TimeoutError):
            await soon(other.signals.request("ask", b"bad", timeout=0.1))
        assert await soon(other.signals.request("ask", b"quick", timeout=30)) == b"quick"
        gate.set()
        assert await soon(slow) == b"slow"


async def test_nobody_there_is_known_at_once(place: Place) -> None:
    async with place.connect() as bus:
        with pytest.raises(TimeoutError):
            await soon(bus.signals.request("nobody", b"", timeout=3600))


async def test_gather_hears_everybody(place: Place) -> None:
    async with place.connect() as one, place.connect() as other:
        await one.signals.answer("all", lambda _: b"1")
        await other.signals.answer("all", lambda _: b"2")
        assert sorted(await other.signals.gather("all", b"", timeout=0.3)) == [b"1", b"2"]
        assert await other.signals.gather("nobody", b"", timeout=0.05) == []
