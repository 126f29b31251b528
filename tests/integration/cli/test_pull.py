"""`pullonce pull` against a real nats-server and scripted services: who is answered, by what, and what it loads and says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from pullonce.bus.nats.nkeys import make_identity
from pullonce.pulling.identity import identify
from schemas.events import Event, PullRequested
from tests.support.entrances import ENTRANCES, Entrance
from tests.support.nats_server import NatsServer, free_port
from tests.support.scripted import CHAIN, DIGEST, IMAGE_ID, completed, failed, scripted
from tests.support.secured import SecuredBus

REDIS = "docker.io/library/redis:latest"
LIMIT = 30


class Client:
    """One `pullonce` process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(
        cls,
        *arguments: str,
        url: str = "",
        home: str = "/nonexistent",
        program: str = "",
        environ: dict[str, str] | None = None,
    ) -> Client:
        given = (environ or {}) | {"PULLONCE_HOME": home} | ({"PULLONCE_NATS_URL": url} if url else {})
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PULLONCE_")} | given
        command = ["-c", program] if program else ["-m", "pullonce.cli.main"]
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, *command, *arguments, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
        )

    async def end(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr."""
        async with asyncio.timeout(LIMIT):
            out, err = await self.process.communicate()
        return self.process.returncode or 0, out.decode(), err.decode()


async def run(
    *arguments: str, url: str = "", home: str = "/nonexistent", environ: dict[str, str] | None = None
) -> tuple[int, str, str]:
    return await (await Client.start(*arguments, url=url, home=home, environ=environ)).end()


async def test_a_pull_says_what_came_of_it(entrance: Entrance) -> None:
    async with entrance.scripted():
        code, out, err = await run("pull", "redis", environ=entrance.environ)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        REDIS,
        f"image id  {IMAGE_ID}",
        f"digest    {DIGEST}",
        "blobs     2 fetched (40.1 MB), 1 reused, 0 waited for",
        "layers    2 unpacked, 0 reused, 0 waited for",
        f"snapshot  {CHAIN}",
    ]


async def test_json_is_the_event_as_it_is_stored(nats_url: str) -> None:
    async with scripted(nats_url) as script:
        code, out, _ = await run("pull", "--json", "redis", url=nats_url)
        stored = await script.bus.log.last(
            f"pull.completed.default.docker%2Eio/library/redis:latest.{identify('redis').flight}"
        )
    assert code == 0 and stored is not None and stored.event is not None
    assert json.loads(out) == json.loads(_encoded(stored.event))


async def test_the_request_says_all_that_was_asked_for(nats_url: str) -> None:
    async with scripted(nats_url) as script:
        options = ("--platform", "Linux/x86_64", "--credential", "mine", "--policy", "if-not-present", "--no-unpack")
        code, _, err = await run("pull", "redis", *options, url=nats_url)
        assert (code, err) == (0, "")
        request = script.requests[0][1]
    assert (request.reference, request.platform, request.credential) == (REDIS, "linux/amd64", "mine")
    assert (request.policy, request.unpack, request.store) == ("if-not-present", False, "default")
    assert request.requester.startswith("pullonce pull")


async def test_a_failed_pull_gives_code_and_reason(entrance: Entrance) -> None:
    async with entrance.scripted() as script:
        script.answer = failed
        code, out, err = await run("pull", "redis", environ=entrance.environ)
        assert (code, out) == (1, "")
        assert err == f"pullonce: MANIFEST_UNKNOWN: {REDIS}: the registry has no manifest of that name; check the tag\n"
        code, out, _ = await run("pull", "--json", "redis", environ=entrance.environ)
    assert code == 1 and json.loads(out)["code"] == "MANIFEST_UNKNOWN"


async def test_twenty_processes_are_answered_by_one_ending(nats_url: str) -> None:
    async with scripted(nats_url) as script:
        script.answer = last_of(20)
        clients = [await Client.start("pull", "--json", "redis", url=nats_url) for _ in range(20)]
        ends = [await client.end() for client in clients]
    assert {code for code, _, _ in ends} == {0}
    assert len({out for _, out, _ in ends}) == 1
    assert len(script.requests) == 20


async def test_an_ending_below_the_request_is_not_taken(entrance: Entrance) -> None:
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        client = await Client.start("pull", "--json", "redis", environ=entrance.environ)
        await script.until(lambda: bool(script.requests))
        sequence, request = script.requests[0]
        await script.say(completed(request, sequence - 1))  # covers == sequence: of an earlier flight
        await script.say(completed(request, sequence + 7))
        code, out, _ = await client.end()
    assert code == 0 and json.loads(out)["covers"] == sequence + 8


async def test_an_interrupted_pull_withdraws_its_request(entrance: Entrance) -> None:
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        # The request is in the log before the client knows: the signal often comes together with the acknowledgement.
        for number, expected in ((signal.SIGINT, 130), (signal.SIGTERM, 143)) * 5:
            client = await Client.start("pull", "redis", environ=entrance.environ)
            await script.until(lambda: len(script.requests) > len(script.cancelled))
            client.process.send_signal(number)
            code, out, _ = await client.end()
            assert (code, out) == (expected, "")
            await script.until(lambda: len(script.requests) == len(script.cancelled))
        assert [each.request for each in script.cancelled] == [sequence for sequence, _ in script.requests]


async def test_a_deadline_ends_the_wait_and_withdraws_the_request(entrance: Entrance) -> None:
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        code, out, err = await run("pull", "--timeout", "0.5", "redis", environ=entrance.environ)
        await script.until(lambda: len(script.cancelled) == 1)
    assert (code, out) == (3, "") and "did not end in time" in err


async def test_a_bus_without_services_is_said_at_once(entrance: Entrance) -> None:
    code, _, err = await run("pull", "redis", environ=entrance.environ)  # a server without streams
    assert code == 3 and "no part of pullonce answers" in err
    async with entrance.scripted(()) as script:  # streams, and nobody there
        script.answer = lambda request, sequence: None
        code, _, err = await run("pull", "redis", environ=entrance.environ)
        await script.until(lambda: len(script.cancelled) == 1)
    assert code == 3 and "no part of pullonce answers" in err


async def test_no_server_at_the_configured_address() -> None:
    port = free_port()
    code, _, err = await run("pull", "redis", url=f"nats://127.0.0.1:{port}")
    assert code == 3 and "no NATS server answers" in err
    code, _, err = await run("pull", "redis", url=f"nats://me:secret@127.0.0.1:{port}")
    assert code == 3 and f"no NATS server answers at nats://127.0.0.1:{port}" in err


async def test_a_missing_part_is_named_and_waited_for(entrance: Entrance) -> None:
    async with entrance.scripted((("coordinator", ""), ("fetcher", "default"))) as script:
        script.answer = lambda request, sequence: None
        client = await Client.start("pull", "redis", environ=entrance.environ)
        assert client.process.stderr is not None
        async with asyncio.timeout(LIMIT):
            line = await client.process.stderr.readline()
        assert line == b"pullonce: waiting for the unpacker of store default to come up\n"
        sequence, request = script.requests[0]
        await script.say(completed(request, sequence))
        code, _, _ = await client.end()
    assert code == 0


@pytest.mark.parametrize("ended_meanwhile", [False, True])
async def test_the_wait_survives_a_crash_of_the_server(entrance: Entrance, ended_meanwhile: bool) -> None:
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        client = await Client.start("pull", "--json", "redis", environ=entrance.environ)
        await script.until(lambda: bool(script.requests))
        sequence, request = script.requests[0]
        if ended_meanwhile:
            client.process.send_signal(signal.SIGSTOP)  # it hears nothing of the ending, and has to look for it
        entrance.server.restart()
        await script.say(completed(request, sequence))
        if ended_meanwhile:
            # Never to a process that may have ended: subprocess would take its exit code before asyncio does.
            client.process.send_signal(signal.SIGCONT)
        code, out, _ = await client.end()
    assert code == 0 and json.loads(out)["covers"] == sequence + 1
    assert len(script.requests) == 1


async def test_a_pull_can_be_interrupted_while_the_bus_is_away(entrance: Entrance) -> None:
    async with entrance.scripted() as script:
        script.answer = lambda request, sequence: None
        client = await Client.start("pull", "redis", environ=entrance.environ)
        await script.until(lambda: bool(script.requests))
    entrance.server.kill()
    assert client.process.stderr is not None
    async with asyncio.timeout(LIMIT):
        assert b"the bus is away" in await client.process.stderr.readline()
    client.process.send_signal(signal.SIGINT)
    assert (await client.end())[0] == 130


async def test_a_pull_may_begin_while_the_bus_stands_still(entrance: Entrance) -> None:
    async with entrance.scripted() as script:
        entrance.server.pause()
        try:
            client = await Client.start("pull", "--timeout", f"{LIMIT}", "redis", environ=entrance.environ)
            assert client.process.stderr is not None
            async with asyncio.timeout(LIMIT):
                assert b"the bus does not answer yet" in await client.process.stderr.readline()
        finally:
            entrance.server.resume()
        code, out, err = await client.end()
        assert code == 0 and out.startswith(REDIS), err
        assert len(script.requests) == 1


@pytest.mark.parametrize("entrance", ENTRANCES, indirect=True)
async def test_every_way_in_is_the_light_one(entrance: Entrance) -> None:
    async with entrance.scripted():
        client = await Client.start("pull", "redis", environ=entrance.environ, program=LOADS)
        code, out, err = await client.end()
    assert code == 0 and out.startswith(REDIS), err
    loaded = set(err.strip().split("|"))
    assert loaded & HEAVY <= (OF_TLS if entrance.url.startswith("tls") else set())
    assert ("nacl" in loaded) == ("PULLONCE_NATS_CREDS" in entrance.environ)


@pytest.mark.parametrize("entrance", ["password", "tls-nkey", "creds"], indirect=True)
async def test_who_is_not_let_in_is_told_so(entrance: Entrance, tmp_path: Path) -> None:
    (tmp_path / "other").write_text(make_identity().seed)
    wrong = {"PULLONCE_NATS_CREDS": str(tmp_path / "other"), "PULLONCE_NATS_URL": entrance.url.replace("secret", "guessed")}
    code, _, err = await run("pull", "redis", environ=entrance.environ | wrong)
    assert code == 3 and "the bus refuses these credentials" in err and "guessed" not in err


@pytest.mark.parametrize("entrance", ["tls-nkey", "tls-certificate"], indirect=True)
async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(entrance: Entrance, tmp_path: Path) -> None:
    stranger = SecuredBus(tmp_path / "other").environ("client")["PULLONCE_NATS_CA"]
    code, _, err = await run("pull", "redis", environ=entrance.environ | {"PULLONCE_NATS_CA": stranger})
    assert code == 3 and "not one to trust, see PULLONCE_NATS_CA" in err


@pytest.mark.parametrize("entrance", ["tls-certificate"], indirect=True)
async def test_a_certificate_that_the_server_wants_and_does_not_get(entrance: Entrance) -> None:
    code, _, err = await run("pull", "redis", environ=entrance.environ | {"PULLONCE_NATS_CERT": "", "PULLONCE_NATS_KEY": ""})
    assert code == 3 and "PULLONCE_NATS_CERT" in err


@pytest.mark.parametrize("entrance", ["plain"], indirect=True)
@pytest.mark.parametrize("name", ["PULLONCE_NATS_URL", "PULLONCE_NATS_CA"])
async def test_who_wants_tls_says_nothing_to_a_server_without(entrance: Entrance, tmp_path: Path, name: str) -> None:
    ca = SecuredBus(tmp_path / "other").environ("client")["PULLONCE_NATS_CA"]
    wanted = {"PULLONCE_NATS_URL": entrance.url.replace("nats://", "tls://"), "PULLONCE_NATS_CA": ca}
    code, _, err = await run("pull", "redis", environ=entrance.environ | {name: wanted[name]})
    assert code == 3 and "offers no TLS" in err


async def test_a_bus_behind_a_websocket_is_the_full_clients_work(tmp_path: Path) -> None:
    port = free_port()
    server = NatsServer(tmp_path / "nats", more=f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}').start()
    try:
        async with scripted(server.url) as script:
            code, out, _ = await run("pull", "redis", url=f"ws://127.0.0.1:{port}")
            assert code == 0 and out.startswith(REDIS)
            script.answer = lambda request, sequence: None
            client = await Client.start("pull", "redis", url=f"ws://127.0.0.1:{port}")
            await script.until(lambda: len(script.requests) == 2)
            client.process.send_signal(signal.SIGTERM)
            assert (await client.end())[0] == 143
            await script.until(lambda: len(script.cancelled) == 1)
    finally:
        server.kill()


LOADS = """
import sys
from pullonce.cli.main import main
code = main(sys.argv[1:])
print("|".join(sorted(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
HEAVY = {"asyncio", "nats", "msgspec", "aiohttp", "logging", "dataclasses", "pathlib", "inspect", "typing", "subprocess", "ssl",
         "importlib.metadata", "uvloop", "threading", "email", "urllib.parse", "argparse", "socket", "hashlib", "contextlib",
         "ipaddress", "encodings.idna", "selectors", "traceback", "tempfile", "sqlite3"}  # fmt: skip
OF_TLS = {"ssl", "socket", "typing", "threading", "contextlib", "selectors", "encodings.idna"}


async def test_a_pull_loads_next_to_nothing(nats_url: str) -> None:
    """Twenty clients pay for every import twenty times; what a pull may load is decided here."""
    async with scripted(nats_url):
        client = await Client.start("pull", "redis", url=nats_url, program=LOADS)
        code, _, err = await client.end()
    assert code == 0
    loaded = set(err.strip().split("|"))
    assert not loaded & HEAVY
    ours = {name for name in loaded if name.split(".")[0] in ("pullonce", "schemas", "services")}
    assert ours <= {
        "pullonce", "pullonce.bus", "pullonce.bus.limits", "pullonce.bus.nats", "pullonce.bus.nats.greeting",
        "pullonce.bus.nats.protocol", "pullonce.bus.nats.socket", "pullonce.cli", "pullonce.cli.fast_path",
        "pullonce.cli.main", "pullonce.cli.pull", "pullonce.cli.units", "pullonce.environment", "pullonce.errors",
        "pullonce.oci", "pullonce.oci.reference", "pullonce.printable", "pullonce.process", "pullonce.process.discovery",
        "pullonce.pulling",
        "pullonce.pulling.blocking", "pullonce.pulling.conversation", "pullonce.pulling.identity", "pullonce.pulling.request",
        "pullonce.pulling.states", "pullonce.pulling.timings", "schemas", "schemas.subjects",
    }  # fmt: skip


def last_of(count: int):  # type: ignore[no-untyped-def]
    """An answer that comes once, when so many have asked."""
    seen = 0

    def answer(request: PullRequested, sequence: int) -> Event | None:
        nonlocal seen
        seen += 1
        return completed(request, sequence) if seen == count else None

    return answer


def _encoded(event: Event) -> bytes:
    import msgspec

    return msgspec.json.encode(event)
