"""The wire of NATS, as bytes: what a server sends is cut into frames, what we say is written. No I/O, and no import of a
client.

Three readers use it: the light client of one question, the link of services, and whoever reads the whole log. So what counts
as a message, how large it may be and what a reply subject says is decided here, once, and alike for all.

What comes from the server's other clients is never trusted: subjects, replies and headers are theirs, and may be any bytes.

Source: the NATS client protocol, https://docs.nats.io/reference/reference-protocols/nats-protocol; for headers NATS ADR-4, for
the reply subjects of JetStream ADR-15.
"""

from __future__ import annotations

from pullonce.bus.limits import MAX_MESSAGE, check_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Frame = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""What one command of the server says: verb, subject, number of the subscription, reply, head, body. A verb other than `MSG`
and `HMSG` has only the rest of its line, in place of the subject."""

Position = tuple[int, int, int, int, int]
"""How often a message was delivered, this time included; its place in the stream; its place among the deliveries of the
consumer; when it was stored, in nanoseconds since the epoch; messages of the consumer's that are stored behind it."""

MAX_LINE = 64 * 1024
"""Bytes of a command line. A server's longest is the INFO of a large cluster, of some kilobytes."""

MAX_BODY = 64 * 1024 * 1024
"""Bytes of a message with its headers: no server can be configured to send more."""

MAX_COMMAND = 4096
"""Bytes of a command line of ours: a server closes the connection on a longer one. Source: `max_control_line`."""

STORED = b"$JS.ACK."
"""What the reply subject of a message begins with that a consumer delivers."""

_CONTROL = (b"PING", b"PONG", b"INFO", b"-ERR", b"+OK")


class Unreadable(Exception):
    """These are not the words of a NATS server: the connection is of no more use."""


class Unwritable(ValueError):
    """The protocol cannot carry such a message."""


class Cutter:
    """Cuts the bytes of one connection, however they were broken, into frames."""

    __slots__ = ("_kept", "_missing")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._missing = 0

    def feed(self, data: bytes) -> list[Frame]:
        """Every frame that is complete with these bytes, in order.

        Raises:
            Unreadable: as `cut`. What was complete before is lost with the connection.
        """
        if self._kept:
            self._kept.append(data)
            self._missing -= len(data)
            if self._missing > 0:  # a large message comes in many pieces, which are not to be joined at each of them
                return []
            data = b"".join(self._kept)
        frames, at, self._missing = cut(data)
        self._kept = [data[at:]] if at < len(data) else []
        return frames


def cut(data: bytes) -> tuple[list[Frame], int, int]:
    """Everything complete in some bytes.

    Returns:
        The frames; where the first incomplete one begins; how many bytes it lacks at least (0: nothing is left over).

    Raises:
        Unreadable: the bytes are none of a NATS server.
    """
    frames: list[Frame] = []
    at, end, find, add = 0, len(data), data.find, frames.append
    while (stop := find(b"\r\n", at)) >= 0:
        line, start = data[at:stop], stop + 2
        # Verb, subject, number, [reply,] [size of the head,] size of all. Not split(): a subject may hold a form feed.
        # Not `int` alone: that takes signs and underscores, and numbers of any length.
        words = line.split(b" ")
        verb = words[0]
        if verb != b"MSG" and verb != b"HMSG":
            add(_control(verb, line))
            at = start
            continue
        count, size, head = len(words), words[-1], words[-2] if verb == b"HMSG" else b"0"
        if not (size.isdigit() and head.isdigit() and len(size) < 9 > len(head)):
            raise Unreadable("a message without a size")
        body, behind = start + int(head), start + int(size)
        replied = count - (5 if verb == b"HMSG" else 4)
        if not (body <= behind <= start + MAX_BODY and 0 <= replied <= 1 and words[2].isdigit()):
            raise Unreadable(f"a {verb.decode()} whose numbers cannot be")
        if behind + 2 > end:
            return frames, at, behind + 2 - end
        if data[behind : behind + 2] != b"\r\n":
            raise Unreadable("a message does not end where its size says")
        add((verb, words[1], words[2], words[3] if replied else b"", data[start:body], data[body:behind]))
        at = behind + 2
    if end - at > MAX_LINE:
        raise Unreadable(f"a command line of more than {MAX_LINE} bytes")
    return frames, at, 1 if at < end else 0


