"""In front of the runtime: what is pulled comes through pullonce first, and everything goes on to the runtime as it is.

If pullonce cannot pull, the runtime is asked at once and pulls by itself: nothing that pullonce lacks keeps a node from its
images.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from pullonce.care.flights import ActiveFlights
from pullonce.care.listing import ImageList
from pullonce.errors import PullonceError
from services.gateway.credentials import Credentials
from services.gateway.cri.catalog import Catalog
from services.gateway.cri.pulls import Pull, Tell, carry_out
from services.gateway.cri.service import remove
from services.gateway.protocols import images_pb2 as cri
from services.gateway.rpc.relaying import Hook
from services.gateway.rpc.serving import CallError

log = logging.getLogger(__name__)

AWAY = 2.0
"""Seconds for which the bus may be away in the middle of a pull before the runtime pulls by itself."""
SILENT = 30.0
"""Seconds in which something must be heard of a pull."""
_LOOK = 0.5


@dataclass(frozen=True, slots=True)
class Front:
    """What is done before and after calls that go on to the runtime.

    Attributes:
        connected: whether the bus answers.
        active: what is in flight, as a coordinator says; raises PullonceError.
    """

    pull: Pull
    credentials: Credentials
    catalog: Catalog
    images: ImageList
    connected: Callable[[], bool]
    active: Callable[[], Awaitable[ActiveFlights]]

    def hooks(self) -> dict[str, Hook]:
        """By method."""
        return {
            "/runtime.v1.ImageService/PullImage": Hook(before=self.before_pull),
            "/runtime.v1.ImageService/RemoveImage": Hook(after=self.after_removal),
        }

    async def before_pull(self, message: bytes) -> None:
        """Have an image that the runtime is about to pull."""
        try:
            request = cri.PullImageRequest.FromString(message)
        except DecodeError:
            return  # the runtime says what is wrong with it
        name = request.image.image
        if not name:
            return
        try:
            await attend(lambda tell: carry_out(request, self.pull, self.credentials, tell), self.connected)
        except PullonceError as exc:
            log.info("an image cannot be pulled: the runtime tries by itself", extra={"reference": name, "why": str(exc)})

    async def after_removal(self, message: bytes) -> None:
        """Take an image that the runtime removed off our list: whoever removes it means the disk."""
        name = cri.RemoveImageRequest.FromString(message).image.image
        try:
            await remove(self.catalog, self.images, self.active, name)
        except (PullonceError, CallError) as exc:
            log.info("an image that the runtime removed stays on the list", extra={"reference": name, "why": str(exc)})


class GaveUp(PullonceError):
    """A pull takes so long that the runtime should try."""


async def attend(pull: Callable[[Tell], Awaitable[str]], connected: Callable[[], bool]) -> None:
    """Wait for a pull as long as there is hope.

    Raises:
        GaveUp: there is none any more.
        PullonceError: it failed.
    """
    heard = seen = time.monotonic()

    def tell(_: object) -> None:
        nonlocal heard
        heard = time.monotonic()

    task = asyncio.ensure_future(pull(tell))
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK)
            now = time.monotonic()
            seen = now if connected() else seen
            if now - seen > AWAY:
                raise GaveUp("the bus went away")
            if now - heard > SILENT:
                raise GaveUp(f"nothing was heard of it for {SILENT:g} s")
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
