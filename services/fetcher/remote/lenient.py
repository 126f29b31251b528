"""Heads of answers that Go takes and aiohttp would not: mended before aiohttp reads them.

- `Content-Length` beside `Transfer-Encoding: chunked`: the length does not count (RFC 9112 section 6.3). The connection is not
  used again, since whoever sends both may mean either.
- A body behind the head of an answer to HEAD: there is none to be read, and what comes is no next answer.
- Interim answers are left out: nobody here waits for one, and they must not put off the time in which the answer has to come.
"""

import asyncio
import functools
import re
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError

LONGEST_HEAD = 1 << 20
"""Bytes of all headers together, and of each one, that are read, as in Go: signed addresses and policies are long."""
_LENGTH = re.compile(rb"(?i)\r?\ncontent-length[ \t]*:[^\n]*(?=\r?\n)")
_CHUNKED = re.compile(rb"(?i)\ntransfer-encoding[ \t]*:[^\n]*chunked")
_END = re.compile(rb"\r?\n\r?\n")
_INTERIM = re.compile(rb"HTTP/1\.[01] 1(?!01)\d\d\b")


class LenientHandler(ResponseHandler):
    """Reads the answers of one connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head: bytearray | None = None
        """What has come of a head that is not complete; None behind one."""

    def set_response_params(self, **params: Any) -> None:
        """An answer is to come."""
        self._head = bytearray()
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Bytes have come, or (none) what came before is to be read on."""
        if not data or self._parser is None:
            super().data_received(data)
        elif self._head is None:
            if not self._skip_payload:
                super().data_received(data)
            else:
                self._should_close = True
        else:
            self._head += data
            self._collect(self._head, len(self._head) - len(data))

    def _collect(self, head: bytearray, seen: int) -> None:
        """Go on with a head in whose first `seen` bytes no end was. What must come in time is all of it, not each byte."""
        end = _END.search(head, max(0, seen - 3))
        while end is not None and _INTERIM.match(head):
            del head[: end.end()]
            end = _END.search(head)
        if end is None and len(head) <= LONGEST_HEAD:
            return
        self._head = None
        if end is None:
            self.set_exception(HttpProcessingError(code=400, message=f"its head is longer than {LONGEST_HEAD >> 20} MiB"))
            if self.transport is not None:
                self.transport.close()
            return
        first, rest = bytes(head[: end.end()]), bytes(head[end.end() :])
        if _CHUNKED.search(first) and _LENGTH.search(first):
            first = _LENGTH.sub(b"", first)
            self._should_close = True
        if self._skip_payload and rest:
            self._should_close, rest = True, b""
        super().data_received(first + rest)


def make_lenient(connector: aiohttp.TCPConnector) -> aiohttp.TCPConnector:
    """Have a connector's connections read answers so."""
    # aiohttp has no other way to read answers by other rules than its own.
    connector._factory = functools.partial(LenientHandler, loop=asyncio.get_running_loop())  # type: ignore[assignment]
    return connector
