"""One store, one place: workers that serve two stores under one name on one bus would wait for each other for ever.

An order goes to any worker of its store's name. If a fetcher of one home took it and an unpacker of another home waited for
the blob, the pull would hang and nobody would be at fault. So a worker asks before it begins, and refuses to begin beside one
whose disk holds another incarnation; where nobody listens, the server says so at once. It asks again once it has begun, when
the bus was away, and when it is asked by a stranger: those who could not hear each other before end then, except the one that
began first. What counts is what the disks hold at the moment, so a store that is wiped under its workers stays theirs.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from pullonce.bus.ports import Signals
from pullonce.errors import StoreTaken
from schemas.malformed import Malformed
from schemas.status import StoreNow, decode_store_now, encode
from schemas.subjects import store_now_subject

log = logging.getLogger(__name__)

PATIENCE = 2.0
"""Seconds for an answer. Somebody who listens and says nothing stands still; that is no reason not to begin."""


class OneStore:
    """The guard of one worker.

    Args:
        incarnation: of the store on the disk, now; empty where it was wiped.
    """

    def __init__(self, signals: Signals, store: str, incarnation: Callable[[], str]) -> None:
        self._signals = signals
        self._store = store
        self._incarnation = incarnation
        self._subject = store_now_subject(store)
        self._host, self._pid, self._since = socket.gethostname(), os.getpid(), time.time()
        self._doubt = asyncio.Event()

    async def begin(self) -> None:
        """Make sure that whoever serves this store shares our disk, and answer the same question from now on.

        Raises:
            StoreTaken: a worker serves another incarnation under this name.
        """
        try:
            other = _read(await self._signals.request(self._subject, self._now(), timeout=PATIENCE))
        except TimeoutError:
            other = None
        if other is not None and self._is_stranger(other):
            raise self._taken(other)
        await self._signals.answer(self._subject, self._answer)
        self._signals.on_reconnect(self._doubt.set)
        self._doubt.set()  # two that began at once have not heard each other

    async def guarding(self, work: Coroutine[Any, Any, None]) -> None:
        """Do the work, and end it should the store turn out to be taken.

        Raises:
            StoreTaken: in an exception group; somebody who began before us serves another incarnation.
        """
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch())
            try:
                await work
            finally:
                watch.cancel()

    async def _watch(self) -> None:
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            answers = await self._signals.gather(self._subject, self._now(), timeout=PATIENCE)
            for other in filter(None, map(_read, answers)):
                if not self._is_stranger(other):
                    continue
                if (other.since, other.incarnation) < (self._since, self._incarnation()):
                    raise self._taken(other)
                log.error("%s; it began later and has to end", self._taken(other))

    def _answer(self, question: bytes) -> bytes:
        asker = _read(question)
        if asker is not None and self._is_stranger(asker):
            self._doubt.set()
        return self._now()

    def _now(self) -> bytes:
        told = StoreNow(
            store=self._store, incarnation=self._incarnation(), host=self._host, pid=self._pid, since=self._since
        )  # fmt: skip
        return encode(told)

    def _is_stranger(self, other: StoreNow) -> bool:
        ours = self._incarnation()
        return bool(other.incarnation and ours) and other.incarnation != ours

    def _taken(self, other: StoreNow) -> StoreTaken:
        return StoreTaken(
            f"store {self._store!r} is served from another place: process {other.pid} on {other.host} has {other.incarnation},"
            f" the disk here has {self._incarnation()}; share one directory, give this store another name (PULLONCE_STORE),"
            " or stop the others"
        )


def _read(body: bytes) -> StoreNow | None:
    """None for what says nothing of a store: an empty question, or an answer by who knows whom."""
    try:
        return decode_store_now(body)
    except Malformed:
        return None