def _control(verb: bytes, line: bytes) -> Frame:
    if (word := verb.upper()) not in _CONTROL:
        raise Unreadable(f"{line[:40]!r} is no command of a NATS server")
    return word, line.strip()[len(verb) :].strip(), b"", b"", b"", b""


def complaint(rest: bytes) -> str:
    """What an `-ERR` says, without its quotes."""
    return text(rest).strip().strip("'")


def text(raw: bytes) -> str:
    """A subject, or anything else that somebody wrote, as text. It may be any bytes: what is no UTF-8 is replaced."""
    return raw.decode("utf-8", "replace")


def nanoseconds(seconds: float) -> int:
    """A duration as requests to JetStream have it."""
    return int(seconds * 1_000_000_000)


# -- heads -------------------------------------------------------------------------------------------------------------


def status_of(head: bytes) -> int:
    """The number of a status line (503: nobody listens; 404: there is none); 0: it is a message like any other."""
    number = head[9:12]
    return int(number) if head.startswith(b"NATS/1.0 ") and len(number) == 3 and number.isdigit() else 0


def headers_of(head: bytes) -> dict[str, str]:
    """`NATS/1.0[ status[ description]]\\r\\nName: value\\r\\n…` → names and values; the first line is left out. What is no
    header is passed over: whoever publishes a message may write anything there."""
    if not head:
        return {}
    lines = text(head).split("\r\n")[1:]
    return {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def position(reply: bytes) -> Position | None:
    """Where a delivered message stands, out of its reply subject; None: that is not one that a consumer writes.

    `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>`

    Source: NATS ADR-15. The long form has a domain, an account hash and, at the end, possibly further tokens.
    """
    if not reply.startswith(STORED):
        return None
    tokens = reply.split(b".")
    count = len(tokens)
    numbers = tokens[4:9] if count == 9 else tokens[6:11] if count >= 11 else []
    digits = b"".join(numbers)
    if not digits.isdigit() or len(digits) > 100 or b"" in numbers:  # not `int` alone: that takes signs and underscores too
        return None
    delivered, sequence, among, time, pending = map(int, numbers)
    return delivered, sequence, among, time, pending


# -- what we say -------------------------------------------------------------------------------------------------------


def written(
    subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] | None = None, most: int = MAX_MESSAGE
) -> bytes:
    """The command that publishes a message.

    Args:
        most: bytes of a message that the server takes.

    Raises:
        Unwritable: a subject, a reply or a name of a header that the protocol cannot carry.
        Permanent: more than the bus takes (`message.too_large`).
    """
    where = _subject(subject) if not reply else b"%b %b" % (_subject(subject), _subject(reply))
    head = _head(headers) if headers else b""
    size = len(head) + len(body)
    check_size(subject, size, min(most, MAX_MESSAGE))
    line = b"HPUB %b %d %d" % (where, len(head), size) if head else b"PUB %b %d" % (where, size)
    if len(line) > MAX_COMMAND:
        raise Unwritable(f"a subject of {len(where)} bytes: a NATS server takes command lines of {MAX_COMMAND}")
    return b"%b\r\n%b%b\r\n" % (line, head, body)


def _subject(subject: str) -> bytes:
    raw = subject.encode("utf-8", "surrogateescape")
    if raw.split() != [raw] or b"\0" in raw:
        raise Unwritable(f"{subject!r} is no subject: it is empty, or holds spaces or line breaks")
    return raw


def _head(headers: Mapping[str, str]) -> bytes:
    lines = ["NATS/1.0\r\n"]
    for name, value in headers.items():
        if not name or not name.isascii() or not name.isprintable() or ":" in name or " " in name:
            raise Unwritable(f"{name!r} is no name of a header")
        if "\n" in value or "\r" in value:
            value = " ".join(filter(None, value.replace("\r", "\n").split("\n")))
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("utf-8", "replace")


def too_small(most: object) -> str:
    """Why a server that takes messages of at most `most` bytes (`max_payload`) cannot serve; empty: it can. Found at the
    start, since it would close the connection on the first larger message, which may come after months."""
    if isinstance(most, int) and most >= MAX_MESSAGE:
        return ""
    return (
        f"the NATS server takes messages of at most {most} bytes, and pullonce's may have {MAX_MESSAGE}: "
        "set `max_payload: 1MB` in its configuration"
    )
