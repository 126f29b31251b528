"""A NATS client for one process that lives for one question: blocking, on a plain socket, and light to import.

Importing nats-py costs more processor time than a whole pull of an image that is there; twenty clients would pay it twenty
times. This speaks the core protocol only (INFO, CONNECT, SUB, PUB, HPUB, MSG, HMSG, PING), over TLS and with credentials where
there are any (`greeting`). A WebSocket is the full client's work.

Source: the NATS client protocol, https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import _socket  # Python's `socket` is made of it; loading that, with its enums and selectors, costs a tenth of a light client.
import json
import os
import select
import time
from collections import deque

from pullonce.bus.nats.greeting import Access, addresses, answer, connected, wants_tls
from pullonce.bus.nats.protocol import Cutter, Frame, Unreadable, complaint, status_of, text, too_small, written
from pullonce.errors import BusUnavailable, BusUnsuitable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pullonce.bus.nats.greeting import Address
    from pullonce.bus.nats.secured import Secured

_RECEIVE = 65536
_FOREVER = 1e6


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


def _left(deadline: float) -> float:
    """Seconds until then; raises TimeoutError where there are none: to a socket they would mean something else."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class Connection:
    """One connection. Whatever is subscribed and published is collected and sent with the next `receive` or `flush`.

    Raises (all methods that touch the socket):
        ConnectionLost: the server went away; make a new connection.
        Woken: `wake` became readable.
    """

    def __init__(
        self, url: str, *, timeout: float = 2.0, name: str = "pullonce", access: Access | None = None,
        wake: int | None = None,
    ) -> None:  # fmt: skip
        """Connect.

        Args:
            url: one address, or several with commas between them; with a user and a password where it has them.
            timeout: seconds that each may take.
            access: what else lets us in.

        Raises:
            BusUnavailable: no NATS server answers there in time; its `silent` says whether somebody is there.
            BusUnsuitable: we and the server do not come together.
            Woken: `wake` became readable.
        """
        self._name = name
        self._access = access or Access()
        self._sids = 0
        self._pongs = 0
        self.wake = wake
        """Descriptor that ends a wait when it becomes readable, as signals do by `signal.set_wakeup_fd`."""
        self.inbox = f"{self._access.inbox}.{os.urandom(11).hex()}"
        """Prefix for the reply subjects of this connection."""
        failure: BusUnavailable | None = None
        for address in addresses(url):
            self._cutter = Cutter()
            self._frames: deque[Frame] = deque()
            """What was read and not yet asked for."""
            self._out = bytearray()
            self._info: dict[str, object] = {}
            self.shown = address.shown
            """The address that answered, without secrets."""
            try:
                return self._open(address, time.monotonic() + timeout)
            except BusUnavailable as exc:
                failure = exc
        assert failure is not None
        raise failure

    def _open(self, address: Address, deadline: float) -> None:
        connection: _socket.socket | None = None
        try:
            self._socket: _socket.socket | Secured = connected(address, _left(deadline))
            connection = self._socket
            self._greet(address, deadline)
        except (OSError, ConnectionLost) as exc:
            if connection is not None:
                self.close()
            unavailable = BusUnavailable(f"no NATS server answers at {address.shown}: {str(exc) or 'it says nothing'}")
            unavailable.silent = connection is not None and isinstance(exc, TimeoutError)
            raise unavailable from exc
        except BaseException:
            if connection is not None:
                self.close()
            raise

    def _greet(self, address: Address, deadline: float) -> None:
        while not self._info:
            self._fill(deadline)
            self._next()
        if wants_tls(address, self._access, self._info):
            if self._frames or not isinstance(self._socket, _socket.socket):
                raise ConnectionLost("it says more than a greeting before TLS")
            from pullonce.bus.nats.secured import Secured

            self._cutter = Cutter()  # whatever came unencrypted behind the greeting is nobody's word
            self._socket = Secured(self._socket, address, self._access, _left(deadline))
        if not self._info.get("headers"):
            raise BusUnsuitable(f"the NATS server at {self.shown} is too old: pullonce needs nats-server 2.12 or newer")
        if why := too_small(self._info.get("max_payload")):
            raise BusUnsuitable(f"{self.shown}: {why}")
        self._out += answer(address, self._access, self._info, self._name)
        if not self._info.get("jetstream"):
            self._find_jetstream(deadline)

    def _find_jetstream(self, deadline: float) -> None:
        """This server has none; others of its cluster, or beyond a leaf node, may."""
        inbox = self.subscribe(f"{self.inbox}.jetstream")
        self.publish("$JS.API.INFO", b"", reply=f"{self.inbox}.jetstream")
        while (message := self.receive(deadline - time.monotonic())) is not None:
            if message.sid == inbox and not message.status:
                return
            if message.sid == inbox:
                break
        raise BusUnsuitable(f"the NATS server at {self.shown} has no JetStream; start it with -js, version 2.12 or newer")

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
        files: list[_socket.socket | Secured | int] = [self._socket] if self.wake is None else [self._socket, self.wake]
        left = deadline - time.monotonic()
        readable = select.select(files, [], [], max(left, 0.0) if left < _FOREVER else None)[0]
        if self.wake in readable:
            raise Woken
        if not readable:
            raise TimeoutError
        try:
            self._socket.settimeout(0.0)
            data = self._socket.recv(_RECEIVE)
        except BlockingIOError:
            return  # a part of a record of TLS
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
                raise self._complained(complaint(rest))
        return False

    def _complained(self, said: str) -> Exception:
        from pullonce.bus.nats.credentials import not_permitted, refused

        if said.lower().startswith("permissions violation"):
            # It leaves the connection open, and what was refused would otherwise just never be answered.
            return not_permitted(said)
        if said.lower().startswith(("authorization", "user authentication")):
            return refused(said)
        if said.lower().startswith("maximum"):
            return BusUnsuitable(f"the NATS server at {self.shown} says: {said}")
        return ConnectionLost(said)
