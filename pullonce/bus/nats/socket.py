"""A NATS client for one process that lives for one question: blocking, on a plain socket, and light to import.

Importing nats-py costs more processor time than a whole pull of an image that is there; twenty clients would pay it twenty
times. This speaks the core protocol only (INFO, CONNECT, SUB, PUB, HPUB, MSG, HMSG, PING), to one server, without TLS and
credentials. Everything else is the full client's work: `Unsupported` says so, and the caller falls back.

Source: the NATS client protocol, https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import _socket  # Python's `socket` is made of it; loading that, with its enums and selectors, costs a tenth of a light client.
import json
import os
import select
import time
from collections import deque

from pullonce.bus.nats.protocol import Cutter, Frame, Unreadable, complaint, status_of, text, too_small, written
from pullonce.errors import BusUnavailable, BusUnsuitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_RECEIVE = 65536
_FOREVER = 1e6


class Unsupported(Exception):
    """This server or address needs the full client (TLS, credentials, several addresses)."""


class Woken(Exception):
    """The wait was ended from outside, through `Connection.wake`."""


class ConnectionLost(Exception):
    """The server went away in mid-conversation."""


class Message:
    """One message. `status` is the number of a status line (503: nobody listens; 404: there is none), else 0."""

    __slots__ = ("body", "headers", "reply", "sid", "status", "subject")

    def __init__(self, frame: Frame) -> None:
        _, subject, number, self.reply, self.headers, self.body = frame
        self.subject = text(subject)
        self.sid = int(number)
        self.status = status_of(self.headers)


def address(url: str) -> tuple[str, int]:
    """Host and port of a plain `nats://host[:port]`.

    Raises:
        Unsupported: the address says more than that.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "nats", url
    rest = rest.rstrip("/")
    if scheme != "nats" or any(c in rest for c in ",@/?"):
        raise Unsupported(url)
    host, colon, port = rest.rpartition(":")
    if not colon or rest.endswith("]"):
        host, port = rest, "4222"
    if not port.isdigit():
        raise Unsupported(url)
    return host.strip("[]"), int(port)


def _connected(host: str, port: int, timeout: float) -> _socket.socket:
    """A connection to the first address of a host that answers; raises OSError."""
    failure: OSError | None = None
    for family, kind, protocol, _, place in _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM):
        made = _socket.socket(family, kind, protocol)
        try:
            made.settimeout(timeout)
            made.connect(place)
            return made
        except OSError as exc:
            made.close()
            failure = exc
    raise failure or OSError(f"{host} has no address")


