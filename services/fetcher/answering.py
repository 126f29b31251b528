"""Answers what only a registry knows, for whoever serves others out of this store: tags, referrers, access, the size of a blob.

Questions come over the bus (`schemas.registry`); what is answered holds no secret, and fits into one message.
"""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from pullonce.errors import Permanent, PullonceError, ReferenceInvalid, Retryable
from pullonce.oci import go_json
from pullonce.oci.digest import parse_digest
from pullonce.oci.reference import parse
from pullonce.printable import printable
from pullonce.store.content import ContentStore
from schemas import registry as words
from schemas.events import Source
from schemas.malformed import Malformed
from schemas.oci import Descriptor
from services.fetcher.access import AccessRules
from services.fetcher.alone import Alone
from services.fetcher.documents.manifest import OCI_INDEX
from services.fetcher.remote.registry import Registry
from services.fetcher.settings import Bounds
from services.fetcher.slots import Slots

log = logging.getLogger(__name__)

_MOST = 384 << 10
"""Bytes of a list in one answer: a message of the bus takes 512 KiB."""
_LONGEST_MESSAGE = 1000
_NO_API = ("MANIFEST_UNKNOWN", "UNSUPPORTED", "registry.refused")
"""What a registry without a referrers API says of it."""
_IN_HAND = 256
"""Questions that are being answered at a time."""
_OF_ONE = 128
"""The same about one registry: one that lets them wait keeps nobody from asking another."""
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?', re.IGNORECASE)


