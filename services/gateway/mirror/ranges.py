"""Which bytes a request wants: one range, as RFC 9110 has them (section 14). Pure."""

import re
from dataclasses import dataclass

_ONE = re.compile(r"bytes=\s*(?:(?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})?|-(?P<suffix>[0-9]{1,19}))\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to, and without, `end`, of `size`."""

    start: int
    end: int
    size: int
    partial: bool = False
    """Whether it was asked for as a part, so that it is answered as one, all of it though it may be."""

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def content_range(self) -> str:
        """The header `Content-Range` of a 206."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def span_of(header: str, size: int) -> Span | None:
    """The bytes that a `Range` header wants; None: there are none of these (416).

    What is no range, and several ranges in one header, mean the whole: a server may do that, and the client sees it by the 200.
    """
    found = _ONE.fullmatch(header)
    if found is None:
        return Span(0, size, size)
    if found["suffix"] is not None:
        length = min(int(found["suffix"]), size)
        return Span(size - length, size, size, partial=True) if length else None
    first = int(found["first"])
    last = size - 1 if found["last"] is None else min(int(found["last"]), size - 1)
    if found["last"] is not None and int(found["last"]) < first:
        return Span(0, size, size)  # RFC 9110, section 14.1.1: invalid, so to be ignored
    return Span(first, last + 1, size, partial=True) if first < size else None
