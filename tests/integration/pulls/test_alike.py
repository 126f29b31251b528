"""The light client and the asyncio client through the same trouble, plain and over TLS with a key: both take it alike."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.json import decode, encode

from pullonce.bus.nats.bus import connect
from pullonce.process import discovery
from schemas.subjects import EVENTS_STREAM
from tests.integration.cli.test_pull import Client
from tests.support.entrances import Entrance, by_password
from tests.support.nats_server import NatsServer
from tests.support.scripted import PARTS, Script, completed

ASYNCIO = """
import asyncio, signal, sys
import msgspec
from pullonce import client
from pullonce.errors import BusError, PullFailed, PullTimeout

async def main(timeout=None):
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    say = lambda line: print("pullonce:", line, file=sys.stderr, flush=True)
    async with client.connect(say=say) as pulls:
        print(msgspec.json.encode(await pulls.pull("redis", timeout=timeout)).decode())

try:
    asyncio.run(main(*map(float, sys.argv[1:])))
except (BusError, PullTimeout) as exc:
    sys.exit(print("pullonce:", exc, file=sys.stderr) or 3)
"""
"""What `pullonce pull --json redis` does, by a Python program."""

SOON = 20.0


@pytest.fixture(params=["light", "asyncio"])
def start(request: pytest.FixtureRequest) -> Callable[..., Awaitable[Client]]:
    """Begins a pull of redis: with an environment, and a deadline if there is one."""

    async def begin(environ: dict[str, str], timeout: float | None = None, home: str = "/nonexistent") -> Client:
        if request.param == "light":
            given = [] if timeout is None else ["--timeout", f"{timeout}"]
            return await Client.start("pull", "--json", *given, "redis", environ=environ, home=home)
        return await Client.start(*([] if timeout is None else [f"{timeout}"]), program=ASYNCIO, environ=environ, home=home)

    return begin


Start = Callable[..., Awaitable[Client]]


async def said(client: Client, what: str) -> None:
    """Wait until it says something to people."""
    assert client.process.stderr is not None
    async with asyncio.timeout(SOON):
        while what not in (line := (await client.process.stderr.readline()).decode()):
            assert line, f"it ended without saying {what!r}"


async def answered(client: Client, script: Script) -> None:
    """Whoever waits gets the ending of its own request, which is stored once."""
    sequence, request = script.requests[-1]
    await script.say(completed(request, sequence))
    code, out, err = await client.end()
    assert code == 0, err
    assert json.loads(out)["covers"] == sequence + 1 and len(script.requests) == 1


@asynccontextmanager
async def waiting(entrance: Entrance) -> AsyncIterator[Script]:
    """Services that take requests and end nothing by themselves."""
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        yield script


@pytest.mark.parametrize("timeout", [None, 60.0])
async def test_where_nobody_is_there_that_is_said_with_names(entrance: Entrance, start: Start, timeout: float | None) -> None:
    async with entrance.scripted(()) as script:
        script.answer = lambda request, sequence: None
        code, _, err = await (await start(entrance.environ, timeout)).end()
        await script.until(lambda: len(script.cancelled) == len(script.requests) == 1)
    shown = entrance.url
    assert code == 3 and err == (
        f"pullonce: no part of pullonce answers at {shown} (the coordinator, the fetcher of store default and the unpacker of "
        "store default are missing); start it with `pullonce up`\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_who_is_told_to_stop_withdraws(entrance: Entrance, start: Start, number: signal.Signals) -> None:
    async with waiting(entrance) as script:
        client = await start(entrance.environ)
        await script.until(lambda: bool(script.requests))
        client.process.send_signal(number)
        await client.end()
        await script.until(lambda: [each.request for each in script.cancelled] == [script.requests[0][0]])


async def test_a_deadline_is_told_alike_and_withdraws(entrance: Entrance, start: Start) -> None:
    async with waiting(entrance) as script:
        code, _, err = await (await start(entrance.environ, 0.5)).end()
        await script.until(lambda: len(script.cancelled) == 1)
    assert code == 3 and err == (
        "pullonce: docker.io/library/redis:latest did not end in time: it was not there after 0.5 s; the work goes on if "
        "others wait\n"
    )


async def test_a_bus_that_stands_still_is_a_delay(entrance: Entrance, start: Start) -> None:
    async with waiting(entrance) as script:
        client = await start(entrance.environ)
        await script.until(lambda: bool(script.requests))
        entrance.server.pause()
        try:
            await said(client, "the bus does not answer; waiting for it")
        finally:
            entrance.server.resume()
        await answered(client, script)


async def test_a_restart_of_everything_is_a_delay(entrance: Entrance, start: Start) -> None:
    async with waiting(entrance) as script:
        client = await start(entrance.environ)
        await script.until(lambda: bool(script.requests))
    entrance.server.kill()
    await said(client, "the bus is away")
    entrance.server.start()
    # The services come later than the bus; nobody answers meanwhile.
    await said(client, "waiting for the coordinator, the fetcher of store default and the unpacker of store default")
    async with waiting(entrance) as script:
        await script.until(lambda: bool(script.requests))
        await answered(client, script)


async def test_parts_that_were_there_may_be_restarted_together(entrance: Entrance, start: Start) -> None:
    environ = entrance.environ | {"PULLONCE_AWAY": "60"}
    async with entrance.scripted(PARTS[:2]) as script:
        script.answer = lambda request, sequence: None
        client = await start(environ)
        await said(client, "waiting for the unpacker of store default to come up")
    await said(client, "waiting for the coordinator")
    async with waiting(entrance) as script:
        await script.until(lambda: bool(script.requests))
        await answered(client, script)


async def test_a_request_waits_for_a_stream_that_opens_late(entrance: Entrance, start: Start) -> None:
    """A server that has only just started answers 503 until it has opened its streams."""
    async with waiting(entrance) as script, connect(entrance.settings("operator")) as bus:
        link = bus.log._link
        config = decode((await link.ask(f"$JS.API.STREAM.INFO.{EVENTS_STREAM}")).data)["config"]
        fewer = config | {"subjects": [each for each in config["subjects"] if not each.startswith("pull.")]}
        heard = asyncio.Event()
        await link.ask(f"$JS.API.STREAM.UPDATE.{EVENTS_STREAM}", encode(fewer))
        await bus.signals.subscribe("pullonce.ping", lambda subject, body: heard.set())
        client = await start(entrance.environ | {"PULLONCE_NATS_SETUP": "no"})
        async with asyncio.timeout(SOON):
            await heard.wait()  # it asks who is there: its request was not stored for a second
        await link.ask(f"$JS.API.STREAM.UPDATE.{EVENTS_STREAM}", encode(config))
        await script.until(lambda: bool(script.requests))
        await answered(client, script)


async def test_a_bus_at_another_port_of_the_same_home_is_found(tmp_path: Path, start: Start) -> None:
    home = str(tmp_path / "home")
    discovery.make_run_directory(home)
    before = by_password(tmp_path)
    discovery.announce(home, before.url)
    try:
        async with waiting(before) as script:
            client = await start({}, home=home)
            await script.until(lambda: bool(script.requests))
        discovery.withdraw(home)
        before.server.kill()
        await said(client, "the bus is away")
        # Somebody else has taken the old port meanwhile.
        squatter = NatsServer(tmp_path / "squatter", more='authorization { user: "other", password: "other" }')
        squatter.move_to(before.server.port)
        squatter.start()
        try:
            after = by_password(tmp_path)
            assert after.server.port != before.server.port
            try:
                async with waiting(after) as script:
                    discovery.announce(home, after.url)
                    await script.until(lambda: bool(script.requests))
                    await answered(client, script)
            finally:
                after.server.kill()
        finally:
            squatter.kill()
    finally:
        before.server.kill()
