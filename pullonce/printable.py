"""Words from outside as people may be shown them: registries, layers, other clients and networks say what they like.

A terminal obeys what it is sent, and text that is written from right to left hides what stands before it. What is no letter,
mark, number, sign or space is therefore shown by its number: `\\x1b`, and `\\u001b` where the text may be JSON, which so
stays JSON. Source: Unicode's general categories (C0 and C1 controls, formats with the marks of direction, surrogates, private
use, separators of lines and paragraphs); CVE-2021-42574.

Nothing is imported here: the command shows by this what it says first.
"""

_SPACES = frozenset(map(chr, (0x20, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)))


def printable(text: str, limit: int = 0) -> str:
    """One line without anything that commands a terminal; runs of white space become one space.

    Args:
        limit: characters that are shown at most; 0: all.
    """
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
    return f"{line[: limit - 1]}…" if limit and len(line) > limit else line


def escaped(text: str) -> str:
    """The same for text of several lines, which may be JSON: line feeds and tabs stay."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in _SPACES or each in "\n\t" else _number(each) for each in text)


def _number(letter: str) -> str:
    code = ord(letter)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


class PrintableStream:
    """A text stream that shows what is written to it by `escaped`; all else is the stream's own."""

    def __init__(self, stream: "TextIO") -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; the number of characters it had."""
        self._stream.write(escaped(text))
        return len(text)

    def writelines(self, lines: "Iterable[str]") -> None:
        """Write several."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._stream, name)


def terminal(stream: "TextIO") -> "TextIO":
    """The stream below, for whoever commands the terminal on purpose."""
    return stream._stream if isinstance(stream, PrintableStream) else stream


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO
