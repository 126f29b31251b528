"""Reading the log in bulk: cut out of bytes wherever they break, and by the usual way where there is no quick one."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest

from pullonce.bus.nats.bulk import stored
from pullonce.bus.nats.protocol import Cutter
from pullonce.bus.ports import Recorded
from tests.support.buses import NatsPlace, digest, fetched, lost, soon
from tests.support.nats_server import NatsServer, free_port

BODY = b'{"digest":"%b","size":1,"revision":1}' % digest(1).encode()
ACK = b"$JS.ACK.EVENTS.c.1.%d.%d.1700000000000000000.%d"
LONG_ACK = b"$JS.ACK.domain.hash.EVENTS.c.1.%d.%d.1700000000000000000.%d.token"


def message(sequence: int, *, ack: bytes = ACK, headers: bytes = b"", body: bytes = BODY) -> bytes:
    reply = ack % (sequence, sequence, 10 - sequence)
    sizes = b"%d %d" % (len(headers), len(headers) + len(body)) if headers else b"%d" % len(body)
    verb = b"HMSG" if headers else b"MSG"
    return b"%b blob.fetched.default.x 2 %b %b\r\n%b%b\r\n" % (verb, reply, sizes, headers, body)


STREAM = b"".join(
    (
        b"+OK\r\n",
        message(1),
        b"PING\r\n",
        message(2, headers=b"NATS/1.0\r\nNats-Msg-Id: PING\r\n\r\n"),
        b"HMSG _INBOX.x 2 28 28\r\nNATS/1.0 408 Request Timed\r\n\r\n"[:-2] + b"\r\n",
        message(3, ack=LONG_ACK),
        message(4, body=b"no event\r\nMSG a 1 3\r\nabc"),
        message(5, body=b""),
    )
)


def read(*parts: bytes) -> list[Recorded]:
    cutter = Cutter()
    return [each for part in parts for each in stored(cutter.feed(part))]


def test_messages_are_cut_out_whatever_stands_between_them() -> None:
    found = read(STREAM)
    assert [(each.sequence, each.pending, each.time) for each in found] == [(n, 10 - n, 1.7e9) for n in range(1, 6)]
    assert all(each.event for each in found[:3])
    assert (found[3].body, found[4].body) == (b"no event\r\nMSG a 1 3\r\nabc", b"")


@pytest.mark.parametrize("seed", range(20))
def test_bytes_may_break_anywhere(seed: int) -> None:
    chance = random.Random(seed)
    parts, at = [], 0
    while at < len(STREAM):
        step = chance.choice((1, 2, 7, 50))
        parts.append(STREAM[at : at + step])
        at += step
    assert read(*parts) == read(STREAM)


async def test_a_gap_in_the_log_is_passed_over(nats_server: NatsServer) -> None:
    async with NatsPlace(nats_server.url).connect() as bus:
        await bus.log.append_all([fetched(1), lost(1), lost(2), fetched(2), lost(3)])
        for sequence in (1, 3, 5):
            await bus.log._link.ask("$JS.API.STREAM.MSG.DELETE.EVENTS", b'{"seq":%d}' % sequence)
        taken: list[Recorded] = []
        await soon(bus.log.replay(taken.extend, start=1, end=5))
        assert [each.sequence for each in taken] == [2, 4]
        await soon(bus.log.replay(taken.extend, start=5, end=5))
        assert len(taken) == 2


@pytest.mark.parametrize(("scheme", "quick"), [("nats", True), ("ws", False)])
async def test_where_there_is_no_quick_way_the_usual_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scheme: str, quick: bool
) -> None:
    port = free_port()
    more = f'authorization {{ user: "me", password: "secret" }}\nwebsocket {{ listen: "127.0.0.1:{port}", no_tls: true }}'
    server = NatsServer(tmp_path / "nats", more=more).start()
    try:
        url = server.url.replace("//", "//me:secret@") if quick else f"ws://me:secret@127.0.0.1:{port}"
        async with NatsPlace(url).connect() as bus:
            await bus.log.append_all([fetched(number) for number in range(100)])
            taken: list[Recorded] = []
            with caplog.at_level(logging.INFO):
                await soon(bus.log.replay(taken.extend, start=10, end=50))
            assert [each.sequence for each in taken] == list(range(10, 51))
            assert ("the quick way" not in caplog.text) == quick and "secret" not in caplog.text
            await soon(bus.log.replay(taken.extend, start=100, end=200))
            assert [each.sequence for each in taken[41:]] == [100]
            await soon(bus.log.replay(taken.extend, start=101, end=200))
    finally:
        server.kill()
