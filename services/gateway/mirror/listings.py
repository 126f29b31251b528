"""Answers that are passed through: which tags there are, and which manifests refer to one. The fetcher asks the registry.

Source: distribution-spec 1.1, "Listing Tags", "Listing Referrers".
"""

from urllib.parse import urlencode

import msgspec
from aiohttp import web

from schemas.events import Source
from schemas.registry import AskReferrers, AskTags, Referrers, Tags
from services.gateway.mirror.names import Wanted
from services.gateway.mirror.questions import Questions
from services.gateway.mirror.refusals import Refusal

_INDEX = "application/vnd.oci.image.index.v1+json"
_LONGEST = 512
_MOST = 1_000_000


class Listings:
    """Answers about tags and referrers."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    async def tags(self, request: web.Request, wanted: Wanted, credential: str) -> web.StreamResponse:
        """`/tags/list`, with `n` and `last`, and a link to the next page.

        Raises:
            Refusal: the registry refuses, or nobody can ask it.
        """
        count, last = _count(request.query.get("n")), _short(request.query.get("last", ""))
        if count == 0:
            return _json({"name": wanted.name, "tags": []})
        question = AskTags(source=_source(wanted, credential), count=count, last=last)
        found = await self._questions.ask(question, Tags)
        more = {"last": found.tags[-1]} if found.more and found.tags else {}
        return _json({"name": wanted.name, "tags": found.tags}, link=_link(request, more))

    async def referrers(self, request: web.Request, wanted: Wanted, credential: str) -> web.StreamResponse:
        """`/referrers/<digest>`, with `artifactType`, and a link to the next page.

        Raises:
            Refusal: as `tags`; 404 has clients look for the tag that stood for this before there were referrers.
        """
        question = AskReferrers(
            source=_source(wanted, credential), digest=wanted.digest,
            artifact_type=_short(request.query.get("artifactType", "")), page=request.query.get("page", "")[:2048],
        )  # fmt: skip
        found = await self._questions.ask(question, Referrers)
        response = _json(found.index, kind=_INDEX, link=_link(request, {"page": found.page} if found.page else {}))
        if found.filtered:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        return response


def _json(content: object, *, kind: str = "application/json", link: str = "") -> web.Response:
    headers = {"Docker-Distribution-Api-Version": "registry/2.0", **({"Link": link} if link else {})}
    return web.Response(body=msgspec.json.encode(content), content_type=kind, headers=headers)


def _link(request: web.Request, more: dict[str, str]) -> str:
    """Where the next page is: this request with something more (RFC 8288)."""
    return f'<{request.rel_url.raw_path}?{urlencode({**request.query, **more})}>; rel="next"' if more else ""


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise Refusal(f"n is {text[:20]!r}; expected a number", "PAGINATION_NUMBER_INVALID", 400)
    return min(int(text), _MOST)


def _short(text: str) -> str:
    if len(text) > _LONGEST:
        raise Refusal("a parameter is too long", "UNSUPPORTED", 400)
    return text


def _source(wanted: Wanted, credential: str) -> Source:
    return Source(registry=wanted.registry, repository=wanted.repository, credential=credential)
