"""Progress for those who come late: a worker remembers what it last said of work under way, and answers `progress.now.<store>`.

The question is empty, for everything under way, or a JSON array of digests and ChainIDs: then the disk is asked about each,
so that what was finished before anybody listened counts too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import msgspec

from pullonce.bus import Signals
from pullonce.errors import PullonceError
from schemas import subjects
from schemas.malformed import Malformed
from schemas.progress import BlobProgress, LayerProgress, ProgressNow, decode, names_of

log = logging.getLogger(__name__)

Word = BlobProgress | LayerProgress

_MOST = 1000
"""Pieces of work in one answer, which must fit into one message."""
_OVER = ("verified", "committed", "aborted")


class Present:
    """The signals of a worker, which remember the progress that is published through them.

    Args:
        store: the one it serves.
        look: what the disk says of a digest or ChainID; None where it holds nothing of it. Runs in a thread.
    """

    def __init__(self, signals: Signals, store: str, look: Callable[[str], Word | None]) -> None:
        self._signals = signals
        self._store = store
        self._look = look
        self._words: dict[str, Word] = {}

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
        """`Signals.publish`."""
        if subject.startswith("progress."):
            self._remember(decode(body))
        await self._signals.publish(subject, body)

    def _remember(self, word: Word) -> None:
        name = word.digest if isinstance(word, BlobProgress) else word.chain_id
        if word.state in _OVER:
            self._words.pop(name, None)
        else:
            self._words[name] = word

    async def _answer(self, body: bytes) -> bytes:
        try:
            names = names_of(body)
        except Malformed:
            names = ()
        words = list(self._words.values()) if not names else await asyncio.to_thread(self._seen, names[:_MOST])
        return msgspec.json.encode(ProgressNow(store=self._store, works=tuple(words[:_MOST])))

    def _seen(self, names: tuple[str, ...]) -> list[Word]:
        return [word for name in names if (word := self._words.get(name) or self._on_disk(name)) is not None]

    def _on_disk(self, name: str) -> Word | None:
        try:
            return self._look(name)
        except (PullonceError, OSError):
            return None  # no name of ours, or nothing of that name
