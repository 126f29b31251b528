"""What the fetcher tells of what others said: no secrets, and nothing that commands a terminal.

Failures, facts and lines of the log all pass through here on their way out.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Protocol, TypeVar

from msgspec.structs import replace

from schemas.events import Event, PullResolved
from schemas.oci import Descriptor
from services.fetcher.auth.redaction import Secrets
from services.fetcher.documents.manifest import KNOWN_TYPES

_LONGEST_TYPE = 255
_LONGEST_URL = 2000


class _Knowing(Protocol):
    @property
    def secrets(self) -> Secrets: ...


H = TypeVar("H", bound=_Knowing)
A = TypeVar("A")


def telling_no_secrets(handler: Callable[[H, A], Awaitable[list[Event]]]) -> Callable[[H, A], Coroutine[Any, Any, list[Event]]]:
    """A handler whose failures and facts are cleaned of the secrets that are in use."""

    @wraps(handler)
    async def carry_out(self: H, order: A) -> list[Event]:
        with self.secrets.cleaning():
            facts = await handler(self, order)
        return [_cleaned(fact, self.secrets) for fact in facts]

    return carry_out


def clean_logs(secrets: Secrets) -> None:
    """From now on no line of this process's log holds a secret, tracebacks included."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Cleaning(handler.formatter or logging.Formatter(), secrets))


class _Cleaning(logging.Formatter):
    def __init__(self, inner: logging.Formatter, secrets: Secrets) -> None:
        super().__init__()
        self._inner = inner
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        return self._secrets.clean(self._inner.format(record))


def _cleaned(fact: Event, secrets: Secrets) -> Event:
    """Of what a fact holds, a registry chose the media types, the addresses of layers and the platform alone."""
    if not isinstance(fact, PullResolved):
        return fact
    return replace(
        fact,
        platform=secrets.told(fact.platform, _LONGEST_TYPE),
        manifest=_plain(fact.manifest, secrets),
        config=_plain(fact.config, secrets),
        layers=tuple(replace(layer, blob=_plain(layer.blob, secrets)) for layer in fact.layers),
    )


def _plain(descriptor: Descriptor, secrets: Secrets) -> Descriptor:
    media_type = descriptor.media_type
    if media_type not in KNOWN_TYPES:
        media_type = secrets.told(media_type, _LONGEST_TYPE)
    urls = tuple(secrets.told(url, _LONGEST_URL) for url in descriptor.urls)
    if media_type == descriptor.media_type and urls == descriptor.urls:
        return descriptor
    return replace(descriptor, media_type=media_type, urls=urls)
