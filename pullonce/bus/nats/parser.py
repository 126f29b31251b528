"""What goes over a connection to a NATS server, as bytes: messages cut out as they lie, and written without detours.

nats-py reads and writes correctly and at leisure: a regular expression and a copy of the whole buffer for each message, then a
parsed header, an object, a queue and a task; some 10 µs. Most of what pullonce receives are answers and events of a stream,
which need none of that. `LeanParser` takes the place of nats-py's own parser: what somebody takes raw is handed over at once,
everything else goes nats-py's way.

Source: the NATS client protocol, https://docs.nats.io/reference/reference-protocols/nats-protocol; for headers NATS ADR-4.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping

from msgspec import Struct
from nats.aio.client import Client
from nats.errors import BadSubjectError, ProtocolError
from nats.protocol.parser import Parser

log = logging.getLogger(__name__)

_UNFIT = re.compile(r"[\s\0]")
_BREAK = re.compile(r"[\r\n]+")


class Raw(Struct, frozen=True, gc=False):
    """One message as it came. `reply` and `head` are empty where it has none."""

    subject: bytes
    reply: bytes
    head: bytes
    data: bytes

    @property
    def headers(self) -> dict[str, str]:
        return headers_of(self.head) if self.head else {}

    @property
    def status(self) -> bytes:
        """The number of a status line (`503`: nobody listens); empty: it is a message like any other."""
        return status_of(self.head)


Take = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes one message (subject, reply, head, data; see `Raw`) in the event loop, between two reads; must not block."""


def status_of(head: bytes) -> bytes:
    """The number of a status line; empty: there is none."""
    return head[9:12] if head.startswith(b"NATS/1.0 ") else b""


def headers_of(head: bytes) -> dict[str, str]:
    """`NATS/1.0[ status[ description]]\\r\\nName: value\\r\\n…` → names and values; the first line is left out."""
    lines = head.decode("utf-8", "replace").split("\r\n")[1:]
    return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def written(subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    """The command that publishes a message.

    Raises:
        BadSubjectError: a subject that the protocol cannot carry.
    """
    if not subject or _UNFIT.search(subject) or (reply and _UNFIT.search(reply)):
        raise BadSubjectError
    if not headers:
        return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(body), body)
    lines = "".join([f"{name}: {_BREAK.sub(' ', value)}\r\n" for name, value in headers.items()])
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    size = len(head)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject.encode(), reply.encode(), size, size + len(body), head, body)


class LeanParser(Parser):
    """nats-py's parser, exchanged: `client._ps = LeanParser(client)` before it connects.

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
        self._left = b""
        self._life += 1

    async def parse(self, data: bytes = b"") -> None:
        """Hand over every message that is complete in what was received so far.

        Raises:
            ProtocolError: these are not the words of a NATS server.
        """
        if self._left:
            data = self._left + data
            self._left = b""
        life, at, takers = self._life, 0, self.takers
        while (end := data.find(b"\r\n", at)) >= 0:
            line, start = data[at:end], end + 2
            words = line.split()  # verb, subject, sid, [reply,] [header size,] size
            verb = words[0] if words else b""
            if verb == b"MSG" or verb == b"HMSG":
                try:
                    behind = start + int(words[-1])
                    body = start + int(words[-2]) if verb == b"HMSG" else start
                except (ValueError, IndexError):
                    raise ProtocolError("nats: malformed MSG") from None
                if not start <= body <= behind:
                    raise ProtocolError("nats: malformed MSG")
                if len(data) < behind + 2:
                    break
                at = behind + 2
                reply = words[3] if len(words) == (6 if verb == b"HMSG" else 5) else b""
                take = takers.get(words[2])
                if take is not None:
                    try:
                        take(words[1], reply, data[start:body], data[body:behind])
                    except Exception:  # a defect of one listener must not cost all others the connection
                        log.exception("a listener on %s failed", words[1].decode(errors="replace"))
                    continue
                await self.nc._process_msg(int(words[2]), words[1], reply, data[body:behind], data[start:body])
            else:
                at = start
                await self._control(verb, line)
            if self._life != life:  # that ended the connection
                return
        self._left = data[at:]

    async def _control(self, verb: bytes, line: bytes) -> None:
        match verb:
            case b"PING":
                await self.nc._process_ping()
            case b"PONG":
                await self.nc._process_pong()
            case b"INFO":
                await self.nc._process_info(json.loads(line[4:]))
            case b"-ERR":
                await self.nc._process_err(line[4:].strip().decode(errors="replace").lower())
            case b"+OK":
                pass
            case _:
                raise ProtocolError("nats: unknown protocol")
