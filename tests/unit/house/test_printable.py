"""What strangers say commands no terminal, and JSON stays JSON."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pullonce.printable import PrintableStream, escaped, printable

WICKED = {
    "colours": "\x1b[31mred\x1b[0m",
    "a title": "\x1b]0;owned\x07",
    "a link": "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "C1 controls": "\x9b31m\x9d0;x\x9c",
    "a bell and a backspace": "a\x07\b\x7f",
    "another line": "one\r\ntwo\x0b\x0cthree\x85four\u2028five\u2029six",
    "from right to left": "\u202egpj.exe\u202c \u2066x\u2069 \u200f\u061c",
    "what is not seen": "pass\u200bword\ufeff\u00ad",
    "half a letter": "\ud800x\udc00",
    "private use": "\ue000\U000f0000\U000e0041",
}


@pytest.mark.parametrize("text", WICKED.values(), ids=WICKED)
def test_strangers_command_no_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert "\n" not in printable(text)
    shown = io.StringIO()
    print(json.dumps(text, ensure_ascii=False), file=PrintableStream(shown))  # type: ignore[arg-type]
    assert json.loads(shown.getvalue()) == json.loads(json.dumps(text))


@pytest.mark.parametrize("text", ["", "docker.io/library/redis:latest", "Straße, 東京, عربي, 🙂", "a b"])
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == escaped(text) == text


def test_it_is_one_line_of_some_length() -> None:
    assert printable("  a \n\t b  ") == "a b"
    assert printable("x" * 10, 5) == "xxxx…"
    assert printable("\x1b" * 10, 6) == "\\x1b\\…"
    assert escaped("a\n\tb\x1b") == "a\n\tb\\u001b"


@given(st.text())
def test_whatever_it_is(text: str) -> None:
    assert all(each.isprintable() or each.isspace() for each in printable(text))
    assert json.loads(escaped(json.dumps(text, ensure_ascii=False))) == text or "\ud800" <= max(text) <= "\udfff"
