"""Layers that are on their way: one pull an image, who waits for it, and what the log says of images that others pull.

A pull begins in Prepare, which waits a moment until it is known that the layer belongs to the image. Whoever needs the layer
itself waits in Stat, for as long as it takes. When the last who waits has left, the request is withdrawn.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from pullonce.errors import PullFailed, PullonceError
from schemas.events import LayerUnpacked, PullResolved
from schemas.oci import ChainID
from services.gateway.snapshotter.labels import by_digest

log = logging.getLogger(__name__)

Tell = Callable[[object], None]
Pull = Callable[[str, Tell], Awaitable[object]]
"""Pulls an image, unpacked, unless it is present; tells of the facts on the way; raises PullonceError."""

KNOWN_WITHIN = 3.0
"""Seconds that a Prepare may take to learn whether a layer belongs to an image: containerd holds a lock meanwhile."""
LINGER = 30.0
"""Seconds a pull goes on for which nobody waits: between two layers of an image its puller waits for none."""
LEFT = 1.0
"""The same, once somebody who waited has left before the end."""
_IMAGES = 2000
"""Images that the log told of and that are remembered."""


class LayerMissing(PullonceError):
    """A layer did not come; the message says why."""


class Withdrawn(LayerMissing):
    """Whoever wanted a layer left before it came."""


class Resolved:
    """Images that others pull, by their layers: what a Prepare without labels is looked up in."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, tuple[ChainID, ...]] = OrderedDict()
        self._of: dict[ChainID, str] = {}

    def take(self, event: PullResolved) -> None:
        """Remember an image; the oldest is forgotten."""
        reference = by_digest(event.reference, event.manifest.digest)
        chain_ids = tuple(layer.chain_id for layer in event.layers if layer.chain_id)
        self._images[reference] = chain_ids
        self._images.move_to_end(reference)
        self._of.update(dict.fromkeys(chain_ids, reference))
        while len(self._images) > _IMAGES:
            forgotten, layers = self._images.popitem(last=False)
            for chain_id in layers:
                if self._of.get(chain_id) == forgotten:
                    del self._of[chain_id]

    def image_of(self, chain_id: ChainID) -> str:
        """The image a layer belongs to, by digest; empty where the log has not told."""
        return self._of.get(chain_id, "")

    def layers(self, reference: str) -> Mapping[ChainID, ChainID]:
        """The layers of an image by digest, each with the one below it; none where the log has not told."""
        return layers_below(self._images.get(reference, ()))

    def below(self, chain_id: ChainID) -> ChainID | None:
        """The layer below one: empty for the lowest, None where the log has not told."""
        layers = self._images.get(self.image_of(chain_id), ())
        return layers_below(layers).get(chain_id)


