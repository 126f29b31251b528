"""What a service's connection to a NATS server receives: messages handed over as they lie, without detours.

nats-py reads correctly and at leisure: a regular expression and a copy of the whole buffer for each message, then a parsed
header, an object, a queue and a task; some 10 µs. Most of what pullonce receives are answers and events of a stream, which need
none of that. `LeanParser` takes the place of nats-py's own parser: what somebody takes raw is handed over at once, everything
else goes nats-py's way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from pullonce.bus.nats import insides
from pullonce.bus.nats.protocol import Cutter, Frame, Unreadable, headers_of, status_of, text

log = logging.getLogger(__name__)


class Raw(Struct, frozen=True, gc=False):
    """One message as it came. `reply` and `head` are empty where it has none."""

    subject: bytes
    reply: bytes
    head: bytes
    data: bytes

    @property
    def headers(self) -> dict[str, str]:
        return headers_of(self.head)

    @property
    def status(self) -> int:
        """The number of a status line (503: nobody listens); 0: it is a message like any other."""
        return status_of(self.head)


Take = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes one message (subject, reply, head, data; see `Raw`) in the event loop, between two reads; must not block."""


class LeanParser(Parser):
    """nats-py's parser, exchanged by `insides.exchange_parser` before the client connects.

    Attributes:
        takers: number of a subscription → who takes its messages raw.
    """

    def __init__(self, client: Client) -> None:
        self.takers: dict[bytes, Take] = {}
        self._life = 0
        super().__init__(client)

    def reset(self) -> None:
        """A new connection: what is left of the old one's bytes belongs to nobody."""
        super().reset()
        self._cutter = Cutter()
        self._life += 1

    async def parse(self, data: bytes = b"") -> None:
        """Hand over every message that is complete in what was received so far.

        Raises:
            ProtocolError: these are not the words of a NATS server. nats-py makes a new connection then.
        """
        try:
            frames = self._cutter.feed(data)
        except Unreadable as exc:
            raise ProtocolError(f"nats: {exc}") from None
        life, takers = self._life, self.takers
        for frame in frames:
            _verb, subject, number, reply, head, body = frame
            take = takers.get(number) if number else None
            if take is None:
                await self._hand_over(frame)
                if self._life != life:  # that ended the connection
                    return
                continue
            try:
                take(subject, reply, head, body)
            except Exception:  # a defect of one listener must not cost all others the connection
                log.exception("a listener on %s failed", text(subject))

    async def _hand_over(self, frame: Frame) -> None:
        """nats-py stops reading for good, and says nothing, when a message is more than it can take."""
        try:
            await insides.hand_over(self.nc, frame)
        except OSError:
            raise
        except Exception as exc:
            if frame[0] not in (b"MSG", b"HMSG"):
                raise ProtocolError(f"nats: {text(frame[0])} cannot be dealt with") from None
            log.warning("a message on %s is passed over: nats-py cannot read it (%r)", text(frame[1]), exc)
