"""Pulls that clients of the mirror wait for: one an image and login, however many clients there are, without unpacking.

Whoever asks for a manifest waits until the image is resolved, and no longer; whoever asks for a blob of it that is on its way
keeps the pull going while it reads. When nobody needs it any more, the request is withdrawn: after a moment, since between a
manifest and its layers a client asks for nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pullonce.errors import PullonceError
from schemas.events import BlobFetched, Policy, PullCompleted, PullResolved
from schemas.oci import Digest
from schemas.progress import BlobProgress
from services.gateway.mirror.refusals import Refusal, refusal_of

log = logging.getLogger(__name__)

Tell = Callable[[object], None]
LINGER = 30.0
"""Seconds for which a pull goes on that nobody waits for."""
LEFT = 1.0
"""The same, where whoever began it left before it was resolved."""
REMEMBERED = 1.0
"""Seconds for which what a tag names is not asked again: a client asks by HEAD, and then by GET."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is pulled, and for whom."""

    reference: str
    credential: str
    policy: Policy


Begin = Callable[[Order, Tell], Awaitable[object]]
"""Pulls an image without unpacking it; tells of the facts on the way; raises PullonceError."""


@dataclass(slots=True, eq=False)
class Pull:
    """One pull that is under way, or has just been."""

    order: Order
    task: asyncio.Task[object]
    resolved: PullResolved | None = None
    resolved_at: float = 0.0
    users: int = 0
    heard_at: float = 0.0
    """When some blob of it last grew, on the loop's clock."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.TimerHandle | None = None

    def tell(self) -> None:
        """Let all who wait look again; each round has an event of its own."""
        self.news.set()
        self.news = asyncio.Event()

    @property
    def failure(self) -> Refusal | None:
        """Why it came to nothing; None while it runs, and where it went well."""
        if not self.task.done():
            return None
        if self.task.cancelled():
            return Refusal(f"the pull of {self.order.reference} was withdrawn", "pullonce.withdrawn")
        exc = self.task.exception()
        if isinstance(exc, PullonceError):
            return refusal_of(exc)
        return Refusal("the mirror failed", "pullonce.defect") if exc is not None else None


class Pulls:
    """The pulls of one store's mirror.

    Args:
        resolved: told of each image that is resolved.
    """

    def __init__(self, begin: Begin, resolved: Callable[[PullResolved], None]) -> None:
        self._begin = begin
        self._resolved = resolved
        self._pulls: dict[Order, Pull] = {}
        self._by_blob: dict[Digest, list[Pull]] = {}

    def __len__(self) -> int:
        return sum(not pull.task.done() for pull in self._pulls.values())

    async def resolve(self, order: Order, within: float) -> Digest:
        """Have an image pulled, and say what its reference names as soon as that is known.

        Raises:
            Refusal: it cannot be pulled, or that is not known in time; the pull then goes on for a while.
        """
        pull = self._pulls.get(order)
        if pull is None or not _is_good(pull):
            pull = self._start(order)
        linger = LEFT
        pull.users += 1
        try:
            async with asyncio.timeout(within):
                while pull.resolved is None:
                    if pull.task.done():
                        return _named(pull)
                    await pull.news.wait()
            linger = LINGER
            return pull.resolved.digest
        except TimeoutError:
            linger = LINGER
            why = f"{order.reference} is not resolved within {within:g} s"
            raise Refusal(why, "pullonce.late") from None
        finally:
            pull.users -= 1
            self._keep(pull, linger)

    def of(self, order: Order) -> Pull | None:
        """The pull of an order that is under way, or has just been."""
        return self._pulls.get(order)

    def of_blob(self, digest: Digest) -> Pull | None:
        """A pull under way that brings a blob, whoever it is for."""
        return next((pull for pull in self._by_blob.get(digest, ()) if not pull.task.done()), None)

    @contextmanager
    def using(self, pull: Pull) -> Iterator[None]:
        """Keep a pull going, for as long as the block lasts."""
        pull.users += 1
        try:
            yield
        finally:
            pull.users -= 1
            self._keep(pull, LINGER)

    async def close(self) -> None:
        """Withdraw every request."""
        tasks = [pull.task for pull in self._pulls.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, order: Order) -> Pull:
        def tell(fact: object) -> None:
            pull.heard_at = asyncio.get_running_loop().time()
            if isinstance(fact, PullResolved) and pull.resolved is None:
                self._know(pull, fact)
            if isinstance(fact, PullResolved | BlobFetched | BlobProgress):
                pull.tell()

        async def run() -> object:
            return await self._begin(order, tell)

        pull = Pull(order, asyncio.create_task(run(), name=f"mirror {order.reference}"))
        self._pulls[order] = pull
        pull.task.add_done_callback(lambda _: self._end(pull))
        return pull

    def _know(self, pull: Pull, fact: PullResolved) -> None:
        pull.resolved, pull.resolved_at = fact, pull.heard_at
        self._resolved(fact)
        for layer in fact.layers:
            if not layer.fetched:
                self._by_blob.setdefault(layer.blob.digest, []).append(pull)

    def _end(self, pull: Pull) -> None:
        if not pull.task.cancelled():
            pull.task.exception()  # whoever waits for it says so
        pull.tell()
        if pull.leave is not None:
            pull.leave.cancel()
        self._let_go(pull)
        asyncio.get_running_loop().call_later(REMEMBERED, self._forget, pull)

    def _let_go(self, pull: Pull) -> None:
        """No blob comes by it any more."""
        for layer in pull.resolved.layers if pull.resolved else ():
            left = [each for each in self._by_blob.pop(layer.blob.digest, ()) if each is not pull]
            if left:
                self._by_blob[layer.blob.digest] = left

    def _forget(self, pull: Pull) -> None:
        if self._pulls.get(pull.order) is pull:
            del self._pulls[pull.order]

    def _keep(self, pull: Pull, seconds: float) -> None:
        """Withdraw a pull after some seconds, unless somebody needs it then."""
        if pull.leave is not None:
            pull.leave.cancel()
            pull.leave = None
        if not pull.users and not pull.task.done():
            pull.leave = asyncio.get_running_loop().call_later(seconds, self._withdraw, pull)

    def _withdraw(self, pull: Pull) -> None:
        if not pull.users and not pull.task.done():
            log.info("nobody needs an image any more", extra={"reference": pull.order.reference})
            self._forget(pull)  # who comes now begins another
            self._let_go(pull)
            pull.task.cancel()


def _named(pull: Pull) -> Digest:
    """What an ending says that the reference names: a flight that was joined at its end tells nothing else.

    Raises:
        Refusal: it ended badly.
    """
    if pull.failure is not None:
        raise pull.failure
    ending = pull.task.result()
    assert isinstance(ending, PullCompleted)
    return ending.digest


def _is_good(pull: Pull) -> bool:
    """Whether a pull answers who comes now: it is under way, or what it found is a moment old."""
    if not pull.task.done():
        return True
    if pull.resolved is None or pull.failure is not None:
        return False
    return asyncio.get_running_loop().time() - pull.resolved_at < REMEMBERED
