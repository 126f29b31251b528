"""What is asked of the memory twin without waiting for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from pullonce.errors import BusError, WrongRevision


def soon(work: Coroutine[Any, Any, int], done: Callable[[int | None], None]) -> None:
    """Do it now, as all that the twin does is done without waiting, and tell of it in the next turn of the event loop."""
    loop = asyncio.get_running_loop()
    try:
        work.send(None)
    except StopIteration as end:
        loop.call_soon(done, end.value)
    except (BusError, WrongRevision):
        loop.call_soon(done, None)
    else:
        raise AssertionError("the twin waits for nothing")
