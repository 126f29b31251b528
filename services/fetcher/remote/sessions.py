"""What the requests of an upload are made of, and how one of them may end."""

from dataclasses import dataclass

from pullonce.errors import Permanent, Retryable
from schemas.events import Source
from services.fetcher.servers.hosts import Host


@dataclass(frozen=True, slots=True)
class Destination:
    """Where content goes: a repository, by one server."""

    host: Host
    source: Source

    @property
    def named(self) -> str:
        return f"{self.source.registry}/{self.source.repository}"


@dataclass(frozen=True, slots=True)
class Session:
    """An upload that has begun.

    Attributes:
        location: where it goes on, an absolute address. It may be all that is needed to go on: it is told to nobody.
        offset: bytes that the registry has.
        smallest: bytes that a part must have at least, but for the last one.
    """

    location: str
    offset: int = 0
    smallest: int = 0


class SessionGone(Exception):
    """The registry knows nothing of an upload any more."""


class Refused(Exception):
    """The registry does not take a part in this form.

    Attributes:
        status: of its answer: 413 for one that is too long, 416 for one that does not begin where it wants.
        failure: what to say where there is no other form.
    """

    def __init__(self, status: int, failure: Permanent) -> None:
        super().__init__(str(failure))
        self.status = status
        self.failure = failure


class BrokenOff(Retryable):
    """A request with a body was cut off: nobody answered, or a proxy that waits no longer. A shorter one may come through."""
