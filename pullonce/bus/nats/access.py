"""Who we are on the bus and whom we trust: settings → what nats-py wants to know when it connects."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

from nats.aio.client import Client

from pullonce.bus.nats import insides
from pullonce.bus.nats.nkeys import BusIdentity, KeyInvalid, read_identity
from pullonce.config import BusSettings
from pullonce.errors import BusUnsuitable


def access(client: Client, settings: BusSettings) -> dict[str, Any]:
    """Arguments of `client.connect`, beyond the address, by which we are let in. Files are looked at now, so that what is
    wrong with them is said at once.

    Raises:
        BusUnsuitable: a file that the settings name cannot be used.
    """
    options: dict[str, Any] = {"inbox_prefix": settings.inbox}
    if settings.ca or settings.cert or "tls://" in settings.url:
        options["tls"] = _tls(settings)
    if settings.creds:
        options["signature_cb"] = lambda nonce: _identity(settings.creds).sign(nonce)
        identity = _identity(settings.creds)
        if identity.jwt:
            options["user_jwt_cb"] = lambda: _identity(settings.creds).jwt.encode()
        insides.sign_in_as(client, identity.public)
    return options


def _identity(path: str) -> BusIdentity:
    """Read anew for each connection: credentials may be exchanged while a service runs."""
    try:
        return read_identity(Path(path))
    except OSError as exc:
        raise BusUnsuitable(f"the credentials of PULLONCE_NATS_CREDS cannot be read: {exc}") from exc
    except KeyInvalid as exc:
        raise BusUnsuitable(f"PULLONCE_NATS_CREDS: {exc}") from exc


def _quiet(record: logging.LogRecord) -> bool:
    """nats-py keeps a plain connection half open at its end; over TLS asyncio complains of that, each time, and is right."""
    return not record.getMessage().startswith("returning true from eof_received()")


def _tls(settings: BusSettings) -> ssl.SSLContext:
    logging.getLogger("asyncio").addFilter(_quiet)
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
        if settings.cert:
            context.load_cert_chain(settings.cert, settings.key or None)
    except (OSError, ssl.SSLError) as exc:
        named = f"PULLONCE_NATS_CA={settings.ca}, PULLONCE_NATS_CERT={settings.cert}, PULLONCE_NATS_KEY={settings.key}"
        raise BusUnsuitable(f"TLS cannot be set up with {named}: {exc}") from exc
    return context
