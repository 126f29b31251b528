"""The wire of NATS against arbitrary bytes, arbitrary cuts and whatever its other clients may write."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullonce.bus.limits import MAX_MESSAGE
from pullonce.bus.nats import protocol
from pullonce.bus.nats.protocol import (
    MAX_BODY,
    MAX_LINE,
    Cutter,
    Frame,
    Unreadable,
    Unwritable,
    cut,
    headers_of,
    position,
    status_of,
    text,
    written,
)
from pullonce.errors import Permanent

MANY = settings(max_examples=300, deadline=None)

# What a client may name its subjects: the server takes any byte but these.
words = st.binary(min_size=1, max_size=12).filter(lambda raw: not set(raw) & set(b" \t\r\n"))
bodies = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"MSG a 1 3\r\nabc\r\n", b"-ERR 'x'\r\n", b"PING\r\n"])


def said(frame: Frame) -> bytes:
    """What a server sends for a frame."""
    verb, subject, number, reply, head, body = frame
    if verb not in (b"MSG", b"HMSG"):
        return verb + (b" " + subject if subject else b"") + b"\r\n"
    sizes = (b"%d " % len(head) if verb == b"HMSG" else b"") + b"%d" % (len(head) + len(body))
    return b" ".join([verb, subject, number, *([reply] if reply else []), sizes]) + b"\r\n" + head + body + b"\r\n"


numbers = st.integers(0, 10**6).map(lambda number: b"%d" % number)
messages = st.builds(
    lambda subject, number, reply, head, body: (b"HMSG" if head else b"MSG", subject, number, reply, head, body),
    words, numbers, st.just(b"") | words, st.just(b"") | bodies, bodies,
)  # fmt: skip
lines = st.sampled_from(
    [(b"PING", b""), (b"PONG", b""), (b"+OK", b""), (b"-ERR", b"'Stale Connection'"), (b"INFO", b'{"a": 1}')]
)
frames = st.lists(messages | lines.map(lambda line: (*line, b"", b"", b"", b"")), max_size=12)


def fed(data: bytes, cuts: list[int]) -> list[Frame]:
    cutter, places = Cutter(), [0, *sorted(min(each, len(data)) for each in cuts), len(data)]
    return [frame for a, b in pairwise(places) for frame in cutter.feed(data[a:b])]


@MANY
@given(frames, st.lists(st.integers(0, 800), max_size=10))
def test_what_a_server_says_is_cut_alike_however_it_arrives(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(map(said, sent))
    assert fed(data, cuts) == sent
    assert fed(data, list(range(len(data)))) == sent, "byte by byte"


@MANY
@given(st.binary(max_size=200) | frames.map(lambda sent: b"".join(map(said, sent))), st.data())
def test_any_bytes_are_cut_or_refused_and_alike_however_they_arrive(data: bytes, draw: st.DataObject) -> None:
    """Some bytes of what a server says are exchanged, taken out or put in."""
    if data:
        at = draw.draw(st.integers(0, len(data) - 1))
        data = data[:at] + draw.draw(st.binary(max_size=3)) + data[at + draw.draw(st.integers(0, 3)) :]
    try:
        found, rest, missing = cut(data)
    except Unreadable:
        with pytest.raises(Unreadable):
            fed(data, draw.draw(st.lists(st.integers(0, 200), max_size=6)))
        return
    assert 0 <= rest <= len(data) and (missing > 0) == (rest < len(data)), "what is left over lacks something"
    assert fed(data, draw.draw(st.lists(st.integers(0, 200), max_size=6))) == found


@pytest.mark.parametrize(
    "line",
    [
        *(b"MSG a 1 +5", b"MSG a 1 1_0", b"MSG a 1 -1", b"MSG a 1 0x5", b"MSG a 1 \xb2", b"MSG a 1 ", b"MSG a 1", b"MSG"),
        *(b"MSG a 1 r s 5", b"MSG a x 5", b"MSG a -1 5", b"HMSG a 1 9 5", b"HMSG a 1 5", b"HMSG a 1 r s 1 5", b"MSG  a 1 5"),
        *(b"MSG a 1 %d" % (MAX_BODY + 1), b"MSG a 1 " + b"9" * 5000, b"msg a 1 5", b"HTTP/1.1 200 OK", b"", b"\x16\x03\x01"),
    ],
)
def test_sizes_and_words_that_no_server_sends_are_refused(line: bytes) -> None:
    with pytest.raises(Unreadable):
        cut(line + b"\r\n" + bytes(20) + b"\r\n")


def test_a_message_that_does_not_end_where_it_says_is_refused() -> None:
    with pytest.raises(Unreadable):
        cut(b"MSG a 1 3\r\nabcdef\r\n")


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    cutter = Cutter()
    with pytest.raises(Unreadable):
        for _ in range(2 * MAX_LINE // 1000):
            cutter.feed(b"x" * 1000)


def test_a_large_message_in_many_pieces_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of 16 MiB comes in pieces of some kilobytes; to look through all of it at each of them takes minutes."""
    looked: list[int] = []

    def counted(data: bytes) -> tuple[list[Frame], int, int]:
        looked.append(len(data))
        return cut(data)

    monkeypatch.setattr(protocol, "cut", counted)
    body = bytes(16 << 20)
    data = b"MSG a 1 %d\r\n%b\r\n" % (len(body), body)
    cutter = Cutter()
    found = [frame for at in range(0, len(data), 4096) for frame in cutter.feed(data[at : at + 4096])]
    assert [len(frame[5]) for frame in found] == [len(body)] and len(looked) <= 3


