"""A bus with a user for each role, as `pullonce bus init` configures it, and a plain NATS client for any of them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from pullonce.bus.nats.deployment import Plan, inbox, write
from pullonce.bus.nats.nkeys import read_identity
from tests.support.nats_server import NatsServer, free_port


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
