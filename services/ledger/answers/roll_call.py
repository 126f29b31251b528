"""Who is there: every process answers a ping for itself. Asked at most once in a while, however many want to know."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import msgspec

from pullonce.bus.ports import Signals
from schemas.status import Pong, decode_pong
from schemas.subjects import PING_SUBJECT

_WITHIN = 0.4
"""Seconds in which a process that is well answers."""
_FRESH = 2.0


class Roll:
    """The roll of all processes."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._asking = asyncio.Lock()
        self._called = float("-inf")
        self._pongs: list[Pong] = []

    async def call(self) -> list[Pong]:
        """Who answered within the last seconds, by service."""
        async with self._asking:
            if time.monotonic() - self._called > _FRESH:
                found = {}
                for body in await self._signals.gather(PING_SUBJECT, b"", timeout=_WITHIN):
                    with suppress(msgspec.MsgspecError):
                        pong = decode_pong(body)
                        found[pong.service, pong.store, pong.pid, str(pong.details)] = pong
                self._pongs = [found[key] for key in sorted(found)]
                self._called = time.monotonic()
            return self._pongs

    async def encoded(self) -> bytes:
        """The same as JSON."""
        return msgspec.json.encode(await self.call())
