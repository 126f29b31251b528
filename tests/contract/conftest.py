"""Each test of the contract runs against both implementations."""

import pytest

from tests.support.buses import MemoryPlace, NatsPlace, Place


@pytest.fixture(params=["memory", "nats"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "memory":
        return MemoryPlace()
    return NatsPlace(request.getfixturevalue("nats_url"))
