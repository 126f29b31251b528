"""Manifests and indexes out of the store, and what they say they are."""

import asyncio
from dataclasses import dataclass

from pullonce.errors import Permanent
from pullonce.oci import go_json
from pullonce.store.content import ContentStore
from schemas.oci import Digest
from services.gateway.mirror.catalog import MANIFEST_LIMIT
from services.gateway.mirror.refusals import Refusal

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index, checked against its digest."""

    digest: Digest
    media_type: str
    body: bytes


async def read(content: ContentStore, digest: Digest) -> Document:
    """Read one.

    Raises:
        Refusal: it is not there, or is damaged, or is no document.
    """
    try:
        body = await asyncio.to_thread(content.read, digest, MANIFEST_LIMIT)
        return Document(digest, media_type_of(body), body)
    except (Permanent, go_json.NoDocument) as exc:
        raise Refusal(str(exc), "MANIFEST_UNKNOWN") from None


def media_type_of(body: bytes) -> str:
    """The document's own word for what it is; else what its fields make it.

    Raises:
        NoDocument: it is no JSON object.
    """
    fields = go_json.parse(body)
    if not isinstance(fields, dict):
        raise go_json.NoDocument("it is no JSON object")
    fields = go_json.fields(fields)
    own = fields.get("mediatype")
    # It becomes a header: what is no media type at all is left out.
    if isinstance(own, str) and 0 < len(own) < 256 and own.isascii() and own.isprintable():
        return own
    return _INDEX if "manifests" in fields else _MANIFEST
