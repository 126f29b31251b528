"""The same pull over the full client, for addresses that the thin one leaves to it: TLS, credentials, several servers."""

import asyncio
from collections.abc import Callable

import msgspec

from pullonce.client import connect
from pullonce.errors import PullTimeout
from pullonce.pulling.flights import Tidings
from pullonce.pulling.request import Ending, Wanted
from schemas import events


def full_pull(url: str, wanted: Wanted, timeout: float | None, take: Callable[[dict[str, object]], None] | None) -> Ending:
    """Wait for the ending that answers the request; `take` gets what `ProgressView.take` wants.

    Raises:
        PullTimeout, BusUnavailable, BusUnsuitable.
    """
    return asyncio.run(_pull(url, wanted, timeout, take))


async def _pull(url: str, wanted: Wanted, timeout: float | None, take: Callable[[dict[str, object]], None] | None) -> Ending:
    def tell(tidings: Tidings) -> None:
        if take:
            take(msgspec.to_builtins(tidings))

    request = events.PullRequested(
        reference=wanted.identity.reference,
        platform=wanted.identity.platform,
        store=wanted.store,
        credential=wanted.credential,
        policy=msgspec.convert(wanted.policy, events.Policy),
        unpack=wanted.unpack,
        requester=wanted.requester,
    )
    async with connect(url, name="pullonce pull") as client:
        try:
            async with asyncio.timeout(timeout):
                ending = await client.ending(request, tell if take else None)
        except TimeoutError:
            raise PullTimeout("the pull did not end in time; the work goes on only if somebody else waits for it") from None
    return Ending(msgspec.json.encode(ending))
