"""All that pullonce uses of nats-py beyond its public face, in one place: the names of another's insides may change any day.

nats-py offers no way to take messages as they lie, to write a command that is made already, or to sign in without one more
package. So its parser is exchanged and its buffer written to. `check` says at the start what an installed version lacks;
without it, a service would hang or lose messages in silence."""

from __future__ import annotations

import asyncio
import inspect
import json
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error
from nats.protocol.parser import Parser

from pullonce.bus.nats.greeting import no_tls
from pullonce.bus.nats.protocol import Frame, complaint, text
from pullonce.errors import BusUnsuitable

MADE_FOR = "2.16"

_ATTRIBUTES = (
    "_ps", "_pending", "_pending_data_size", "_max_pending_size", "_max_payload", "_flush_queue", "_sid", "_public_nkey",
    "_auth_configured",
)  # fmt: skip
_METHODS = {
    "_process_ping": (),
    "_process_pong": (),
    "_process_info": ("info",),
    "_process_err": ("err_msg",),
    "_process_msg": ("sid", "subject", "reply", "data", "headers"),
    "_flush_pending": ("force_flush",),
    "_send_unsubscribe": ("sid",),
}
_OF_SUBSCRIPTION = ("_id", "_closed")


def check(client: Client) -> None:
    """Raises BusUnsuitable where this nats-py is not the one that pullonce was made for; the message names what is missing."""
    missing = [name for name in _ATTRIBUTES if not hasattr(client, name)]
    missing += [name for name, wanted in _METHODS.items() if not _takes(getattr(client, name, None), wanted)]
    missing += [f"Subscription.{name}" for name in _OF_SUBSCRIPTION if not hasattr(Subscription(client, cb=_nobody), name)]
    missing += [f"Parser.{name}" for name in ("parse", "reset") if not hasattr(Parser, name)]
    if not missing:
        return
    try:
        found = version("nats-py")
    except PackageNotFoundError:
        found = "of an unknown version"
    raise BusUnsuitable(
        f"nats-py {found} is not the one that pullonce was made for, it lacks {', '.join(missing)}: "
        f"pip install 'nats-py=={MADE_FOR}.*'"
    )


def _takes(method: object, wanted: tuple[str, ...]) -> bool:
    if not callable(method):
        return False
    parameters = inspect.signature(method).parameters
    return all(name in parameters for name in wanted)


async def _nobody(_: object) -> None:
    pass


# -- reading -----------------------------------------------------------------------------------------------------------


def exchange_parser(client: Client, parser: Parser) -> None:
    """Have everything that is received go through another parser; before the client connects."""
    client._ps = parser


async def hand_over(client: Client, frame: Frame) -> None:
    """Let nats-py deal with a frame as with one that it cut out itself. Subjects may be any bytes: it expects UTF-8."""
    verb, subject, number, reply, head, body = frame
    match verb:
        case b"MSG" | b"HMSG":
            await client._process_msg(int(number), text(subject).encode(), text(reply).encode(), body, head)
        case b"PING":
            await client._process_ping()
        case b"PONG":
            await client._process_pong()
        case b"INFO":
            await client._process_info(json.loads(subject))
        case b"-ERR":
            await client._process_err(f"'{complaint(subject).lower()}'")


# -- writing -----------------------------------------------------------------------------------------------------------


def most(client: Client) -> int:
    """Bytes of a message that the server takes."""
    return int(client._max_payload)


def has_room(client: Client, size: int = 0) -> bool:
    """So many bytes more fit into what may wait to be written."""
    return client._pending_data_size + size <= client._max_pending_size


def queue(client: Client, command: bytes) -> None:
    """Put a command behind those that wait to be written. All of one turn of the event loop are written at once."""
    client._pending.append(command)
    client._pending_data_size += len(command)
    flusher = client._flush_queue
    if client.is_connected and flusher is not None and flusher.empty():
        flusher.put_nowait(asyncio.get_running_loop().create_future())  # wakes it


async def write_out(client: Client) -> None:
    """Return when what waits has been written."""
    await client._flush_pending(force_flush=True)


# -- subscriptions -----------------------------------------------------------------------------------------------------


def next_number(client: Client) -> bytes:
    """What messages of the subscription will bear that is made next; `subscribe` takes it before it first waits."""
    return b"%d" % (client._sid + 1)


def number_of(subscription: Subscription) -> bytes:
    return b"%d" % subscription._id


def has_ended(subscription: Subscription) -> bool:
    return bool(subscription._closed)


async def end_at_server(client: Client, subscription: Subscription) -> None:
    """Have the server send no more of it; what is on its way is still taken."""
    await client._send_unsubscribe(subscription._id)


# -- who we are --------------------------------------------------------------------------------------------------------


class NoTls(Error):
    """A server offers none, or somebody in between says so."""


def insist_on_tls(client: Client, shown: str) -> None:
    """nats-py goes on unencrypted where the first word of a server does not ask for TLS, whatever the address says."""
    process = client._process_info

    async def checked(info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise NoTls(no_tls(shown))
            info["tls_required"] = True
        await process(info, initial_connection=initial_connection)

    client._process_info = checked  # type: ignore[method-assign]


def sign_in_as(client: Client, public: str) -> None:
    """Connect by a key whose signatures come from a callback. nats-py sets this only where it reads the file itself."""
    client._public_nkey = public
    client._auth_configured = True
