"""The contract of the bus about traces: what is stored while one is carried, is received with it."""

import asyncio

import pytest

from pullonce.bus.ports import Delivery
from pullonce.trace import carried, of_environment, valid
from schemas.events import StoreOpened
from tests.contract.test_orders import KIND, STORE
from tests.support.buses import Place, Reader, fetch, running, soon

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_events_and_orders_carry_the_trace_that_is_worked_for(place: Place) -> None:
    taken: asyncio.Queue[Delivery] = asyncio.Queue()

    async def deliver(delivery: Delivery) -> None:
        taken.put_nowait(delivery)
        await delivery.ack()

    async with place.connect() as bus, Reader(bus) as reader, running(bus.orders.receive(KIND, STORE, deliver, limit=1)):
        await bus.log.append(StoreOpened(incarnation="without"))
        with carried(TRACE):
            await bus.log.append_all([StoreOpened(incarnation="with"), StoreOpened(incarnation="too")])
            await bus.orders.send(fetch(1))
        await bus.orders.send(fetch(2))
        await reader.until(lambda read: len(read.sequences) >= 3)
        assert [each.trace for each in reader.read] == ["", TRACE, TRACE]
        assert [(await soon(taken.get())).trace for _ in range(2)] == [TRACE, ""]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (TRACE, True), ("01" + TRACE[2:], True), (TRACE.upper(), False), ("ff" + TRACE[2:], False), (TRACE + "-more", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False), (f"00-{'a' * 32}-{'0' * 16}-01", False), ("", False),
        (TRACE + "\r\nNats-Msg-Id: x", False), (TRACE + "\n", False),
    ],
)  # fmt: skip
def test_only_what_is_a_traceparent_is_carried(text: str, kept: bool) -> None:
    assert valid(text) == of_environment({"TRACEPARENT": text}) == (text if kept else "")
