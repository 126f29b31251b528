"""The trace that some work belongs to, carried from a request to whatever comes of it, in message headers.

A requester's `traceparent` is handed on as it came: by its request, the orders and facts that follow from it, and its
ending. Of several requests that share work, the first one with a trace names it. Source: W3C Trace Context, section 3.2.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "traceparent"

# Version ff is forbidden, and an id of zeros is none. Later versions may append fields, which are not ours to carry.
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

_current: ContextVar[str] = ContextVar("traceparent", default="")


def valid(text: str) -> str:
    """A `traceparent` as it is carried; empty for what is none."""
    return text if _FORM.fullmatch(text) else ""


def read(headers: Mapping[str, str] | None) -> str:
    """The trace that a message belongs to; empty: none."""
    return valid(headers.get(HEADER, "")) if headers else ""


def current() -> str:
    """The trace that is being worked for; empty: none."""
    return _current.get()


def headers() -> dict[str, str]:
    """What a message that is sent now says of it."""
    trace = _current.get()
    return {HEADER: trace} if trace else {}


@contextmanager
def carried(trace: str) -> Iterator[None]:
    """Whatever is sent in the block, or by tasks that are begun in it, belongs to the trace."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


def of_environment(environ: Mapping[str, str] = os.environ) -> str:
    """The trace that a command was started in: `TRACEPARENT`, as CI systems and command-line tracers set it."""
    return valid(environ.get("TRACEPARENT", ""))