class Connection:
    """One connection. Whatever is subscribed and published is collected and sent with the next `receive` or `flush`.

    Raises (all methods that touch the socket):
        ConnectionLost: the server went away; make a new connection.
        Woken: `wake` became readable.
    """

    def __init__(self, url: str, *, timeout: float = 2.0, name: str = "pullonce") -> None:
        """Connect.

        Raises:
            BusUnavailable: no NATS server answers there within `timeout` seconds.
            BusUnsuitable: the server refuses us.
            Unsupported: the full client is needed.
        """
        self.url = url
        self._name = name
        self._cutter = Cutter()
        self._frames: deque[Frame] = deque()
        """What was read and not yet asked for."""
        self._out = bytearray()
        self._sids = 0
        self._pongs = 0
        self._info: dict[str, object] = {}
        self.wake: int | None = None
        """Descriptor that ends a wait when it becomes readable, as signals do by `signal.set_wakeup_fd`."""
        self.inbox = f"_INBOX.{os.urandom(11).hex()}"
        """Prefix for the reply subjects of this connection."""
        try:
            self._socket = _connected(*address(url), timeout)
            self._socket.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
            self._greet(time.monotonic() + timeout)
        except (OSError, ConnectionLost) as exc:
            raise BusUnavailable(f"no NATS server answers at {url}: {exc}") from exc

    def _greet(self, deadline: float) -> None:
        while not self._info:
            self._fill(deadline)
            self._next()
        if self._info.get("tls_required") or self._info.get("auth_required") or self._info.get("nonce"):
            self.close()
            raise Unsupported(self.url)
        if not (self._info.get("headers") and self._info.get("jetstream")):
            self.close()
            raise BusUnsuitable(f"the NATS server at {self.url} has no JetStream; start it with -js, version 2.12 or newer")
        if why := too_small(self._info.get("max_payload")):
            self.close()
            raise BusUnsuitable(f"{self.url}: {why}")
        options = {
            "verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1,
            "lang": "python", "version": "0", "name": self._name,
        }  # fmt: skip
        self._out += f"CONNECT {json.dumps(options)}\r\n".encode()

    def subscribe(self, subject: str) -> int:
        """Subscribe, and return the number that its messages carry as `sid`."""
        self._sids += 1
        self._out += f"SUB {subject} {self._sids}\r\n".encode()
        return self._sids

    def publish(self, subject: str, body: bytes, *, reply: str = "", message_id: str = "", trace: str = "") -> None:
        """Publish; `message_id` is what a stream recognises a repetition by, `trace` a `traceparent` that goes with it.

        Raises:
            Unwritable, Permanent: as `protocol.written`.
        """
        named = {"Nats-Msg-Id": message_id, "traceparent": trace}
        headers = {name: value for name, value in named.items() if value}
        self._out += written(subject, body, reply, headers)

    def receive(self, timeout: float) -> Message | None:
        """The next message; None when `timeout` seconds have passed without one."""
        deadline = time.monotonic() + timeout
        while True:
            if (message := self._next()) is not None:
                return message
            self._send()
            try:
                self._fill(deadline)
            except TimeoutError:
                return None

    def flush(self, timeout: float = 2.0) -> None:
        """Return when the server has read all that was sent, or after `timeout` seconds. Messages that come by are lost."""
        wanted, deadline = self._pongs + 1, time.monotonic() + timeout
        self._out += b"PING\r\n"
        self._send()
        try:
            while self._pongs < wanted:
                self._fill(deadline)
                while self._next() is not None:
                    pass
        except TimeoutError:
            pass

    def arrived(self, timeout: float) -> list[Frame]:
        """All messages that have arrived, as they were cut, for whoever reads many.

        Raises:
            TimeoutError: nothing has arrived within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (found := [frame for frame in self._taken() if self._is_message(frame)]):
            self._send()
            self._fill(deadline)
        self._send()
        return found

    def close(self) -> None:
        self._socket.close()

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if not self._out:
            return
        try:
            self._socket.settimeout(10.0)
            self._socket.sendall(self._out)
        except OSError as exc:
            raise ConnectionLost(str(exc)) from exc
        self._out.clear()

    def _fill(self, deadline: float) -> None:
        """Read what is there; raises TimeoutError at the deadline.

        Raises:
            Woken: `wake` became readable. Nothing was read, so nothing is lost, which an exception out of a signal handler
                could not promise.
        """
        files: list[_socket.socket | int] = [self._socket] if self.wake is None else [self._socket, self.wake]
        left = deadline - time.monotonic()
        readable = select.select(files, [], [], max(left, 0.0) if left < _FOREVER else None)[0]
        if self.wake in readable:
            raise Woken
        if not readable:
            raise TimeoutError
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError as exc:
            raise ConnectionLost(str(exc)) from exc
        if not data:
            raise ConnectionLost("the server closed the connection")
        try:
            self._frames.extend(self._cutter.feed(data))
        except Unreadable as exc:
            raise ConnectionLost(f"what answers there is no NATS server: {exc}") from exc

    def _taken(self) -> Iterator[Frame]:
        while self._frames:
            yield self._frames.popleft()

    def _next(self) -> Message | None:
        """Take the next message out of what was read; protocol lines in between are dealt with here."""
        for frame in self._taken():
            if self._is_message(frame):
                return Message(frame)
        return None

    def _is_message(self, frame: Frame) -> bool:
        """Deal with what is none."""
        verb, rest, *_ = frame
        match verb:
            case b"MSG" | b"HMSG":
                return True
            case b"PING":
                self._out += b"PONG\r\n"
                self._send()
            case b"PONG":
                self._pongs += 1
            case b"INFO":
                self._info = json.loads(rest)
            case b"-ERR":
                said = complaint(rest)
                # These leave the connection open, and what was refused would otherwise just never be answered.
                if said.lower().startswith(("permissions violation", "authorization", "maximum", "user authentication")):
                    raise BusUnsuitable(f"the NATS server at {self.url} says: {said}")
                raise ConnectionLost(said)
        return False
