"""What one requester is told while it waits: what concerns its flight, and the layers of its image once these are known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import msgspec

from pullonce.bus.ports import Bus, Subscription
from schemas import events, progress, subjects
from schemas.malformed import Malformed
from schemas.status import decode_status

PRESENT = 1.0
"""Seconds that workers have to say how far they are, to who joins in the middle."""
_TRIES, _BETWEEN = 20, 0.05
"""How often a coordinator that has not read the request yet is asked, and seconds between."""

PullUpdate = events.PullResolved | events.BlobFetched | events.LayerUnpacked | progress.ProgressMessage
"""What a requester may be told."""


class Listener:
    """Tells one requester of its flight.

    Args:
        key: store, reference and flight.
    """

    def __init__(self, bus: Bus, key: tuple[str, str, str], tell: Callable[[PullUpdate], None]) -> None:
        self._bus = bus
        self._store, _, flight = key
        self._resolved_subject = subjects.pull_subject("resolved", *key)
        self._ended_subjects = [subjects.pull_subject(verbed, *key) for verbed in ("completed", "failed")]
        self._tell = tell
        self._request = 0
        self._resolved = (0, 0)
        """Which resolution was told last: the beginning of its flight, and the revision of its order."""
        self._known: set[str] = {flight}
        self._subscriptions: list[Subscription] = []

    async def open(self) -> None:
        store = self._store
        filters = (
            self._resolved_subject, subjects.progress_filter(store), f"blob.fetched.{store}.*", f"layer.unpacked.{store}.*",
        )  # fmt: skip
        self._subscriptions += await asyncio.gather(*(self._bus.signals.subscribe(each, self._hear) for each in filters))

    async def stop(self) -> None:
        for subscription in self._subscriptions:
            await subscription.stop()

    async def asked(self, request: int) -> None:
        """The request of whoever is told has been stored, under this sequence: so it is known what answers it."""
        if not self._request:
            self._request = request
            await self.catch_up()

    async def catch_up(self) -> None:
        """Whoever joins in the middle, or comes back, has missed what was said: what was resolved, and where everything stands
        by now, the layers that were finished before included."""
        if not self._request:
            return
        recorded = await self._bus.log.last(self._resolved_subject)
        if recorded and isinstance(recorded.event, events.PullResolved) and await self._answers(recorded.event):
            self._resolve(recorded.event)
        question, subject = msgspec.json.encode(tuple(self._known)), subjects.progress_now_subject(self._store)
        await self._bus.signals.gather(subject, question, timeout=PRESENT, take=self._hear_all)

    async def _answers(self, event: events.PullResolved) -> bool:
        """Whether what was resolved is of the flight that answers the request, and not of an earlier one of the same key."""
        if event.opened >= self._request:
            return True
        for subject in self._ended_subjects:
            recorded = await self._bus.log.last(subject)
            ending = recorded.event if recorded else None
            if isinstance(ending, events.PullCompleted | events.PullFailed) and ending.opened == event.opened:
                return ending.covers > self._request
        # It may have ended, and that is not stored yet: whoever folds the log knows, once it has read the request.
        with contextlib.suppress(TimeoutError, Malformed):
            for _ in range(_TRIES):
                said = decode_status(await self._bus.signals.request(subjects.STATUS_SUBJECT, b"", timeout=PRESENT))
                if said.position >= self._request:
                    return any((each.flight, each.opened) == (event.flight, event.opened) for each in said.flights)
                await asyncio.sleep(_BETWEEN)
        return False

    def _resolve(self, event: events.PullResolved) -> None:
        if self._resolved == (event.opened, event.revision):
            return  # heard as it was said, and read in the log as well
        self._resolved = event.opened, event.revision
        self._known.update(name for layer in event.layers for name in (layer.blob.digest, layer.chain_id) if name)
        self._tell(event)

    def _hear_all(self, body: bytes) -> None:
        with contextlib.suppress(Malformed):
            for message in progress.decode_now(body).works:
                self._tell(message)

    def _hear(self, subject: str, body: bytes) -> None:
        update = _read(subject, body)
        if isinstance(update, events.PullResolved):
            self._resolve(update)
        elif update is not None and _concerned(update) in self._known:
            self._tell(update)


def _concerned(update: PullUpdate) -> str:
    """The digest, the ChainID or the flight that something is told of."""
    names = (getattr(update, each, "") for each in ("chain_id", "digest", "flight"))
    return next(filter(None, names), "")


def _read(subject: str, body: bytes) -> PullUpdate | None:
    try:
        if subject.startswith("progress."):
            return progress.decode(body)
        event = events.decode(subject, body)
    except Malformed:
        return None
    return event if isinstance(event, (events.PullResolved, events.BlobFetched, events.LayerUnpacked)) else None
