"""Reading what a server answers: bounded, and with whatever goes wrong on the way translated once."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp

from pullonce.errors import Permanent, Retryable
from services.fetcher.remote.connections import Inward

log = logging.getLogger(__name__)

WITHIN = 60.0
"""Seconds for a document, whatever its length."""
_SLOWEST = 16_384
"""Bytes a second; PULLONCE_SLOW_RATE's default."""
_UNKNOWN = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))


@contextmanager
def registry_errors(what: str | Callable[[], str], *, inward: Callable[[], Permanent] | None = None) -> Iterator[None]:
    """Translate what is raised while a server is asked; `what` names it for people, where that is needed.

    What nobody foresaw counts against that server too: it chose what it answered, and others must not suffer for it.

    Args:
        inward: what to raise where a connection was refused because of its address.

    Raises:
        Retryable: `registry.unavailable`, where it may work another time.
        Permanent: `registry.answer`; what it says cannot be used.
    """
    try:
        yield
    except aiohttp.ClientConnectorError as exc:
        if inward is not None and isinstance(exc.os_error, Inward):
            raise inward() from exc
        raise _unavailable(_named(what), exc) from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _unavailable(_named(what), exc) from exc
    except (Permanent, Retryable):
        raise
    except Exception as exc:
        raise unforeseen(_named(what), exc) from exc


def _named(what: str | Callable[[], str]) -> str:
    return what if isinstance(what, str) else what()


def unforeseen(what: str, exc: Exception) -> Permanent:
    """What to call an error that nothing here knows, out of what a server said: final, and that server's alone."""
    log.warning("%s answered what led to %s", what, type(exc).__name__, exc_info=exc)
    why = " ".join(str(exc).split())[:200]
    return Permanent(f"what {what} answers cannot be used ({type(exc).__name__}: {why})", code="registry.answer")


async def read_limited(response: aiohttp.ClientResponse, limit: int, *, within: float = WITHIN) -> bytes:
    """The body of an answer, at most `limit` + 1 bytes of it: a longer one tells itself by its length.

    Args:
        within: seconds that it may take, beside what its bytes take at the slowest rate. Who sends a byte now and then is never
            silent, and would hold a place for days.

    Raises:
        TimeoutError: it takes longer.
    """
    parts: list[bytes] = []
    size, end = 0, asyncio.get_running_loop().time() + within
    async with asyncio.timeout_at(end) as deadline:
        async for chunk in response.content.iter_any():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                break
            deadline.reschedule(end + size / _SLOWEST)
    return b"".join(parts)[: limit + 1]


def _unavailable(what: str, exc: Exception) -> Retryable:
    """Trouble on the way. A name that nobody knows, or a certificate that nobody trusts, will hardly come right by itself."""
    reason, brief = str(exc) or "no answer in time", False
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        reason, brief = f"its certificate is not trusted ({exc.certificate_error})", True
    elif isinstance(exc, aiohttp.InvalidURL):
        reason, brief = "its address is malformed", True
    elif isinstance(exc, aiohttp.ClientConnectorDNSError):
        brief = exc.os_error.errno in _UNKNOWN
    return Retryable(f"{what} cannot be reached: {reason}", code="registry.unavailable", brief=brief)
