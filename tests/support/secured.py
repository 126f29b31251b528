"""A bus with a user for each role, as `pullonce bus init` configures it, and a plain NATS client for any of them."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from pullonce.bus.nats.deployment import Plan, inbox, write
from pullonce.bus.nats.nkeys import read_identity
from tests.support.command import environment as bare
from tests.support.nats_server import NatsServer, free_port
from tests.support.programs import die_with_parent


def environment(directory: Path, user: str) -> dict[str, str]:
    """What the env file of a user says."""
    lines = (directory / user / "env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


class SecuredBus:
    """`with SecuredBus(home) as bus:`"""

    def __init__(self, home: Path, *, scheme: str = "tls", stores: tuple[str, ...] = ("default",)) -> None:
        self.directory = home / "bus"
        port = free_port()
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.plan = Plan(self.directory, (self.url,), stores, monitoring="")
        write(self.plan)
        self.server = NatsServer(home, config=(self.directory / "server" / "nats.conf", port))

    def environ(self, user: str) -> dict[str, str]:
        return environment(self.directory, user)

    def __enter__(self) -> SecuredBus:
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.kill()


SERVICES = ("coordinator", "fetcher", "unpacker", "ledger", "gateway")


class SecuredServices:
    """The services of a store, each with the credentials of its own role: `with SecuredServices(bus, home) as services:`

    They must end well, by themselves and only when told to, and never be refused anything.
    """

    def __init__(self, bus: SecuredBus, home: Path) -> None:
        self._bus = bus
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> SecuredServices:
        ready = {role: self._bus.directory / f"{role}.ready" for role in SERVICES}
        for role, file in ready.items():
            environ = bare(self.home) | self._bus.environ(role) | {"PULLONCE_LEDGER_HTTP": "127.0.0.1:0"}
            environ["PULLONCE_READY_FILE"] = str(file)
            with self._log(role).open("wb") as log:
                self._processes[role] = subprocess.Popen(
                    [sys.executable, "-m", f"services.{role}"], env=environ, stdin=subprocess.DEVNULL, stderr=log,
                    preexec_fn=die_with_parent,
                )  # fmt: skip
        end = time.monotonic() + 60
        while not all(file.exists() for file in ready.values()) and time.monotonic() < end:
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        alive = {role: process.poll() is None for role, process in self._processes.items()}
        for process in self._processes.values():
            process.terminate()
        codes = {role: process.wait(60) for role, process in self._processes.items()}
        if error is None:
            assert all(alive.values()) and set(codes.values()) == {0}, (alive, codes, {each: self.said(each) for each in codes})
            for role in codes:
                said = self.said(role)
                assert "does not permit" not in said and "Traceback" not in said, said

    def said(self, role: str) -> str:
        """What a service wrote into its log."""
        return self._log(role).read_text()

    def _log(self, role: str) -> Path:
        return self.home / f"{role}.log"


class Guest:
    """A plain connection of one user's, and what the server refused it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.refused: list[str] = []
        self._echo = asyncio.Event()

    async def on_error(self, error: Exception) -> None:
        self.refused.append(str(error))

    async def open(self) -> None:
        self._inbox = self.client.new_inbox()

        async def heard(_: Msg) -> None:
            self._echo.set()

        await self.client.subscribe(self._inbox, cb=heard)

    async def settle(self) -> None:
        """Return when the server has dealt with everything before. An echo, since a flush overtakes what lies in the buffer."""
        self._echo.clear()
        await self.client.publish(self._inbox)
        async with asyncio.timeout(20):
            await self._echo.wait()

    def send_bytes(self, command: bytes) -> None:
        """Write to the server what no client library would."""
        self.client._pending.append(command)
        self.client._pending_data_size += len(command)

    async def may_publish(self, subject: str, body: bytes = b"{}") -> bool:
        """Whether the server takes a message on a subject. It is answered to nobody."""
        self.refused.clear()
        await self.client.publish(subject, body)
        await self.settle()
        return not self.refused

    async def may_hear(self, subject: str) -> bool:
        """Whether the server takes a subscription."""
        self.refused.clear()
        subscription = await self.client.subscribe(subject)
        await self.settle()
        heard = not self.refused
        if heard:
            await subscription.unsubscribe()
        return heard


@asynccontextmanager
async def guest(directory: Path, user: str, url: str) -> AsyncIterator[Guest]:
    """Connect as a user of a bus, by nothing but nats-py and the files of that user."""
    identity = read_identity(directory / user / "nkey")
    client = Client()
    found = Guest(client)
    client._public_nkey = identity.public
    client._auth_configured = True
    context = ssl.create_default_context(cafile=str(directory / user / "ca.pem")) if url.startswith("tls") else None
    options = {"tls": context} if context else {}
    await client.connect(
        url, signature_cb=identity.sign, inbox_prefix=inbox(user), error_cb=found.on_error, allow_reconnect=False, **options
    )
    await found.open()
    try:
        yield found
    finally:
        await client.close()


async def stranger(url: str) -> None:
    """Connect as nobody; raises what nats-py raises."""
    async with asyncio.timeout(10):
        await (await nats.connect(url, allow_reconnect=False, connect_timeout=2)).close()
