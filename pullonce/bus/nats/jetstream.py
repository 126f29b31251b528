"""The few JetStream requests pullonce makes, as typed calls over a link: API requests, storing, reading one message."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from pullonce.bus.nats.asked import PATIENCE, Unclear
from pullonce.bus.nats.link import RETRY_PAUSE, Headers, Link, Unheard
from pullonce.bus.nats.parser import Raw
from pullonce.bus.nats.protocol import headers_of, text
from pullonce.errors import BusError

log = logging.getLogger(__name__)

NO_CONSUMER = 10014
NO_MESSAGE = 10037
MESSAGE_GONE = frozenset({NO_MESSAGE, 10043, 10057})
"""There is nothing to delete at that position."""
NAME_IN_USE = 10058
NO_STREAM = 10059
WRONG_SEQUENCE = frozenset({10071, 10164})
SUBJECT_FULL = 10077
CONSUMER_IN_THE_WAY = frozenset({10099, 10100, 10138, 10147})
"""Another consumer takes some of these messages of a work queue."""
_ID_IN_PROCESS = 10158


class ApiError(msgspec.Struct, frozen=True):
    """What the server says in an answer that is an error."""

    code: int = 0
    err_code: int = 0
    description: str = ""

    @property
    def passing(self) -> bool:
        """It may go well in a moment: no leader yet, resources short, the same message id being stored."""
        return (self.code == 503 and self.err_code != SUBJECT_FULL) or self.err_code == _ID_IN_PROCESS


class Refused(BusError):
    """The server refused an API request or a write; nothing was changed by that attempt.

    Attributes:
        err_code: JetStream's number for the reason.
        unclear: an earlier attempt of the same write may have been stored.
    """

    def __init__(self, what: str, error: ApiError) -> None:
        super().__init__(f"{what}: {error.description} ({error.err_code})")
        self.err_code = error.err_code
        self.unclear = False


class Ack(msgspec.Struct, frozen=True):
    """The server's answer to a write."""

    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class Stored(msgspec.Struct, frozen=True):
    """One message as it lies in a stream."""

    subject: str
    sequence: int
    time: float
    headers: Headers
    body: bytes


class _Answer(msgspec.Struct, frozen=True):
    error: ApiError | None = None


_acks = msgspec.json.Decoder(Ack)
_answers = msgspec.json.Decoder(_Answer)


async def api(link: Link, name: str, request: object = None, *, timeout: float = PATIENCE, most: float = PATIENCE) -> Any:
    """Make one idempotent API request, again until it is answered, and return the decoded answer.

    Args:
        timeout: seconds until it is made again for the first time: it was lost, where leaders changed, or takes long.
        most: up to which that is doubled each time, so that a server with much to do is not given more.

    Raises:
        Refused: the answer is an error that will not pass.
        BusClosed: the link ended.
    """
    body = b"" if request is None else msgspec.json.encode(request)
    while True:
        try:
            msg = await link.ask(f"$JS.API.{name}", body, timeout=timeout)
        except Unclear:
            timeout = min(2 * timeout, max(timeout, most))
            continue
        except Unheard:
            await asyncio.sleep(RETRY_PAUSE)
            continue
        error = _answers.decode(msg.data).error
        if error is None:
            return msgspec.json.decode(msg.data)
        if not error.passing:
            raise Refused(name, error)
        await asyncio.sleep(RETRY_PAUSE)


async def store(link: Link, subject: str, body: bytes, headers: Headers) -> Ack:
    """Write to whatever stream takes the subject, again and again until the outcome is known.

    Only for writes whose repetition changes nothing: with a message id, an expected sequence, or one message a subject.

    Raises:
        Refused: the server refused the last attempt; its `unclear` says whether an earlier one may have been stored.
        BusClosed: the link ended.
    """
    unclear = False
    while True:
        try:
            ack = await store_once(link, subject, body, headers)
            link.refusing.discard(subject.partition(".")[0])
            return ack
        except Refused as exc:
            exc.unclear = unclear
            raise
        except Unclear as exc:
            if unclear and link.connected:  # a stream whose disk is full falls silent
                _say_once(link, subject, exc)
            unclear = True
        except Unheard as exc:
            if str(exc) == subject:  # no stream takes it
                await link.remake()
            _say_once(link, subject, exc)
            await asyncio.sleep(RETRY_PAUSE)


def _say_once(link: Link, subject: str, error: Exception) -> None:
    """Say that writes have to wait; once until one gets through, however many of them wait."""
    kind = subject.partition(".")[0]
    if kind not in link.refusing:
        link.refusing.add(kind)
        log.warning("nothing can be stored on %s at the moment (%s): trying on", subject, error)


async def store_once(link: Link, subject: str, body: bytes, headers: Headers, timeout: float = PATIENCE) -> Ack:
    """One attempt to write.

    Raises:
        Unheard: no stream takes the subject, or its stream says (in the message) why it cannot now.
        Unclear: no answer within `timeout` seconds.
        Refused: the server will not store it.
        BusClosed: the link ended.
    """
    msg = await link.ask(subject, body, headers=headers, timeout=timeout)
    try:
        ack = _acks.decode(msg.data)
    except msgspec.MsgspecError as exc:
        raise BusError(f"a write to {subject} was answered by something that is no stream: {exc}") from exc
    if ack.error is None:
        return ack
    if ack.error.passing:
        raise Unheard(ack.error.description)
    raise Refused(subject, ack.error)


def call(link: Link, subject: str, body: bytes, headers: Headers, done: Callable[[Ack | None], None]) -> None:
    """Write once, without waiting: `done` is called with the server's answer, or with None where the outcome is not known."""

    def take(raw: Raw | None) -> None:
        try:
            ack = _acks.decode(raw.data) if raw is not None and raw.data else None
        except msgspec.MsgspecError:
            ack = None
        done(ack)

    link.call(subject, body, headers, take)


async def last_message(link: Link, stream: str, subject: str) -> Stored | None:
    """The last message of a subject (wildcards allowed), read from the stream's leader and so never out of date."""
    return await _message(link, stream, {"last_by_subj": subject})


async def message_at(link: Link, stream: str, sequence: int) -> Stored | None:
    """The message at a position, read from the stream's leader."""
    return await _message(link, stream, {"seq": sequence})


async def _message(link: Link, stream: str, which: dict[str, object]) -> Stored | None:
    try:
        answer = await api(link, f"STREAM.MSG.GET.{stream}", which)
    except Refused as exc:
        if exc.err_code == NO_MESSAGE:
            return None
        raise
    message = answer["message"]
    return Stored(
        subject=message["subject"],
        sequence=message["seq"],
        time=datetime.fromisoformat(message["time"]).timestamp(),
        headers=headers_of(b64decode(message.get("hdrs", ""))),
        body=b64decode(message.get("data", "")),
    )


async def last_stored(link: Link, stream: str, subject: str) -> Stored | None:
    """The last message of one subject, from whichever copy of the stream answers: in a cluster it may lag by a moment.

    For readers who are held to some subjects: permissions see here what is asked for. Source: NATS ADR-31.

    Raises:
        BusClosed: the link ended.
    """
    while True:
        try:
            msg = await link.ask(f"$JS.API.DIRECT.GET.{stream}.{subject}")
        except Unclear:
            continue
        except Unheard:
            await asyncio.sleep(RETRY_PAUSE)
            continue
        headers = msg.headers
        if msg.status == 404:
            return None
        if "Nats-Sequence" not in headers:
            raise BusError(f"{subject} cannot be read: {text(msg.head).strip()}")
        time = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
        return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), time, headers, msg.data)
