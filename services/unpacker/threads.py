"""Blocking work in a thread that nobody can stop: whoever asked for it waits for its end, even when told to stop."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What some blocking work returns or raises.

    Cancelled, this waits until the work has ended and raises only then: what it works on must not be taken away under it. A
    tree that is removed while it is renamed into place would be seen in part.
    """
    running = asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError:
                continue  # told once more
        if not running.cancelled():
            running.exception()  # seen: whoever was cancelled has no use for it
        raise
