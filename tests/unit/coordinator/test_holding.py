"""The leases of one coordinator beside a bus that is slow."""

from __future__ import annotations

import asyncio
from typing import Any

from pullonce.bus.memory.bus import MemoryBus
from services.coordinator.holding import Holding
from services.coordinator.leases import EVERY

LEASE = 0.2


class Slow:
    """Claims of which one write takes longer than a lease lasts."""

    def __init__(self, claims: Any) -> None:
        self._claims = claims
        self.slow = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claims, name)

    async def put(self, key: str, value: bytes, *, expected: int) -> int:
        revision: int = await self._claims.put(key, value, expected=expected)
        if self.slow:
            self.slow = False
            await asyncio.sleep(LEASE * 1.5)
        return revision


async def test_a_lease_that_lapses_while_it_is_written_is_gained_anew() -> None:
    """What was folded meanwhile was left to others: it must be looked at again."""
    gained: list[frozenset[int]] = []
    claims = Slow(MemoryBus().claims)
    holding = Holding(claims, "me", LEASE, changed=gained.append, busy=frozenset)  # type: ignore[arg-type]
    await holding.beat()
    assert holding.owned == EVERY and gained == [EVERY]
    claims.slow = True
    await holding.beat()
    await holding.beat()
    assert holding.owned == EVERY
    assert gained[1:] and set(gained) == {EVERY}
