"""Take things out of a store: claimed, so that no order for them is out; said to be lost; looked at once more; then moved away.

The order of these steps lets pulls and collectors run at once (`docs/adr`, "Collectors claim what they remove and look twice"):

1. claim by compare-and-set, never over a claim that is held, or ordered while that order is out: a coordinator that died leaves
   its claim as ordered when the order is long done;
2. say that it is lost: whoever sees it missing says so behind this in the log, and no board believes older news;
3. under the lock of the store look again whether anybody needs it, and rename it away if not;
4. release the claim. A coordinator that wants the key need not wait for this: it claims over it at once, and its flight has
   noted what it uses, which step 3 sees.
"""

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType

from pullonce.bus.ports import Bus
from pullonce.care.things import Thing
from pullonce.errors import WrongRevision
from pullonce.store.disk import disk_errors
from pullonce.store.layout import Layout
from pullonce.store.trees import remove_tree
from schemas import claims
from schemas.claims import Collecting, Held, Ordered, Settled
from schemas.subjects import order_of_claim

_LEASE = 30.0
"""Seconds a claim lasts."""
_WORK = 15.0
"""Seconds after claiming within which things may be moved: one who was stopped for longer moves nothing."""


class Trash:
    """A private directory below `staging/`, on the file system of the store, held by a lock; emptied and removed at the end.

    What one that was killed leaves behind, the next collector removes.
    """

    def __init__(self, root: Path) -> None:
        self._place = Layout(root).staging / f"collect-{secrets.token_hex(8)}"
        self._numbers = count(1)

    def __enter__(self) -> "Trash":
        with disk_errors(self._place):
            self._place.mkdir(mode=0o700, parents=True)
            self._lock = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with disk_errors(self._place):
            remove_tree(self._place)
        os.close(self._lock)

    def empty(self) -> None:
        """Remove what is in it."""
        for path in self._place.iterdir():
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()

    def place(self) -> Path:
        """A fresh name in it."""
        return self._place / str(next(self._numbers))


@dataclass(frozen=True, slots=True)
class Claimed:
    """Some things that were claimed together."""

    things: frozenset[Thing]
    until: float

    @property
    def good(self) -> bool:
        """Whether they may still be moved. Ask under the lock of the store."""
        return _now() < self.until


class Remover:
    """Takes things out of one store.

    Args:
        store: its name.
    """

    def __init__(self, bus: Bus, store: str) -> None:
        self._bus = bus
        self._store = store
        self._me = f"collector-{os.getpid()}-{secrets.token_hex(4)}"
        self._writes = count(1)

    @asynccontextmanager
    async def claimed(self, things: Iterable[Thing]) -> AsyncIterator[Claimed]:
        """Claim some things for the block: those of them that nobody is at."""
        until = _now() + _WORK
        wanted = list(things)
        revisions = await asyncio.gather(*(self._claim(thing.key(self._store)) for thing in wanted))
        held = {thing: revision for thing, revision in zip(wanted, revisions, strict=True) if revision}
        try:
            yield Claimed(frozenset(held), until)
        finally:
            await asyncio.gather(*(self._release(thing.key(self._store), revision) for thing, revision in held.items()))

    async def say_lost(self, things: Collection[Thing], reason: str) -> None:
        """Tell the log that things are not there any more, or will not be in a moment."""
        await self._bus.log.append_all([thing.lost(self._store, reason) for thing in things])

    async def _claim(self, key: str) -> int:
        """The revision under which a key was claimed; 0 where somebody is at it."""
        value = claims.encode(Collecting(by=self._me, nonce=f"{self._me}.{next(self._writes)}"))
        entry = None
        for _ in range(2):
            try:
                return await self._bus.claims.put(key, value, expected=entry.revision if entry else 0, ttl=_LEASE)
            except WrongRevision:
                entry = await self._bus.claims.get(key)
                if entry is not None and await self._is_taken(key, entry.revision, claims.decode(entry.value)):
                    return 0
        return 0

    async def _is_taken(self, key: str, revision: int, claim: claims.Claim | None) -> bool:
        """Whether somebody is at what a claim is about, or may begin to be.

        The claim of a coordinator is followed at once by its order. Should one lie between the two, it wants the key for a pull
        that noted its use on the disk: what that needs is not removed, whoever has the claim.
        """
        match claim:
            case Held(leased=True):
                return await self._bus.orders.is_out(order_of_claim(key, revision))
            case Ordered():
                return await self._bus.orders.is_out(order_of_claim(key, claim.revision))
        return isinstance(claim, Held | Collecting)

    async def _release(self, key: str, revision: int) -> None:
        """Let a claim go; it is gone already where somebody claimed over it."""
        try:
            await self._bus.claims.put(key, claims.encode(Settled(by=self._me, at=0)), expected=revision, ttl=1.0)
        except WrongRevision:
            pass


def _now() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
