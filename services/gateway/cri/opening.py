"""Build a CRI image service bottom-up and keep it running, alone or in front of a runtime."""

import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from pullonce.care.flights import ActiveFlights
from pullonce.care.listing import ImageList
from pullonce.oci.platform import spell
from pullonce.store.content import ContentStore
from services.gateway.credentials import Credentials
from services.gateway.cri.catalog import Catalog
from services.gateway.cri.front import Front
from services.gateway.cri.pulls import Pull
from services.gateway.cri.service import ImageService, Parts
from services.gateway.protocols import images_pb2
from services.gateway.rpc.relaying import relaying
from services.gateway.rpc.serving import serving

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outside:
    """What an image service needs of the rest.

    Attributes:
        active: what is in flight, as a coordinator says; raises PullonceError.
        connected: whether the bus answers.
        shown: a path as kubelet sees it.
        version: of pullonce.
    """

    pull: Pull
    credentials: Credentials
    active: Callable[[], Awaitable[ActiveFlights]]
    connected: Callable[[], bool]
    shown: Callable[[Path], str]
    version: str


@asynccontextmanager
async def image_service(
    store: Path, socket: Path, behind: Path | None, outside: Outside
) -> AsyncIterator[Callable[[], dict[str, int]]]:
    """Serve the image service of one store for as long as the block lasts; yields what counts there are.

    Args:
        store: the store's directory.
        socket: where kubelet asks.
        behind: socket of the runtime that everything goes on to; None: there is none, and all is answered here.

    Raises:
        SocketTaken, SocketUnusable: the socket cannot be had.
    """
    content = ContentStore(store)
    machine = os.uname()
    catalog = Catalog(content, spell(machine.sysname, machine.machine))
    calls: Counter[str] = Counter()
    async with _listener(content, catalog, socket, behind, outside, calls):
        log.info("the CRI's image service answers", extra={"socket": str(socket), "behind": str(behind or "")})
        yield lambda: {"calls": calls.total()}


def _listener(
    content: ContentStore, catalog: Catalog, socket: Path, behind: Path | None, outside: Outside, calls: Counter[str]
) -> AbstractAsyncContextManager[None]:
    images = ImageList(content)
    if behind is not None:
        front = Front(outside.pull, outside.credentials, catalog, images, outside.connected, outside.active)
        return relaying(socket, behind, front.hooks(), watch=lambda method: calls.update((method,)))

    def watch(method: str, request: Message, seconds: float, status: str) -> None:
        calls.update((method,))

    parts = Parts(
        catalog, images, outside.credentials, outside.pull, outside.active, outside.connected,
        Path(outside.shown(content.root)), outside.version,
    )  # fmt: skip
    services = [images_pb2.DESCRIPTOR.services_by_name[name] for name in ("ImageService", "RuntimeService")]
    return serving(services, ImageService(parts), socket, watch=watch)
