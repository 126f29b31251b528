"""What was begun and has to come to its end, also for somebody who is told to stop meanwhile."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """What `work` returns or raises.

    Cancelled, however often, this waits until the work has ended and raises only then. Tasks are told twice where one gives up
    for another (`asyncio.gather` does that), and the second time would break off what the first had begun to put in order.
    """
    running = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                continue
        if not running.cancelled():
            running.exception()  # seen: whoever was cancelled has no use for it
        raise
