"""One blob into a registry: not at all where it is there, from a neighbour where the registry can, else in parts.

HEAD            it is there
POST ?mount     the registry takes it over from another of its repositories
PUT             a small one in one request; a large one where the registry takes no parts
PATCH …, PUT    a large one; after a break it goes on where the registry says that it stands
"""

import asyncio
import logging
import os
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import Verifier
from pullonce.worker.worker import BRIEF, backoff
from schemas.oci import Descriptor
from services.fetcher.pushing.records import UploadRecord
from services.fetcher.remote.sessions import BrokenOff, Destination, Refused, Session, SessionGone
from services.fetcher.remote.transport import Body
from services.fetcher.remote.uploads import Uploads

log = logging.getLogger(__name__)

PART = 32 << 20
"""Bytes of a part. Proxies take 100 MB and more; what breaks off costs at most so much, where a registry keeps no half part."""
SMALLEST_PART = 256 << 10
_LENGTHEN = 4
"""Parts that a server takes one after another before the next are twice as long again."""
_PIECE = 1 << 20
_LONGEST_WISH = 300.0
"""Seconds: what a registry may ask for in `Retry-After`."""
_NO_PARTS = (400, 405, 411, 415, 501)
"""What registries that know no parts answer to one; the whole is tried then."""

Outcome = Literal["there", "mounted", "pushed"]
Tell = Callable[[str, int, str], None]
"""State, bytes that the registry has, and why it is tried again."""


@dataclass(slots=True)
class Way:
    """How a server takes blobs, as was learnt of it."""

    part: int
    whole: bool = False
    """It takes no parts."""
    parted: bool = False
    """It takes parts alone, be there one of them."""


