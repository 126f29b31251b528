"""The protocol of a connection to NATS, as bytes: what is cut out of them, and what is written."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from nats.errors import ProtocolError

from pullonce.bus.nats.parser import LeanParser
from pullonce.bus.nats.protocol import Unwritable, headers_of, status_of, written

STREAM = (
    b"PING\r\n"
    b"MSG a.b 1 5\r\nhello\r\n"
    b"MSG a.b 1 reply.to 7\r\nMSG\r\n x\r\n"
    b"+OK\r\n"
    b"HMSG c 2 18 23\r\nNATS/1.0\r\nA: b\r\n\r\n" + b"world\r\n"
    b"HMSG c 2 reply 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"
    b"-ERR 'Permissions Violation for Publish'\r\n"
    b'INFO {"server_id":"x"} \r\n'
    b"PONG\r\n"
    b"MSG a.b 1 0\r\n\r\n"
)

TAKEN = [
    (b"a.b", b"", b"", b"hello"),
    (b"a.b", b"reply.to", b"", b"MSG\r\n x"),
    (b"a.b", b"", b"", b""),
]

HANDED_ON = [
    ("ping",),
    ("msg", 2, b"c", b"", b"world", b"NATS/1.0\r\nA: b\r\n\r\n"),
    ("msg", 2, b"c", b"reply", b"", b"NATS/1.0 503\r\n\r\n"),
    ("err", "'permissions violation for publish'"),
    ("info", {"server_id": "x"}),
    ("pong",),
]


class Heard:
    """What nats-py's client would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.parser = LeanParser(self)  # type: ignore[arg-type]
        self.taken: list[tuple[bytes, bytes, bytes, bytes]] = []
        self.parser.takers[b"1"] = lambda *raw: self.taken.append(raw)

    async def _process_ping(self) -> None:
        self.told.append(("ping",))

    async def _process_pong(self) -> None:
        self.told.append(("pong",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.told.append(("info", info))

    async def _process_err(self, said: str) -> None:
        self.told.append(("err", said))
        if "stale" in said:
            self.parser.reset()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, head: bytes) -> None:
        self.told.append(("msg", sid, subject, reply, data, head))

    def read(self, *parts: bytes) -> Heard:
        async def all_of_it() -> None:
            for part in parts:
                await self.parser.parse(part)

        asyncio.run(all_of_it())
        return self


def test_what_is_taken_raw_is_handed_over_and_the_rest_goes_its_usual_way() -> None:
    heard = Heard().read(STREAM)
    assert heard.taken == TAKEN and heard.told == HANDED_ON


@pytest.mark.parametrize("seed", range(20))
def test_bytes_may_break_anywhere(seed: int) -> None:
    chance, parts, at = random.Random(seed), [], 0
    while at < len(STREAM):
        step = chance.choice((1, 2, 7, 50))
        parts.append(STREAM[at : at + step])
        at += step
    heard = Heard().read(*parts)
    assert heard.taken == TAKEN and heard.told == HANDED_ON


def test_a_listener_that_fails_costs_nobody_else_a_message(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard()
    heard.parser.takers[b"2"] = lambda *_: 1 // 0  # type: ignore[assignment]
    assert heard.read(STREAM).taken == TAKEN
    assert caplog.text.count("a listener on c failed") == 2


def test_nothing_of_a_connection_that_ended_is_carried_into_the_next() -> None:
    heard = Heard().read(b"MSG a.b 1 5\r\nhe", b"llo\r\n-ERR 'Stale Connection'\r\nMSG a.b 1 3\r\nold\r\nMSG a")
    assert heard.taken == TAKEN[:1]
    assert heard.read(b"MSG a.b 1 0\r\n\r\n").taken == [TAKEN[0], TAKEN[2]]


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"MSG a.b 1 x\r\n", b"MSG\r\n", b"MSG a 1 -9\r\n", b"HMSG a 1 9 5\r\n"]
)
def test_what_is_no_nats_server_is_an_error(words: bytes) -> None:
    with pytest.raises(ProtocolError):
        Heard().read(words)


def test_headers_and_status() -> None:
    head = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nx:y:z \r\n\r\n"
    assert status_of(head) == 100 and headers_of(head) == {"Nats-Last-Consumer": "7", "x": "y:z"}
    assert status_of(b"NATS/1.0\r\nA: b\r\n\r\n") == 0 == status_of(b"")


def test_what_is_written_is_read_back() -> None:
    headers = {"Nats-Msg-Id": "one\r\ntwo", "traceparent": "00"}
    for each in (written("a.b", b"x\r\n", "me"), written("a.b", b""), written("a.b", "ü".encode(), "", headers)):
        verb, rest = each.split(b" ", 1)
        where, body = rest.split(b"\r\n", 1)
        subject, *numbers = where.split(b" ")
        numbers.insert(0, b"1")
        heard = Heard().read(
            (b"H" if verb == b"HPUB" else b"") + b"MSG " + subject + b" " + b" ".join(numbers) + b"\r\n" + body
        )
        ((told, _, head, data),) = heard.taken
        assert told == b"a.b" and data in (b"x\r\n", b"", "ü".encode())
        assert headers_of(head) == ({"Nats-Msg-Id": "one two", "traceparent": "00"} if verb == b"HPUB" else {})


@pytest.mark.parametrize(("subject", "reply"), [("", ""), ("a b", ""), ("a\r\nPUB b 0", ""), ("a", "b c"), ("a\tb", "")])
def test_a_subject_that_would_end_the_line_is_refused(subject: str, reply: str) -> None:
    with pytest.raises(Unwritable):
        written(subject, b"", reply)
