"""Reading what a server answers: bounded, and with the HTTP library's errors translated once."""

from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from pullonce.errors import Permanent, Retryable
from services.fetcher.remote.connections import Inward


@contextmanager
def registry_errors(what: str, *, inward: Permanent | None = None) -> Iterator[None]:
    """Translate what the HTTP library raises, where it may work another time; `what` names the server for people.

    Args:
        inward: what to raise where a connection was refused because of its address.

    Raises:
        Retryable: `registry.unavailable`.
    """
    try:
        yield
    except aiohttp.ClientConnectorError as exc:
        if inward is not None and isinstance(exc.os_error, Inward):
            raise inward from exc
        raise _unavailable(what, exc) from exc
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise _unavailable(what, exc) from exc


def _unavailable(what: str, exc: Exception) -> Retryable:
    reason = str(exc) or "no answer in time"
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        reason = f"its certificate is not trusted ({exc.certificate_error})"
    elif isinstance(exc, aiohttp.InvalidURL):
        reason = "its address is malformed"
    return Retryable(f"{what} cannot be reached: {reason}", code="registry.unavailable")


async def read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body of an answer, at most `limit` + 1 bytes of it: a longer one tells itself by its length."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > limit:
            break
    return b"".join(parts)[: limit + 1]