@dataclass(slots=True)
class BlobPush:
    """One blob on its way to one place.

    Attributes:
        file: the blob, open for reading.
        record: where its upload stood.
        origin: a repository of the same registry that may have it; empty: none.
        way: what is known of the server.
        attempts: without progress, before a failure is final.
        doubted: it is sent whatever the server says that it has.
    """

    uploads: Uploads
    to: Destination
    blob: Descriptor
    file: int
    record: UploadRecord
    origin: str
    way: Way
    attempts: int
    tell: Tell
    doubted: bool = False
    _offset: int = field(default=0, init=False)
    """Bytes that the registry has."""
    _reached: int = field(default=0, init=False)
    """The most that it ever had at a break."""
    _begun_anew: int = field(default=0, init=False)
    _sent: int = field(default=0, init=False)
    """The end of the furthest part that was sent to the upload."""
    _part: int = field(default=0, init=False)
    """Bytes of the next part, where the server does not want fewer: less than usual after a break."""
    _in_a_row: int = field(default=0, init=False)
    """Parts that were taken since its length changed."""

    def __post_init__(self) -> None:
        self._part = self.way.part

    async def run(self) -> Outcome:
        """Bring it there.

        Raises:
            Permanent, Retryable: it cannot be brought; `blob.damaged`, where the store has something else.
        """
        attempt = 0
        while True:
            try:
                return await self._attempt()
            except SessionGone:
                self.record.forget()
                self._begun_anew += 1
                what = f"{self.to.named} forgets the upload of {self.blob.digest} again and again"
                failure = Retryable(what, code="registry.unavailable")
                if self._begun_anew > BRIEF:
                    raise failure from None
                if self._begun_anew == 1:
                    continue
                if not self._offset and not self.way.whole:  # some say of a part what others say of an upload that has ended
                    self.way.whole = True
                    continue
            except Retryable as exc:
                failure = exc
                if isinstance(exc, BrokenOff):  # a proxy that cuts long requests off says nothing of it
                    self._shorten()
            attempt = 1 if self._moved() else attempt + 1
            if attempt >= (min(BRIEF, self.attempts) if failure.brief else self.attempts):
                raise failure
            delay = backoff(attempt, random.random()) if failure.after is None else min(failure.after, _LONGEST_WISH)
            log.info("a push is tried again in %.1f s: %s", delay, failure, extra={"digest": self.blob.digest})
            self.tell("retrying", self._offset, str(failure))
            await asyncio.sleep(delay)

    def _moved(self) -> bool:
        """Whether the registry has more than it ever had before."""
        if self._offset <= self._reached:
            return False
        self._reached = self._offset
        return True

    def _shorten(self) -> None:
        self._part = max(min(self._part, self.way.part) // 2, SMALLEST_PART)
        self._in_a_row = 0

    def _lengthen(self) -> None:
        self._in_a_row += 1
        if self._in_a_row >= _LENGTHEN:
            self._part = max(self._part, min(2 * self._part, self.way.part))
            self._in_a_row = 0

    async def _attempt(self) -> Outcome:
        if not self.doubted and await self.uploads.has(self.to, self.blob):
            self.record.forget()
            return "there"
        session = await self._session()
        if session is None:
            return "mounted"
        session = await self._send_parts(session)
        if session.offset == 0 and self.blob.size:
            await self._finish(session, self._body(0, self.blob.size))
        else:
            await self._finish(session, None)
        self.record.forget()
        return "pushed"

    async def _session(self) -> Session | None:
        """An upload to go on with: an interrupted one, or a new one; None where none is needed."""
        session = self.record.interrupted()
        if session is not None:
            try:
                session = await self.uploads.status(self.to, session)
                if session.offset <= self.blob.size and not (self.way.whole and session.offset):
                    return session
            except (SessionGone, Permanent):
                pass  # it is not there any more, or is not ours
            self.record.forget()
        self._sent = 0
        session = await self._begun()
        if session is not None:
            self.record.note(session)
        return session

    async def _begun(self) -> Session | None:
        if self.origin and not self.doubted:
            try:
                return await self.uploads.begin(self.to, self.blob.digest, self.origin)
            except Permanent as exc:  # it may not be read there, or the registry knows no such thing
                log.info("not mounted from %s: %s", self.origin, exc, extra={"digest": self.blob.digest})
                self.origin = ""
        return await self.uploads.begin(self.to, self.blob.digest)

    async def _send_parts(self, session: Session) -> Session:
        """Send what is longer than one request should be; what has not begun and fits into one is left to that."""
        self._offset = session.offset
        self._sent = max(self._sent, session.offset)
        while session.offset < self.blob.size:
            part, before = max(min(self._part, self.way.part), session.smallest), replace(self.way)
            if session.offset == 0 and (self.way.whole or (self.blob.size <= part and not self.way.parted)):
                break
            body = self._body(session.offset, min(part, self.blob.size - session.offset))
            self._sent = max(self._sent, session.offset + body.size)
            try:
                session = await self.uploads.send(self.to, session, self.blob.digest, body)
            except Refused as exc:
                session = await self._otherwise(session, exc)
            if session.offset > self._sent:  # somebody else's, or a count of something else
                raise SessionGone
            if session.offset > self._offset:
                self._offset = session.offset
                self._lengthen()
            elif self.way == before:  # it says no more than before, or takes back what it said
                what = f"{self.to.named} takes nothing of {self.blob.digest}, and does not say why"
                raise Retryable(what, code="registry.answer", brief=True)
            self.record.note(session)
        return session

    async def _otherwise(self, session: Session, refused: Refused) -> Session:
        """A part was not taken in this form: in smaller ones, from where the registry stands, or as a whole.

        Raises:
            SessionGone: begin anew, the other way.
            Permanent: there is no other way.
        """
        match refused.status:
            case 413 if min(self._part, self.way.part) > max(SMALLEST_PART, session.smallest):
                self._shorten()
                self.way.part = self._part
                return session
            case 416:
                found = await self.uploads.status(self.to, session)
                if found.offset == session.offset:
                    raise SessionGone
                return found
            case status if status in _NO_PARTS and not self.way.whole:
                log.info("%s takes no parts: %s", self.to.host.origin, refused)
                self.way.whole = True
                raise SessionGone
            case _:
                raise refused.failure

    async def _finish(self, session: Session, body: Body | None) -> None:
        try:
            await self.uploads.finish(self.to, session, self.blob, body)
        except Refused as exc:
            if body is not None and exc.status == 413 and self.blob.size > SMALLEST_PART:
                self.way.part = max(min(self.way.part, self.blob.size) // 2, SMALLEST_PART)
                self.way.whole = False
                raise SessionGone from None
            known = self.way.whole or self.way.parted
            if body is not None and exc.status in _NO_PARTS and exc.failure.code != "DIGEST_INVALID" and not known:
                log.info("%s takes no blob in one piece: %s", self.to.host.origin, exc)
                self.way.parted = True
                raise SessionGone from None
            await asyncio.to_thread(self._check_own)
            if self._begun_anew:
                raise exc.failure from None
            log.warning("pushed anew: %s", exc, extra={"digest": self.blob.digest})
            raise SessionGone from None

    def _check_own(self) -> None:
        """The registry does not find what we sent right: is it?

        Raises:
            Permanent: `blob.damaged`.
        """
        verifier, position = Verifier(self.blob.digest), 0
        while piece := os.pread(self.file, _PIECE, position):
            verifier.update(piece)
            position += len(piece)
        if position != self.blob.size or not verifier.verified():
            what = f"{self.blob.digest} is damaged in this store: `pullonce verify --repair` fetches it again"
            raise Permanent(what, code="blob.damaged", concerns="key")

    def _body(self, start: int, size: int) -> Body:
        return Body(size, lambda: self._read(start, size))

    async def _read(self, start: int, size: int) -> AsyncGenerator[bytes, None]:
        position, end = start, start + size
        self.tell("pushing", position, "")
        while position < end:
            piece = await asyncio.to_thread(os.pread, self.file, min(_PIECE, end - position), position)
            if not piece:
                what = f"{self.blob.digest} became shorter while it was read; `pullonce verify --repair` fetches it again"
                raise Permanent(what, code="blob.damaged", concerns="key")
            yield piece
            position += len(piece)
            self.tell("pushing", position, "")
