"""Answers about manifests and indexes.

A tag is asked at the registry, by a pull that fetches what is missing: the answer is given as soon as it is known what the tag
names. A digest needs no question where the store has it and it is known to be of that repository.
"""

from aiohttp import web

from services.gateway.mirror.blobs import Parts
from services.gateway.mirror.documents import Document, read
from services.gateway.mirror.names import Wanted
from services.gateway.mirror.pulls import Order
from services.gateway.mirror.refusals import Refusal

WITHIN = 10.0
"""Seconds that a registry has to say what a tag is. Clients wait 30 for the head of an answer."""
_LISTED_WITHIN = 3.0
_AWAY = ("registry.", "pullonce.late")


class Manifests:
    """Answers GET and HEAD of manifests."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def answer(self, request: web.Request, wanted: Wanted, credential: str) -> web.StreamResponse:
        """A manifest or an index, by tag or digest.

        Raises:
            Refusal: it cannot be had.
        """
        document = await (self._by_digest(wanted, credential) if wanted.digest else self._by_tag(wanted, credential))
        if request.method == "HEAD":
            response = web.Response(headers=_headers(document))
            response.headers["Content-Length"] = str(len(document.body))
            return response
        return web.Response(body=document.body, headers=_headers(document))

    async def _by_tag(self, wanted: Wanted, credential: str) -> Document:
        order = Order(wanted.reference, credential, "always")
        self._check_bus()
        try:
            digest = await self._parts.pulls.resolve(order, WITHIN)
        except Refusal as exc:
            if exc.wants_secret:
                self._parts.access.withdraw(wanted, credential)
            # A registry that is away does not know. What is listed, imported perhaps, is better than nothing.
            if not exc.code.startswith(_AWAY) or not self._parts.content.images.named(wanted.reference):
                raise
            order = Order(wanted.reference, credential, "if-not-present")
            digest = await self._parts.pulls.resolve(order, _LISTED_WITHIN)
        return await read(self._parts.content, digest)

    async def _by_digest(self, wanted: Wanted, credential: str) -> Document:
        known = await self._parts.catalog.find(wanted.place, wanted.digest)
        if known and self._parts.content.has(wanted.digest):
            if not await self._parts.access.check(wanted, known, credential):
                await self._parts.access.check_document(wanted, credential)
            return await read(self._parts.content, wanted.digest)
        self._check_bus()
        await self._parts.pulls.resolve(Order(wanted.reference, credential, "if-not-present"), WITHIN)
        return await read(self._parts.content, wanted.digest)

    def _check_bus(self) -> None:
        if not self._parts.connected():
            raise Refusal("the bus of pullonce does not answer", "pullonce.unavailable")


def _headers(document: Document) -> dict[str, str]:
    return {
        "Content-Type": document.media_type,
        "Docker-Content-Digest": document.digest,
        "ETag": f'"{document.digest}"',
        "Docker-Distribution-Api-Version": "registry/2.0",
    }
