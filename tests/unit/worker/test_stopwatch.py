"""A watch counts for one step at a time, wherever the steps are named."""

import asyncio

from pullonce.worker.stopwatch import running, spent_on, timed, turn
from schemas.events import BlobFetched, Event, StoreOpened
from schemas.oci import Digest


def test_steps_come_in_the_order_in_which_they_began() -> None:
    with running("look") as watch:
        turn("transfer")
        with spent_on("token"):
            assert watch.turn("token") == "token"
        assert watch.turn("look") == "transfer"
        turn("verify")
    assert [step for step in ("look", "transfer", "token", "verify") if step in watch.seconds()] == list(watch.seconds())
    assert all(seconds > 0 for seconds in watch.seconds().values())


def test_without_a_watch_naming_a_step_does_nothing() -> None:
    turn("transfer")
    with spent_on("token"):
        pass


async def test_watches_of_concurrent_tasks_do_not_mix() -> None:
    both = asyncio.Barrier(2)

    async def work(step: str) -> dict[str, float]:
        with running("begin") as watch:
            turn(step)
            await both.wait()
            turn("end")
        return watch.seconds()

    one, other = await asyncio.gather(work("one"), work("other"))
    assert "one" in one and "other" not in one
    assert "other" in other and "one" not in other


async def test_the_last_fact_of_a_handler_says_how_long_it_took() -> None:
    class Handlers:
        @timed("look")
        async def fetch(self, order: int) -> list[Event]:
            turn("transfer")
            await asyncio.sleep(0)
            return [StoreOpened(incarnation="a"), BlobFetched(digest=Digest("d"), size=order, revision=1)]

    opened, fetched = await Handlers().fetch(5)
    assert opened == StoreOpened(incarnation="a")
    assert isinstance(fetched, BlobFetched)
    assert fetched.size == 5 and "transfer" in fetched.seconds