@dataclass(slots=True)
class _Arrival:
    """One pull that is under way."""

    task: asyncio.Task[object]
    below: Mapping[ChainID, ChainID] | None = None
    """Layer → the one below it, once the image is resolved."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    pullers: int = 0
    """Who waits for a layer under a lease of containerd's, as pulls do."""
    others: int = 0
    """Who waits without one: the CRI's statistics, which look at everything and never give up; or a pull of an older client."""
    pulled: bool = False
    """A puller waited, so the others are no reason to go on."""
    leave: asyncio.TimerHandle | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody waits on whose behalf it is carried on."""
        return self.pullers > 0 or (self.others > 0 and not self.pulled)

    def tell(self) -> None:
        """Let all who wait look again; each round has an event of its own."""
        self.news.set()
        self.news = asyncio.Event()


class Arrivals:
    """The pulls of one store that containerd waits for.

    Args:
        pull: pulls one image.
        has: whether a layer is there.
    """

    def __init__(self, pull: Pull, has: Callable[[ChainID], bool]) -> None:
        self._pull = pull
        self._has = has
        self._arrivals: dict[str, _Arrival] = {}
        self._withdrawn: set[str] = set()
        """Images that whoever pulled them has given up."""

    async def layers(self, reference: str, *, within: float = KNOWN_WITHIN) -> Mapping[ChainID, ChainID] | None:
        """Have an image pulled, and say which layers it has, each with the one below it.

        None where that is not known within some seconds, or will never be.
        """
        self._withdrawn.discard(reference)
        arrival = self._begin(reference)
        try:
            async with asyncio.timeout(within):
                while arrival.below is None and not arrival.task.done():
                    await arrival.news.wait()
        except TimeoutError:
            log.info("an image is not resolved in time: containerd pulls by itself", extra={"reference": reference})
        if arrival.task.done() and not arrival.task.cancelled() and (failure := arrival.task.exception()):
            log.info(
                "an image cannot be pulled: containerd tries by itself", extra={"reference": reference, "why": str(failure)}
            )
            return None
        self._keep(reference, arrival, LINGER)
        return arrival.below

    async def wait(self, reference: str, chain_id: ChainID, *, puller: bool = True) -> None:
        """Have an image pulled until one layer of it is there.

        Args:
            puller: whether it is waited for under a lease, as pulls do; others do not begin again what a puller gave up.

        Raises:
            LayerMissing: the pull failed, ended without it, or was withdrawn (`Withdrawn`).
        """
        if puller:
            self._withdrawn.discard(reference)
        elif reference in self._withdrawn:
            raise Withdrawn(f"the pull of {reference} was withdrawn; pull it again")
        arrival = self._begin(reference)
        arrival.pulled |= puller
        arrival.pullers, arrival.others = arrival.pullers + puller, arrival.others + (not puller)
        linger = LEFT
        try:
            while not self._has(chain_id):
                if arrival.task.done():
                    raise _missing(reference, chain_id, arrival.task)
                await arrival.news.wait()
            linger = LINGER
        finally:
            arrival.pullers, arrival.others = arrival.pullers - puller, arrival.others - (not puller)
            self._keep(reference, arrival, linger)

    async def close(self) -> None:
        """Withdraw every request."""
        tasks = [arrival.task for arrival in self._arrivals.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, reference: str) -> _Arrival:
        """The pull of an image that is under way, or a new one."""
        arrival = self._arrivals.get(reference)
        if arrival is not None and not arrival.task.done():
            return arrival

        def tell(fact: object) -> None:
            if isinstance(fact, PullResolved):
                made.below = layers_below(tuple(layer.chain_id for layer in fact.layers if layer.chain_id))
            if isinstance(fact, PullResolved | LayerUnpacked):
                made.tell()

        async def pull() -> object:
            return await self._pull(reference, tell)

        made = _Arrival(asyncio.create_task(pull(), name=f"pull {reference}"))
        self._arrivals[reference] = made
        made.task.add_done_callback(lambda _: self._end(reference, made))
        return made

    def _end(self, reference: str, arrival: _Arrival) -> None:
        arrival.tell()
        if not arrival.task.cancelled():
            arrival.task.exception()  # whoever waits for it says so
        if arrival.leave is not None:
            arrival.leave.cancel()
        if self._arrivals.get(reference) is arrival:
            del self._arrivals[reference]

    def _keep(self, reference: str, arrival: _Arrival, seconds: float) -> None:
        """Withdraw a pull after some seconds, unless somebody waits for it then."""
        if arrival.leave is not None:
            arrival.leave.cancel()
            arrival.leave = None
        if arrival.wanted or arrival.task.done():
            return
        arrival.leave = asyncio.get_running_loop().call_later(seconds, self._withdraw, reference, arrival)

    def _withdraw(self, reference: str, arrival: _Arrival) -> None:
        if not arrival.wanted:
            log.info("nobody waits for an image any more", extra={"reference": reference})
            self._withdrawn.add(reference)
            arrival.task.cancel()


def layers_below(chain_ids: tuple[ChainID, ...]) -> dict[ChainID, ChainID]:
    """Each layer of an image with the one below it; they are given bottom first."""
    return dict(zip(chain_ids, (ChainID(""), *chain_ids), strict=False))


def _missing(reference: str, chain_id: ChainID, task: asyncio.Task[object]) -> LayerMissing:
    if task.cancelled():
        return Withdrawn(f"the pull of {reference} was withdrawn; pull it again")
    failure = task.exception()
    if isinstance(failure, PullFailed):
        return LayerMissing(f"{reference} cannot be pulled: {failure} ({failure.code})")
    if failure is not None:
        return LayerMissing(f"{reference} cannot be pulled: {failure}")
    return LayerMissing(f"{reference} was pulled, and {chain_id} is none of its layers")
