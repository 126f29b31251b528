"""Who may have what the store holds: whoever has proved it to the registry, which the fetcher knows or finds out.

Access is given by repository, as registries do, and remembered for as long as the fetcher says. Where content is isolated, the
fetcher is asked for each piece of it, once it is there.
"""

import asyncio
from collections import OrderedDict

from schemas.events import Source
from schemas.oci import Digest
from schemas.registry import Access as Answer
from schemas.registry import AskAccess
from services.gateway.mirror.catalog import Content
from services.gateway.mirror.names import Wanted
from services.gateway.mirror.questions import Questions
from services.gateway.mirror.refusals import Refusal

_MOST = 10_000
_TRIED = 3
"""Images that have the same content and are asked for, one after the other: the tag of one may have moved on."""


class Access:
    """Access to the repositories of one store's images, by credential."""

    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._given: OrderedDict[tuple[str, str, Digest], float] = OrderedDict()

    async def check(self, wanted: Wanted, found: list[Content], credential: str) -> bool:
        """Whether all content of an image may be given; False: each piece is to be asked for, by `check_piece`.

        Args:
            found: what is asked for, by the images that have it: of the newest that is still there.

        Raises:
            Refusal: no access, or nobody can say.
        """
        for content in found[:_TRIED]:
            try:
                return await self._check(wanted, content, credential)
            except Refusal as exc:
                if not exc.not_there or content is found[:_TRIED][-1]:
                    raise
        raise AssertionError("nothing is asked for")

    async def _check(self, wanted: Wanted, content: Content, credential: str) -> bool:
        for digest in (Digest(""), content.top):
            if self._given.get((wanted.place, credential, digest), 0.0) > _now():
                return True
        answer = await self._questions.ask(AskAccess(source=_source(wanted, credential), digest=content.top), Answer)
        if answer.of == "content":
            return False
        digest = content.top if answer.of == "image" else Digest("")
        self._given[wanted.place, credential, digest] = _now() + answer.seconds
        while len(self._given) > _MOST:
            self._given.popitem(last=False)
        return True

    def withdraw(self, wanted: Wanted, credential: str) -> None:
        """The registry has just refused this credential: what it gave before does not count any more."""
        for key in [key for key in self._given if key[:2] == (wanted.place, credential)]:
            del self._given[key]

    async def check_document(self, wanted: Wanted, credential: str) -> None:
        """A manifest that is there and isolated may be given.

        Raises:
            Refusal: it may not.
        """
        await self._questions.ask(AskAccess(source=_source(wanted, credential), digest=wanted.digest), Answer)

    async def check_piece(self, wanted: Wanted, content: Content, credential: str) -> None:
        """Content that is there and isolated may be given.

        Raises:
            Refusal: it may not.
        """
        await self._questions.ask(
            AskAccess(source=_source(wanted, credential), digest=content.top, blob=wanted.digest, size=content.size), Answer
        )


def _source(wanted: Wanted, credential: str) -> Source:
    return Source(registry=wanted.registry, repository=wanted.repository, credential=credential)


def _now() -> float:
    return asyncio.get_running_loop().time()
