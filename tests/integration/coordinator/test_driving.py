"""A coordinator that has much to do of which, when its turn comes, nothing is to be done any more."""

from __future__ import annotations

import sys

from pullonce.pulling.identity import identify_request
from schemas.events import PullFailed, PullRequested
from services.coordinator.handlers import Coordinator
from tests.faults.test_stop import SlowBus
from tests.support.buses import eventually, running, soon

MANY = 2 * sys.getrecursionlimit()


def request(number: int) -> PullRequested:
    return PullRequested(store=f"s{number:05d}", reference="docker.io/library/redis:latest")


async def test_thousands_of_keys_that_others_have_settled_meanwhile_are_passed_over() -> None:
    """Another coordinator, or the version before, was faster; or whoever had asked has left."""
    bus = SlowBus()
    coordinator = Coordinator(bus, me="one")
    async with running(coordinator.run()):
        asked = [request(number) for number in range(MANY)]
        opened = await bus.log.append_all(asked)
        await soon(bus.slow.asked.get())
        await eventually(lambda: is_read(coordinator, opened[-1]))
        endings = [
            PullFailed(
                store=each.store, reference=each.reference, flight=identify_request(each).flight, opened=at, covers=at + 1,
                code="pull.cancelled", message="left", requests=1,
            )
            for each, at in zip(asked, opened, strict=True)
        ]  # fmt: skip
        ended = await bus.log.append_all(endings)
        await eventually(lambda: is_read(coordinator, ended[-1]))
        bus.slow.accept.set()
        await bus.log.append(request(MANY))
        wanted = f"resolve.reference.s{MANY:05d}."

        async def is_given() -> bool:
            return any(each.startswith(wanted) for each in bus.slow._orders.pending)

        await eventually(is_given)


async def is_read(coordinator: Coordinator, position: int) -> bool:
    return coordinator.board.position >= position
