"""Core NATS messages: nobody stores them, whoever listens now gets them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from nats.aio import subscription as nats_subscription
from nats.aio.msg import Msg

from pullonce.bus.nats.asked import Unclear
from pullonce.bus.nats.link import Link, Unheard
from pullonce.bus.nats.protocol import status_of, text
from pullonce.bus.ports import Reply, Subscription

log = logging.getLogger(__name__)

INBOXES = ("_INBOX.", "_INBOX_")
"""What the reply subjects begin with that are answered: the inboxes of NATS clients, and those of our own roles."""


class NatsSubscription:
    """`bus.Subscription` on a link."""

    def __init__(self, link: Link, subscription: nats_subscription.Subscription) -> None:
        self._link = link
        self._subscription = subscription

    async def stop(self) -> None:
        await self._link.drop(self._subscription)


class NatsSignals:
    """`bus.Signals` on a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """The server can be reached now."""
        return self._link.connected

    async def publish(self, subject: str, body: bytes) -> None:
        if self._link.connected:
            await self._link.send(subject, body)

    async def subscribe(self, subject: str, receive: Callable[[str, bytes], None], *, queue: str = "") -> Subscription:
        def on_message(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
            receive(text(subject), data)

        subscription = await self._link.listen(subject, on_message, queue=queue)
        await self._link.barrier()
        return NatsSubscription(self._link, subscription)

    async def request(self, subject: str, body: bytes, *, timeout: float) -> bytes:
        try:
            async with asyncio.timeout(timeout):
                return (await self._link.ask(subject, body, timeout=timeout + 1)).data
        except Unheard:
            raise TimeoutError(f"nobody answers on {subject}") from None
        except Unclear:
            raise TimeoutError(f"the connection broke while {subject} was asked") from None

    async def gather(
        self, subject: str, body: bytes, *, timeout: float, take: Callable[[bytes], None] | None = None,
        nobody: Callable[[], None] | None = None,
    ) -> list[bytes]:  # fmt: skip
        answers: list[bytes] = []

        def on_message(subject: bytes, reply: bytes, head: bytes, data: bytes) -> None:
            if not status_of(head):
                answers.append(data)
                if take:
                    take(data)
            elif nobody:
                nobody()

        inbox = self._link.new_inbox()
        subscription = await self._link.listen(inbox, on_message)
        try:
            await self._link.send(subject, body, reply=inbox)
            await asyncio.sleep(timeout)
        finally:
            await self._link.drop(subscription)
        return answers

    async def answer(self, subject: str, reply: Reply, *, queue: str = "") -> Subscription:
        async def on_message(msg: Msg) -> None:
            if not msg.reply.startswith(INBOXES):
                # An answer is published by whoever gives it: it could be the claim or the fact that the asker may not write.
                if msg.reply:
                    log.info("no answer is given to %.200s, which is no inbox", msg.reply)
                return
            try:
                body = reply(msg.data)
            except Exception:
                log.exception("no answer could be given on %s", subject)
                return
            if isinstance(body, bytes):
                await self._link.send(msg.reply, body)
                return
            # Callbacks of one subscription run one after another: what takes its time must not hold up the others.
            task = asyncio.ensure_future(self._answer_later(subject, msg.reply, body))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        subscription = await self._link.subscribe(subject, on_message, queue=queue)
        await self._link.barrier()
        return NatsSubscription(self._link, subscription)

    async def echo(self, timeout: float) -> bool:
        return await self._link.barrier(timeout)

    def on_disconnect(self, notify: Callable[[], None]) -> None:
        self._link.on_disconnect.append(notify)

    def on_reconnect(self, notify: Callable[[], None]) -> None:
        self._link.on_reconnect.append(notify)

    async def _answer_later(self, subject: str, inbox: str, body: Coroutine[Any, Any, bytes]) -> None:
        try:
            await self._link.send(inbox, await body)
        except Exception:
            log.exception("no answer could be given on %s", subject)
