"""The same pull over the asyncio client, for a bus that is reached by a WebSocket: the light connection speaks none."""

import asyncio
import signal
from collections.abc import Callable

import msgspec

from pullonce.client import connect
from pullonce.pulling.listening import PullUpdate
from pullonce.pulling.request import Ending, Wanted
from schemas import events

Take = Callable[[dict[str, object]], None]


def full_pull(url: str, wanted: Wanted, timeout: float | None, take: Take | None, say: Callable[[str], None]) -> Ending:
    """Wait for the ending that answers the request; `take` gets what the bars take, `say` lines for people.

    Raises:
        PullTimeout, ServicesMissing, BusUnavailable, BusUnsuitable.
        SystemExit: SIGINT or SIGTERM came; the request is withdrawn.
    """
    return asyncio.run(_until_stopped(url, wanted, timeout, take, say))


async def _until_stopped(
    url: str, wanted: Wanted, timeout: float | None, take: Take | None, say: Callable[[str], None]
) -> Ending:
    told: list[int] = []
    pull = asyncio.ensure_future(_pull(url, wanted, timeout, take, say))

    def stop(number: int) -> None:
        told.append(number)
        pull.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        return await pull
    except asyncio.CancelledError:
        raise SystemExit(128 + told[0] if told else 1) from None


async def _pull(url: str, wanted: Wanted, timeout: float | None, take: Take | None, say: Callable[[str], None]) -> Ending:
    def tell(update: PullUpdate) -> None:
        if take:
            take(msgspec.to_builtins(update))

    asked = {"reference": wanted.identity.reference, **wanted.fields, "requester": wanted.requester, "door": wanted.door}
    request = msgspec.convert(asked, events.PullRequested)
    async with connect(url, name="pullonce pull", say=say) as client:
        ending = await client.ending(request, tell if take else None, timeout=timeout)
    return Ending(msgspec.json.encode(ending))