names = st.text(max_size=8)


@MANY
@given(
    st.text(max_size=30), st.binary(max_size=60), st.text(max_size=10), st.dictionaries(names, st.text(max_size=20), max_size=3)
)
def test_what_is_written_is_one_message_or_refused(subject: str, body: bytes, reply: str, headers: dict[str, str]) -> None:
    """Whatever is to be said, no second command comes of it."""
    try:
        command = written(subject, body, reply, headers)
    except Unwritable:
        return
    line, rest = command.split(b"\r\n", 1)
    verb, *where, size = line.split(b" ")
    names, head_size = (where[:-1], int(where[-1])) if verb == b"HPUB" else (where, 0)
    assert names == [each.encode("utf-8", "surrogateescape") for each in (subject, reply) if each]
    assert len(rest) == int(size) + 2 and rest.endswith(b"\r\n") and rest[head_size:-2] == body
    told = headers_of(rest[:head_size])
    assert {name: value.split() for name, value in told.items()} == {
        name: " ".join(value.split("\r")).split() for name, value in headers.items()
    }


def test_what_is_too_large_is_refused_before_it_is_sent() -> None:
    written("a", bytes(MAX_MESSAGE))
    whole = bytes(MAX_MESSAGE)
    too_large: list[tuple[bytes, dict[str, str], int]] = [
        (whole + b"x", {}, MAX_MESSAGE),
        (whole, {"A": "b"}, MAX_MESSAGE),
        (bytes(2000), {}, 1000),
    ]
    for body, headers, most in too_large:
        with pytest.raises(Permanent, match="the bus takes at most"):
            written("a", body, "", headers, most)
    with pytest.raises(Unwritable, match="command lines"):
        written("a" * 5000, b"")


heads = st.builds(lambda status, rest: b"NATS/1.0 " + status + rest, st.binary(max_size=5), st.binary(max_size=40))
replies = st.lists(st.binary(max_size=6), max_size=13).map(lambda tokens: b"$JS.ACK." + b".".join(tokens))


@MANY
@given(st.binary(max_size=60) | heads)
def test_any_head_can_be_read(head: bytes) -> None:
    """Whoever publishes a message writes its head."""
    assert 0 <= status_of(head) <= 999
    assert all(isinstance(value, str) for value in headers_of(head).values())


@MANY
@given(st.binary(max_size=80) | replies)
def test_any_reply_is_a_position_or_none(reply: bytes) -> None:
    found = position(reply)
    assert found is None or (len(found) == 5 and all(each >= 0 for each in found))
    text(reply).encode()  # readable, whatever it is


def test_positions_of_both_forms() -> None:
    assert position(b"$JS.ACK.EVENTS.c.1.42.7.1700000000000000000.3") == (1, 42, 7, 1700000000000000000, 3)
    assert position(b"$JS.ACK.hub.acc.EVENTS.c.1.42.7.1700000000000000000.3") == (1, 42, 7, 1700000000000000000, 3)
    assert position(b"$JS.ACK.hub.acc.EVENTS.c.1.42.7.1700000000000000000.3.x9") == (1, 42, 7, 1700000000000000000, 3)
    for wrong in (b"", b"$JS.ACK.", b"$JS.ACK.a.b.1.2.3.4", b"$JS.ACK.a.b.1.2.3.4.-5", b"$JS.ACK.a.b.1.2.3.4." + b"9" * 99):
        assert position(wrong) is None
