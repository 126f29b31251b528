"""Progress for those who come late: a worker remembers what it last said of work under way, and answers `progress.now.<store>`.

The question is empty, for everything under way, or a JSON array of digests, ChainIDs and flights: then the disk is asked about
each, so that what was finished before anybody listened counts too. Each word says who works, and in which attempt since when.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import msgspec

from pullonce.bus.ports import Signals
from pullonce.errors import PullonceError
from schemas import routing, subjects
from schemas.malformed import Malformed
from schemas.orders import FetchBlob, Order, RecordImage, ResolveReference, UnpackLayer
from schemas.progress import BlobProgress, LayerProgress, ProgressMessage, ProgressNow, PullProgress, decode, name_of, names_of

log = logging.getLogger(__name__)

_MOST = 1000
"""Pieces of work in one answer, which must fit into one message."""
_OVER = ("verified", "committed", "aborted")
_FORGET = 60.0
"""Seconds after which a repeated attempt that did not begin here has begun elsewhere."""


@dataclass(slots=True)
class _Attempt:
    """One order that was carried out here last, or is."""

    revision: int
    attempt: int
    since: float
    error: str = ""
    """Why the attempt before came to nothing, if it was made here."""
    until: float = float("inf")
    """When it is somebody else's, at the latest."""


class Present:
    """The signals of a worker, which remember the progress that is published through them.

    Args:
        service: what the worker is called among the parts.
        store: the one it serves.
        look: what the disk says of a digest or ChainID; None where it holds nothing of it. Runs in a thread.
    """

    def __init__(self, signals: Signals, service: str, store: str, look: Callable[[str], ProgressMessage | None]) -> None:
        self._signals = signals
        self._me = f"{service} {os.getpid()} on {socket.gethostname()}"
        self._store = store
        self._look = look
        self._words: dict[str, ProgressMessage] = {}
        self._hands: dict[str, _Attempt] = {}
        self._saying: set[asyncio.Task[None]] = set()

    @property
    def signals(self) -> Signals:
        """This, where signals are wanted: whatever is not remembered is left to the signals themselves."""
        return cast(Signals, self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._signals, name)

    async def open(self) -> None:
        """Answer from now on."""
        await self._signals.answer(subjects.progress_now_subject(self._store), self._answer)

    async def publish(self, subject: str, body: bytes) -> None:
        """`Signals.publish`; progress with who says it."""
        if subject.startswith("progress."):
            word = self._signed(decode(body))
            self._remember(word)
            body = msgspec.json.encode(word)
        await self._signals.publish(subject, body)

    # -- orders in hand: what a `Worker` tells ---------------------------------------------------------------------------

    def began(self, order: Order, attempt: int) -> None:
        """An attempt at an order begins."""
        word = word_of(order)
        before = self._hands.get(name_of(word))
        error = before.error if before and before.revision == order.revision else ""
        self._hands[name_of(word)] = _Attempt(order.revision, attempt, time.time(), error)
        word = self._signed(word)
        self._remember(word)
        if attempt > 1 and isinstance(word, PullProgress):  # others speak for themselves, as soon as there is news
            self._say(word)

    def retrying(self, order: Order, failure: Exception, seconds: float) -> None:
        """There will be another attempt, here or elsewhere."""
        word = msgspec.structs.replace(word_of(order), state="retrying", error=str(failure), retry_in=seconds)
        self._say(word)

    def ended(self, order: Order) -> None:
        """An order is done, for good or bad, or another's."""
        name = name_of(word_of(order))
        hand = self._hands.get(name)
        if hand is not None and hand.revision == order.revision:
            self._forget(name)

    # -- below: one step each --

    def _say(self, word: ProgressMessage) -> None:
        task = asyncio.ensure_future(self.publish(routing.progress_subject(word), msgspec.json.encode(word)))
        self._saying.add(task)
        task.add_done_callback(self._saying.discard)

    def _signed(self, word: ProgressMessage) -> ProgressMessage:
        """A word with the worker's name, its attempt, since when, and why that is not the first."""
        if hand := self._hands.get(name_of(word)):
            error = word.error or hand.error
            return msgspec.structs.replace(word, worker=self._me, attempt=hand.attempt, since=hand.since, error=error)
        return msgspec.structs.replace(word, worker=self._me)

    def _remember(self, word: ProgressMessage) -> None:
        name = name_of(word)
        if word.state in _OVER:
            self._words.pop(name, None)
            return
        self._words[name] = word
        if word.state == "retrying" and (hand := self._hands.get(name)):
            hand.error = word.error
            hand.until = time.time() + word.retry_in + _FORGET

    def _forget(self, name: str) -> None:
        self._words.pop(name, None)
        self._hands.pop(name, None)

    async def _answer(self, body: bytes) -> bytes:
        now = time.time()
        for name in [name for name, hand in self._hands.items() if hand.until < now]:
            self._forget(name)
        try:
            names = names_of(body)
        except Malformed:
            names = ()
        words = list(self._words.values()) if not names else await asyncio.to_thread(self._seen, names[:_MOST])
        return msgspec.json.encode(ProgressNow(store=self._store, works=tuple(words[:_MOST])))

    def _seen(self, names: tuple[str, ...]) -> list[ProgressMessage]:
        return [word for name in names if (word := self._words.get(name) or self._on_disk(name)) is not None]

    def _on_disk(self, name: str) -> ProgressMessage | None:
        try:
            return self._look(name)
        except (PullonceError, OSError):
            return None  # no name of ours, or nothing of that name


def word_of(order: Order) -> ProgressMessage:
    """What there is to say of an order before anything else has happened."""
    match order:
        case FetchBlob(blob=blob):
            return BlobProgress(store=order.store, digest=blob.digest, size=blob.size, state="waiting")
        case UnpackLayer(blob=blob):
            return LayerProgress(store=order.store, chain_id=order.chain_id, blob=blob.digest, size=blob.size, state="waiting")
        case ResolveReference() | RecordImage():
            return PullProgress(
                store=order.store,
                reference=order.reference,
                flight=order.flight,
                opened=order.opened,
                work="resolve" if isinstance(order, ResolveReference) else "record",
            )
        case _:
            raise TypeError(f"nobody tells of a {type(order).__name__}")
