"""Blocking work in a thread that nobody can stop: whoever asked for it waits for its end, even when told to stop."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

from pullonce.unbroken import to_the_end

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What some blocking work returns or raises.

    Cancelled, this waits until the work has ended and raises only then: what it works on must not be taken away under it. A
    tree that is removed while it is renamed into place would be seen in part.
    """
    # In the caller's context, so that the thread counts for its stopwatch and logs under its trace.
    return await to_the_end(
        asyncio.get_running_loop().run_in_executor(None, copy_context().run, partial(work, *args, **kwargs))
    )