class Answerer:
    """Answers questions for one store.

    Args:
        alone: brings in blobs that are asked for alone.
    """

    def __init__(
        self,
        registry: Registry,
        content: ContentStore,
        access: AccessRules,
        *,
        bounds: Bounds,
        alone: Alone,
    ) -> None:
        self._registry = registry
        self._content = content
        self._access = access
        self._slots = Slots(bounds.resolves_per_registry)
        self._alone = alone
        self._in_hand = asyncio.Semaphore(_IN_HAND)
        self._about: Counter[str] = Counter()

    async def answer(self, body: bytes) -> bytes:
        """The answer to an encoded question."""
        return words.encode(await self._answer(body))

    async def _answer(self, body: bytes) -> words.Answer:
        try:
            question = words.decode(body)
            with self._counted(question.source.registry):
                async with self._in_hand:
                    with self._registry.secrets.cleaning():
                        self._check(question)
                        return await self._of(question)
        except Malformed as exc:
            return words.Refused(code="question.malformed", message=printable(str(exc), _LONGEST_MESSAGE))
        except (Permanent, Retryable) as exc:
            return words.Refused(code=exc.code, message=printable(str(exc), _LONGEST_MESSAGE))
        except (PullonceError, OSError) as exc:
            return words.Refused(code="registry.unavailable", message=printable(str(exc), _LONGEST_MESSAGE))

    @contextmanager
    def _counted(self, registry: str) -> Iterator[None]:
        """Take one more question about a registry.

        Raises:
            Retryable: `fetcher.busy`; there are too many.
        """
        if self._about[registry] >= _OF_ONE:
            raise Retryable(f"{registry} has yet to answer {_OF_ONE} questions", code="fetcher.busy")
        self._about[registry] += 1
        try:
            yield
        finally:
            self._about -= Counter((registry,))

    def _check(self, question: words.Question) -> None:
        """A source as it came over the bus becomes part of a URL that a secret is sent to."""
        try:
            parse(f"{question.source.registry}/{question.source.repository}")
        except ReferenceInvalid as exc:
            raise Permanent(str(exc), code="NAME_INVALID") from exc
        if not isinstance(question, words.AskTags):
            parse_digest(question.digest)
        self._access.check_name(question.source.credential)

    async def _of(self, question: words.Question) -> words.Answer:
        match question:
            case words.AskTags():
                return await self._tags(question)
            case words.AskReferrers():
                return await self._referrers(question)
            case words.AskAccess():
                return await self._may(question)
            case words.AskBlob():
                return await self._blob(question)

    async def _tags(self, question: words.AskTags) -> words.Tags:
        query = {} if question.count is None else {"n": str(question.count)}
        query |= {"last": question.last} if question.last else {}
        headers, fields = await self._listing(question.source, "tags", "list", query)
        there = fields.get("tags")
        tags = [tag for tag in there if isinstance(tag, str)] if isinstance(there, list) else []
        if question.last in tags or (question.count is not None and len(tags) > question.count):
            # Registries of before the specification send all, in any order, whatever is asked.
            tags = sorted(filter(lambda tag: _lexical(tag) > _lexical(question.last), tags), key=_lexical)
        kept, size = 0, 0
        for tag in tags if question.count is None else tags[: question.count]:
            size += len(tag.encode()) + 4
            if size > _MOST:
                break
            kept += 1
        return words.Tags(tags=tuple(tags[:kept]), more=kept < len(tags) or bool(_next(headers)))

    async def _referrers(self, question: words.AskReferrers) -> words.Referrers:
        query = dict(parse_qsl(question.page, keep_blank_values=True))
        query |= {"artifactType": question.artifact_type} if question.artifact_type else {}
        try:
            headers, index = await self._listing(question.source, "referrers", question.digest, query)
        except Permanent as exc:
            if exc.code not in _NO_API:
                raise
            headers, index = {}, await self._by_tag(question)
        manifests = index.get("manifests")
        manifests = manifests if isinstance(manifests, list) else []
        if wanted := question.artifact_type:  # a registry may leave that to who asks
            manifests = [each for each in manifests if isinstance(each, dict) and each.get("artifactType") == wanted]
        body = msgspec.json.encode({**index, "manifests": manifests})
        if len(body) > _MOST:
            what = f"{question.digest} has more referrers than a message holds ({len(body)} bytes in one page)"
            raise Permanent(what, code="registry.answer")
        return words.Referrers(index=msgspec.Raw(body), filtered=bool(wanted), page=urlsplit(_next(headers)).query[:2048])

    async def _by_tag(self, question: words.AskReferrers) -> dict[str, Any]:
        """The referrers as a registry without that API has them: an index under a tag, or none at all.

        Source: distribution-spec 1.1, "Unavailable Referrers API", "Referrers Tag Schema".
        """
        algorithm, _, name = question.digest.partition(":")
        source, index = question.source, None
        try:
            async with self._slots.of(source.registry):
                _, content = await self._registry.manifest(source, f"{algorithm[:32]}-{name[:64]}")
            index = go_json.parse(content)
        except Permanent as exc:
            if exc.code != "MANIFEST_UNKNOWN":
                raise
        except go_json.NoDocument:
            pass  # something else has that tag
        there = isinstance(index, dict) and isinstance(index.get("manifests"), list)
        return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index["manifests"] if there and index else []}

    async def _listing(
        self, source: Source, kind: Any, locator: str, query: Mapping[str, str]
    ) -> tuple[Mapping[str, str], dict[str, Any]]:
        async with self._slots.of(source.registry):
            headers, body = await self._registry.listing(source, kind, locator, query)
        try:
            fields = go_json.parse(body)
        except go_json.NoDocument as exc:
            raise Permanent(f"{source.registry}/{source.repository}: {exc}", code="registry.answer") from exc
        if not isinstance(fields, dict):
            raise Permanent(f"{source.registry}/{source.repository}: it answers with no object", code="registry.answer")
        return headers, fields

    async def _may(self, question: words.AskAccess) -> words.Access:
        source, digest = question.source, question.digest
        if self._access.imported(source, digest):
            return words.Access(of="image", seconds=words.REMEMBERED)
        if self._access.isolated:
            asked = question.blob or digest
            is_blob = question.blob and question.kind == "blobs"
            async with self._slots.of(source.registry):
                await self._access.separate(source, () if is_blob else (asked,), {asked: question.size} if is_blob else {})
            return words.Access(of="content")
        if not await self._access.proved(source, digest):
            async with self._slots.of(source.registry):
                await self._access.prove(source, digest)
        return words.Access(of="repository", seconds=await self._access.remembered(source))

    async def _blob(self, question: words.AskBlob) -> words.BlobFound:
        source, digest = question.source, question.digest
        of: Literal["repository", "content"] = "content" if self._access.isolated else "repository"
        if question.begin and (size := self._alone.renew(source, digest)) is not None:
            return words.BlobFound(size=size, of=of)
        async with self._slots.of(source.registry):
            size = await self._registry.size(source, digest)
        if self._access.isolated and self._content.has(digest):
            await self._access.separate(source, (), {digest: size})
        if question.begin:
            self._alone.begin(source, Descriptor(media_type="", digest=digest, size=size))
        return words.BlobFound(size=size, of=of)


def _lexical(tag: str) -> tuple[str, str]:
    """The order of tags (distribution-spec 1.1, "Listing Tags")."""
    return tag.lower(), tag


def _next(headers: Mapping[str, str]) -> str:
    """Where the next page is, as `Link` says (RFC 8288); empty: nowhere."""
    found = _NEXT.search(headers.get("Link", ""))
    return found[1] if found else ""
