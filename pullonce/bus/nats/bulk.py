"""Millions of stored messages at once, over a connection of their own that does nothing else.

nats-py spends some 7 µs on a message. Whoever reads the whole log needs little of what it offers: here messages are taken as
they are cut out of the received bytes, which takes a third of that. Blocking; meant for a thread."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from pullonce.bus.nats.greeting import Access
from pullonce.bus.nats.protocol import Frame, nanoseconds, position, text
from pullonce.bus.nats.socket import Connection, ConnectionLost
from pullonce.bus.ports import Recorded
from pullonce.bus.reading import recorded

_BATCH = 20_000
"""Messages that are asked for at a time."""
_PATIENCE = 30.0
_CREATE = "$JS.API.CONSUMER.CREATE."
_NEXT = "$JS.API.CONSUMER.MSG.NEXT."


def stored(frames: Sequence[Frame]) -> list[Recorded]:
    """The messages of a stream among what has arrived. Whatever else came to our inbox is passed over."""
    found: list[Recorded] = []
    for _, subject, _, reply, _, body in frames:
        if (at := position(reply)) is not None:
            _, sequence, _, time_ns, pending = at
            found.append(recorded(sequence, time_ns / 1e9, text(subject), body, pending))
    return found


def replay(url: str, access: Access, stream: str, take: Callable[[Sequence[Recorded]], None], *, start: int, end: int) -> None:
    """Hand the messages from `start` to `end` to `take`, in order, some thousands at a time.

    Raises:
        BusUnsuitable: it does not let us in.
        ConnectionLost: the server went away, or went silent.
        BusUnavailable: it cannot be reached.
    """
    connection = Connection(url, name="pullonce replay", access=access)
    try:
        _Replay(connection, stream, take, end).run(start)
    finally:
        connection.close()


class _Replay:
    def __init__(self, connection: Connection, stream: str, take: Callable[[Sequence[Recorded]], None], end: int) -> None:
        self._connection = connection
        self._take = take
        self._end = end
        self._stream = stream
        self._name = f"r{connection.inbox.rpartition('.')[2]}"
        self._inbox = f"{connection.inbox}.messages"

    def run(self, start: int) -> None:
        if not self._make_consumer(start):
            return
        at, left = start - 1, 0
        while at < self._end:
            if left <= _BATCH // 2:
                self._ask()
                left += _BATCH
            messages = stored(self._arrived())
            left -= len(messages)
            if messages:
                at = messages[-1].sequence
                self._take(messages if at <= self._end else [each for each in messages if each.sequence <= self._end])
                if messages[-1].pending == 0:
                    return

    def _make_consumer(self, start: int) -> int:
        """Returns how many messages there are from `start` on."""
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start,
            "ack_policy": "none",
            "inactive_threshold": nanoseconds(_PATIENCE),
            "mem_storage": True,
            "num_replicas": 1,
        }
        answer = f"{self._connection.inbox}.made"
        self._connection.subscribe(answer)
        self._connection.subscribe(self._inbox)
        request = json.dumps({"stream_name": self._stream, "config": {**config, "name": self._name}})
        self._connection.publish(f"{_CREATE}{self._stream}.{self._name}", request.encode(), reply=answer)
        made = self._connection.receive(_PATIENCE)
        said = json.loads(made.body or b"{}") if made else {}
        if "num_pending" not in said:
            raise ConnectionLost(f"no consumer could be made: {said.get('error', 'no answer')}")
        return int(said["num_pending"])

    def _ask(self) -> None:
        request = json.dumps({"batch": _BATCH, "expires": nanoseconds(_PATIENCE)})
        self._connection.publish(f"{_NEXT}{self._stream}.{self._name}", request.encode(), reply=self._inbox)

    def _arrived(self) -> list[Frame]:
        try:
            return self._connection.arrived(_PATIENCE)
        except TimeoutError:
            raise ConnectionLost("the server sends nothing") from None
