"""Of several that miss the same document, one asks for it; but nobody waits long for another one's source.

Whoever makes an image chooses the digests in it, so a registry that answers nothing could otherwise hold up a document that
others know a good source of.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from schemas.events import Source
from schemas.oci import Digest


@dataclass(slots=True)
class _Asked:
    source: Source
    done: asyncio.Future[None]
    """Has the failure, where it came to one; nothing, where the store is worth another look."""


class Asking:
    """What is being asked for by this process.

    Args:
        patience: seconds for which another source is given a chance.
    """

    def __init__(self, patience: float = 3.0) -> None:
        self._patience = patience
        self._asked: dict[Digest, _Asked] = {}

    async def once(
        self, digest: Digest, source: Source, kept: Callable[[], bytes | None], ask: Callable[[float], Awaitable[bytes]]
    ) -> bytes:
        """A document from the store, or else from the source.

        Args:
            kept: looks into the store.
            ask: asks the source, and stores what it sends; told for how many seconds another process may be waited for.

        Raises:
            Whatever asking raises; those who waited for the same source share it.
        """
        while (content := kept()) is None:
            other = self._asked.get(digest)
            if other is None:
                return await self._ask(digest, source, ask, self._patience)
            if not await self._ended(other, source):
                return await self._ask(digest, source, ask, 0.0)
        return content

    async def _ended(self, other: _Asked, source: Source) -> bool:
        """Whether the one who asks already has ended, well or badly, as long as it may be waited for."""
        if other.source == source:
            await asyncio.shield(other.done)
            return True
        await asyncio.wait([other.done], timeout=self._patience)
        return other.done.done()

    async def _ask(self, digest: Digest, source: Source, ask: Callable[[float], Awaitable[bytes]], patience: float) -> bytes:
        mine = _Asked(source, asyncio.get_running_loop().create_future())
        self._asked[digest] = mine
        try:
            content = await ask(patience)
        except Exception as exc:
            mine.done.set_exception(exc)
            mine.done.exception()  # seen: nobody may be waiting
            raise
        finally:
            if self._asked.get(digest) is mine:
                del self._asked[digest]
            if not mine.done.done():
                mine.done.set_result(None)
        return content
