"""Answers to questions asked over core NATS: who is there (`pullonce.ping`), what is in flight (`coordinator.status`), which
incarnation of a store is served (`store.now.<store>`).

All are requests with an empty body. Every process answers a ping for itself, so a client gathers; it says the same once,
unasked, on `pullonce.here` when it begins its work. One coordinator, any one, answers for the status, since all fold the same
log; and any worker for its store, since all of them share it.
"""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from schemas.malformed import read
from schemas.progress import ProgressMessage
from schemas.routing import progress_key

STARTING = "starting"
"""A detail of whoever does not do its work yet: it has read up to `position` of this many."""


class Pong(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One process is there and does its work."""

    service: str
    """`coordinator`, `fetcher`, `unpacker`, `ledger`."""
    store: str = ""
    """The store it serves; empty where it serves all."""
    pid: int = 0
    host: str = ""
    """The machine, or the container, that gave the process its id."""
    version: str = ""
    details: dict[str, str | int | float] = {}
    """Whatever the service wants to say of itself."""


class StoreNow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The store as a worker finds it on its disk at this moment."""

    store: str
    incarnation: str = ""
    """As in `store.opened`; empty where the store was wiped and not opened again."""
    host: str = ""
    pid: int = 0
    since: float = 0.0
    """Seconds since the epoch at which the worker began."""


class Waiting(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One key that a flight cannot end without."""

    key: str
    """The claim's key: `blob.<store>.<digest>`, `layer.<store>.<chain>`, `resolve.…`, `record.…`."""
    state: str = ""
    holder: str = ""
    """The coordinator that won the claim, where one is known."""
    worker: str = ""
    """Who works on it, as the workers themselves say. This and what follows is no coordinator's to know: `pullonce status`
    asks the workers and fills it in."""
    since: float = 0.0
    """Seconds since the epoch at which the worker's present attempt began."""
    attempt: int = 0
    """Which one that is, from 1; 0: nobody has said."""
    doing: str = ""
    """What the worker last said of it: `waiting`, `fetching`, `retrying`…"""
    error: str = ""
    """Why the last attempt came to nothing."""


class FlightStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One flight in flight."""

    reference: str
    flight: str
    opened: int
    """Position in the log at which it was opened."""
    store: str = "default"
    platform: str = ""
    requests: int = 0
    """Requests that its ending will answer."""
    state: str = ""
    waiting: tuple[Waiting, ...] = ()


class Status(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All flights in flight, as one coordinator sees them at `position`."""

    position: int = 0
    flights: tuple[FlightStatus, ...] = ()


def with_workers(status: Status, words: Iterable[ProgressMessage]) -> Status:
    """A status with what workers say of what is waited for; of several words on one piece of work the latest attempt counts."""
    by_key: dict[str, ProgressMessage] = {}
    for word in sorted(words, key=lambda word: word.since):
        by_key[progress_key(word)] = word

    def told(waiting: Waiting) -> Waiting:
        word = by_key.get(waiting.key)
        if word is None:
            return waiting
        return msgspec.structs.replace(
            waiting,
            state="ordered",
            worker=word.worker,
            since=word.since,
            attempt=word.attempt,
            doing=word.state,
            error=word.error,
        )

    flights = (msgspec.structs.replace(each, waiting=tuple(map(told, each.waiting))) for each in status.flights)
    return msgspec.structs.replace(status, flights=tuple(flights))


_encoder = msgspec.json.Encoder()
_pong = msgspec.json.Decoder(Pong)
_status = msgspec.json.Decoder(Status)
_store_now = msgspec.json.Decoder(StoreNow)


def encode(answer: Pong | Status | StoreNow) -> bytes:
    """Write an answer."""
    return _encoder.encode(answer)


def decode_pong(body: bytes) -> Pong:
    """Read an answer to a ping; raises Malformed where it is none."""
    return read(_pong, body, "pong")


def decode_status(body: bytes) -> Status:
    """Read an answer to a status request; raises Malformed where it is none."""
    return read(_status, body, "status")


def decode_store_now(body: bytes) -> StoreNow:
    """Read what a worker says of its store; raises Malformed where it is none."""
    return read(_store_now, body, "word about a store")
