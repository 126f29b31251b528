"""The CRI's image service, answered from the store: one method a call, with the protocol's names."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from grpclib.const import Status

from pullonce.care.flights import ActiveFlights
from pullonce.care.listing import ImageList, Kept, NotListed
from pullonce.errors import PullonceError
from pullonce.store.images import ImageRecord
from services.gateway.credentials import Credentials
from services.gateway.cri.catalog import Catalog
from services.gateway.cri.pulls import Pull, carry_out, refusal
from services.gateway.protocols import images_pb2 as cri
from services.gateway.rpc.serving import CallError

log = logging.getLogger(__name__)

_PATIENCE = 3.0
"""Seconds for which an image that is being pulled is tried again to be removed."""
_AGAIN = 0.1
_AT_ONCE = 100
"""Images of one message of a stream."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the service is made of.

    Attributes:
        active: what is in flight, as a coordinator says; raises PullonceError.
        connected: whether the bus answers.
        mountpoint: the store, as kubelet sees it.
        version: of pullonce.
    """

    catalog: Catalog
    images: ImageList
    credentials: Credentials
    pull: Pull
    active: Callable[[], Awaitable[ActiveFlights]]
    connected: Callable[[], bool]
    mountpoint: Path
    version: str


class ImageService:
    """`runtime.v1.ImageService`, and as much of `RuntimeService` as clients ask for first."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def ListImages(self, request: cri.ListImagesRequest) -> cri.ListImagesResponse:
        return cri.ListImagesResponse(images=await self._listed(request.filter))

    async def StreamImages(self, request: cri.StreamImagesRequest) -> AsyncIterator[cri.StreamImagesResponse]:
        images = await self._listed(request.filter)
        for start in range(0, len(images), _AT_ONCE):
            yield cri.StreamImagesResponse(images=images[start : start + _AT_ONCE])

    async def ImageStatus(self, request: cri.ImageStatusRequest) -> cri.ImageStatusResponse:
        found = await self._parts.catalog.find(request.image.image)
        if found is None:
            return cri.ImageStatusResponse()
        info = await asyncio.to_thread(self._parts.catalog.info, found.id) if request.verbose else ""
        return cri.ImageStatusResponse(image=found, info={"info": info} if info else {})

    async def PullImage(self, request: cri.PullImageRequest) -> cri.PullImageResponse:
        try:
            image = await carry_out(request, self._parts.pull, self._parts.credentials)
        except PullonceError as exc:
            raise CallError(*refusal(request.image.image, exc)) from exc
        return cri.PullImageResponse(image_ref=image)

    async def RemoveImage(self, request: cri.RemoveImageRequest) -> cri.RemoveImageResponse:
        if not request.image.image:
            raise CallError(Status.INVALID_ARGUMENT, "pullonce: no image is named")
        await remove(self._parts.catalog, self._parts.images, self._parts.active, request.image.image)
        return cri.RemoveImageResponse()

    async def ImageFsInfo(self, request: cri.ImageFsInfoRequest) -> cri.ImageFsInfoResponse:
        usage = await self._parts.catalog.usage()
        told = cri.FilesystemUsage(
            timestamp=time.time_ns(),
            fs_id=cri.FilesystemIdentifier(mountpoint=str(self._parts.mountpoint)),
            used_bytes=cri.UInt64Value(value=usage.size),
            inodes_used=cri.UInt64Value(value=usage.files),
        )
        return cri.ImageFsInfoResponse(image_filesystems=[told])

    async def Version(self, request: cri.VersionRequest) -> cri.VersionResponse:
        version = self._parts.version
        return cri.VersionResponse(
            version="0.1.0", runtime_name="pullonce", runtime_version=version, runtime_api_version="v1"
        )  # fmt: skip

    async def Status(self, request: cri.StatusRequest) -> cri.StatusResponse:
        ready = cri.RuntimeCondition(type="RuntimeReady", status=self._parts.connected())
        if not ready.status:
            ready.reason, ready.message = "BusAway", "the bus of pullonce does not answer; see `pullonce ping`"
        network = cri.RuntimeCondition(type="NetworkReady", status=True)
        return cri.StatusResponse(status=cri.RuntimeStatus(conditions=[ready, network]))

    async def _listed(self, wanted: cri.ImageFilter) -> list[cri.Image]:
        if not wanted.image.image:
            return await self._parts.catalog.all()
        found = await self._parts.catalog.find(wanted.image.image)
        return [] if found is None else [found]


async def remove(catalog: Catalog, images: ImageList, active: Callable[[], Awaitable[ActiveFlights]], name: str) -> None:
    """Take an image off the list under all its names. One that is not there is no error, nor are many that do so at once.

    Raises:
        CallError: it is pinned, or being pulled.
        PullonceError: nobody knows what is in flight.
        Permanent: the disk refuses.
    """
    found = await catalog.find(name)
    records = await catalog.records(found.id) if found is not None else []
    if found is not None and found.pinned:
        why = f"{', '.join(found.repo_tags) or found.id} is pinned; `pullonce unpin` it first"
        raise CallError(Status.FAILED_PRECONDITION, f"pullonce: {why}")
    until = time.monotonic() + _PATIENCE
    while records:
        try:
            await asyncio.to_thread(_unlist, images, records, await active())
        except Kept as exc:
            if time.monotonic() > until:
                raise CallError(Status.FAILED_PRECONDITION, f"pullonce: {exc}") from exc
            await asyncio.sleep(_AGAIN)
        else:
            log.info("an image is off the list", extra={"reference": records[0].reference, "names": len(records)})
            return


def _unlist(images: ImageList, records: list[ImageRecord], active: ActiveFlights) -> None:
    for record in records:
        try:
            images.remove(record.reference, record.platform, active)
        except NotListed:
            continue
