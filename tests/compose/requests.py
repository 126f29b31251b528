"""Pulls asked for from outside, by nothing but a NATS client: a request published, an ending waited for."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from pullonce.bus.nats.nkeys import read_identity
from tests.compose.stack import Stack

ENOUGH = 60.0


class Requester:
    """One connection. Every request is answered by the first ending for its reference whose `covers` lies above it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._endings: list[dict[str, Any]] = []
        self._flights: dict[str, set[str]] = {}
        """Reference → flights that were heard of: what was missed is looked for under their names."""
        self._news = asyncio.Condition()

    async def hear(self, msg: Msg) -> None:
        event = json.loads(msg.data)
        async with self._news:
            self._flights.setdefault(event["reference"], set()).add(event["flight"])
            if event["type"] != "pull.resolved":
                self._endings.append(event)
            self._news.notify_all()

    async def ask(self, reference: str) -> int:
        """Publish a request; its place in the log once it is stored. Repeated for as long as the bus is away."""
        async with asyncio.timeout(ENOUGH):
            while True:
                try:
                    answer = await self.client.request(
                        "pull.requested", json.dumps({"reference": reference}).encode(), timeout=2
                    )
                    return int(json.loads(answer.data)["seq"])
                except (nats.errors.Error, TimeoutError, KeyError):
                    await asyncio.sleep(0.1)

    async def ending(self, reference: str, sequence: int) -> dict[str, Any]:
        """The answer to a request. What was missed while the bus was away is looked at, as the README says."""
        try:
            async with asyncio.timeout(ENOUGH):
                while True:
                    for event in self._endings:
                        if event["reference"] == reference and event["covers"] > sequence:
                            return event
                    await self._wait(1.0)
                    await self._look(reference)
        except TimeoutError:
            raise AssertionError(f"{reference}: request {sequence} was never answered; endings: {self._endings[-5:]}") from None

    async def until_resolved(self, reference: str) -> None:
        """Wait until a pull is under way: its layers are known, and orders go out."""
        async with asyncio.timeout(ENOUGH):
            while reference not in self._flights:
                await self._wait(1.0)

    def ended(self, reference: str) -> bool:
        """Whether an ending of a pull was heard."""
        return any(event["reference"] == reference for event in self._endings)

    async def _wait(self, seconds: float) -> None:
        async with self._news:
            try:
                async with asyncio.timeout(seconds):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _look(self, reference: str) -> None:
        image = "".join(c if c.isalnum() or c in ":/_@-" else f"%{ord(c):02X}" for c in reference)
        for flight in tuple(self._flights.get(reference, ())):
            for verbed in ("completed", "failed"):
                subject = f"$JS.API.DIRECT.GET.EVENTS.pull.{verbed}.default.{image}.{flight}"
                try:
                    answer = await self.client.request(subject, b"", timeout=1)
                except (nats.errors.Error, TimeoutError):
                    continue
                if not (answer.headers and "Status" in answer.headers):
                    self._endings.append(json.loads(answer.data))


@asynccontextmanager
async def requester(stack: Stack) -> AsyncIterator[Requester]:
    """Connect as a client of a stack, through its published port, with TLS and the client's key."""
    identity = read_identity(stack.keys / "client" / "nkey")
    client = Client()
    client._public_nkey = identity.public
    client._auth_configured = True
    await client.connect(
        stack.bus,
        signature_cb=identity.sign,
        tls=ssl.create_default_context(cafile=str(stack.keys / "client" / "ca.pem")),
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.1,
        error_cb=_ignore,
    )
    found = Requester(client)
    for subject in ("pull.resolved.>", "pull.completed.>", "pull.failed.>"):
        await client.subscribe(subject, cb=found.hear)
    await client.flush()
    try:
        yield found
    finally:
        await client.close()


async def _ignore(_: Exception) -> None:
    """A bus that is restarted is no surprise here."""
