"""Who we are on the bus and whom we trust: settings → what nats-py wants to know when it connects."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from nats.aio.client import Client

from pullonce.bus.nats import insides
from pullonce.bus.nats.credentials import identity, tls_context
from pullonce.config import BusSettings


def access(client: Client, settings: BusSettings) -> dict[str, Any]:
    """Arguments of `client.connect`, beyond the address, by which we are let in. Files are looked at now, so that what is
    wrong with them is said at once.

    Raises:
        BusUnsuitable: a file that the settings name cannot be used.
    """
    options: dict[str, Any] = {"inbox_prefix": settings.inbox}
    if settings.ca or settings.cert or "tls://" in settings.url:
        options["tls"] = _tls(settings)
        if not settings.url.startswith("ws"):  # a WebSocket is encrypted, or not, by its address
            insides.insist_on_tls(client, settings.shown)
    if settings.creds:
        options["signature_cb"] = lambda nonce: identity(settings.creds).sign(nonce)
        who = identity(settings.creds)
        if who.jwt:
            options["user_jwt_cb"] = lambda: identity(settings.creds).jwt.encode()
        insides.sign_in_as(client, who.public)
    return options


def _quiet(record: logging.LogRecord) -> bool:
    """nats-py keeps a plain connection half open at its end; over TLS asyncio complains of that, each time, and is right."""
    return not record.getMessage().startswith("returning true from eof_received()")


def _tls(settings: BusSettings) -> ssl.SSLContext:
    logging.getLogger("asyncio").addFilter(_quiet)
    return tls_context(settings.ca, settings.cert, settings.key)
