"""Build a mirror bottom-up and keep it running."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pullonce.bus.ports import Signals
from pullonce.store.content import ContentStore
from schemas.events import PullResolved, decode
from schemas.malformed import Malformed
from services.gateway.mirror.access import Access
from services.gateway.mirror.blobs import Parts
from services.gateway.mirror.catalog import Catalog
from services.gateway.mirror.counts import Counts
from services.gateway.mirror.listening import Place, serving
from services.gateway.mirror.pulls import Begin, Pulls
from services.gateway.mirror.questions import Questions
from services.gateway.mirror.routes import Routes, Rules

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """What a mirror needs of the rest."""

    begin: Begin
    signals: Callable[[], Signals]
    connected: Callable[[], bool]


class Mirror:
    """A mirror that is running.

    Attributes:
        counts: what it did.
        address: where it is reached.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.counts = parts.counts
        self.address = ""

    def details(self) -> dict[str, str | int]:
        """For the answer to a ping."""
        return {
            "address": self.address, "requests": sum(self.counts.requests.values()), "pulls": len(self._parts.pulls),
            "images": len(self._parts.catalog), "bytes": self.counts.bytes, "broken": self.counts.broken,
            "turned_away": self.counts.turned_away,
        }  # fmt: skip

    def hear(self, subject: str, body: bytes) -> None:
        """Take in what the log says of images that others pull."""
        try:
            event = decode(subject, body)
        except Malformed:
            return
        if isinstance(event, PullResolved):
            self._parts.catalog.learn(event)


def build(store: Path, name: str, outside: Outside) -> tuple[Mirror, Parts]:
    """A mirror of one store that is not reached yet.

    Args:
        store: the store's directory.
        name: its name on the bus.
    """
    content = ContentStore(store)
    catalog = Catalog(content)
    questions = Questions(outside.signals, name)
    pulls = Pulls(outside.begin, catalog.learn)
    parts = Parts(content, catalog, Access(questions), pulls, questions, Counts(), outside.connected)
    return Mirror(parts), parts


@asynccontextmanager
async def mirroring(mirror: Mirror, parts: Parts, rules: Rules, place: Place) -> AsyncIterator[None]:
    """Have a mirror answer at a place for as long as the block lasts.

    Raises:
        PortTaken, SocketUnusable: it cannot.
    """
    own: set[str] = set()
    routes = Routes(parts, rules, lambda: own)
    try:
        async with serving(routes.application(), place, parts.counts) as address:
            mirror.address = address
            if (port := urlsplit(address).port) is not None:
                own |= {f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]", place.host)}
            log.info("the mirror answers", extra={"address": address})
            yield
    finally:
        await asyncio.shield(parts.pulls.close())
