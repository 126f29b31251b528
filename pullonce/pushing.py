"""One push as whoever wants it sees it: asked for, watched to its end, begun again where the fetcher at it died."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec

from pullonce.bus.ports import Signals
from pullonce.errors import PullonceError, ServicesMissing
from schemas.malformed import Malformed
from schemas.push import PushImage, PushNow, PushStatus, decode_status
from schemas.subjects import push_image_subject, push_now_subject

PATIENCE = 30.0
"""Seconds for which nobody may answer: a fetcher that died is started anew by then, and a bus is back."""
_ANSWER = 5.0
_AGAIN = 0.5
_LEAVING = 2.0


class PushFailed(PullonceError):
    """A push ended badly.

    Attributes:
        code: machine-readable reason.
    """

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


async def push(signals: Signals, wanted: PushImage, told: Callable[[PushStatus], None]) -> PushStatus:
    """Have an image pushed, and wait. Cancelling gives the push up; the next one goes on where it stood.

    Args:
        told: called with each change of how it stands.

    Returns:
        How it stood in the end.

    Raises:
        PushFailed: it cannot be done.
        ServicesMissing: no fetcher of the store answers, or this user of the bus may not push.
    """
    heard = time.monotonic()
    try:
        while True:
            try:
                status = await _ask(signals, push_image_subject(wanted.store), wanted)
                heard = time.monotonic()
                while status.state == "pushing":
                    told(status)
                    question = PushNow(heard=status.change)
                    status = await _ask(signals, push_now_subject(wanted.store, wanted.id), question)
                    heard = time.monotonic()
            except TimeoutError:
                if time.monotonic() - heard > PATIENCE:
                    what = f"no fetcher of store {wanted.store} answers, or this user of the bus is none who may push"
                    raise ServicesMissing(f"{what}; see `pullonce ping`") from None
                await asyncio.sleep(_AGAIN)
                continue
            told(status)
            if status.state == "failed":
                raise PushFailed(status.message, code=status.code)
            return status
    except asyncio.CancelledError:
        with suppress(TimeoutError):
            leave = msgspec.json.encode(PushNow(leave=True))
            await signals.request(push_now_subject(wanted.store, wanted.id), leave, timeout=_LEAVING)
        raise


async def _ask(signals: Signals, subject: str, question: PushImage | PushNow) -> PushStatus:
    """Raises TimeoutError where nobody answers, or not in words that are known."""
    try:
        return decode_status(await signals.request(subject, msgspec.json.encode(question), timeout=_ANSWER))
    except Malformed as exc:
        raise TimeoutError(str(exc)) from exc
