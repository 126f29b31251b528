"""A collector in the small world: what `pullonce rm` and `pullonce gc` do, against the same disk, claims and log."""

from __future__ import annotations

from collections.abc import Iterator

from schemas.subjects import order_of_claim
from services.coordinator import claim
from services.coordinator.pursuit import Put
from tests.property.world import Coordinator, World


class Collector:
    """Takes images off the list and removes what nobody needs, one step at a time, and may stop for ever between any two."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.writes = 0
        self._work: Iterator[None] | None = None

    def step(self, crew: list[Coordinator]) -> None:
        """Go on with what is begun, or begin."""
        if self._work is None or self.world.random.random() < self.world.faults.coordinator_dies:
            self._work = self._collect(crew)
        if next(self._work, self) is self:
            self._work = None

    def _collect(self, crew: list[Coordinator]) -> Iterator[None]:
        world = self.world
        asked = world.random.choice([c for c in crew if c.live] or crew)
        if not asked.live:
            return
        position = asked.board.position
        air = {(flight.name, flight.opened) for flight in asked.board.flights.values()}
        yield
        self._take_off(position, air)
        yield
        doomed = self._unreachable(position, air)
        for name, key in world.random.sample(sorted(doomed.items()), min(3, len(doomed))):
            yield
            revision = self._claim(key)
            if not revision:
                continue
            yield
            world.append(world.lost(name))
            yield
            if name in self._unreachable(position, air) or not world.protocol.look_again:
                world.remove(name)
            yield
            world.put(Put(key, claim.Settled(by=self.name, at=0), revision, 1.0))

    def _take_off(self, position: int, air: set[tuple[str, int]]) -> None:
        """What a user removes; refused for an image that is being pulled."""
        in_use = self._in_use(position, air)
        free = sorted(reference for reference in self.world.records if reference not in in_use)
        if free:
            self.world.records.discard(self.world.random.choice(free))

    def _in_use(self, position: int, air: set[tuple[str, int]]) -> set[str]:
        """References that a flight in flight resolved, as the disk and one coordinator say."""
        if not self.world.protocol.uses:
            return set()
        uses = self.world.uses.items()
        return {reference for name, (opened, reference) in uses if opened > position or (name, opened) in air}

    def _unreachable(self, position: int, air: set[tuple[str, int]]) -> dict[str, str]:
        """What is on the disk for no image that is listed or in use."""
        world = self.world
        roots = world.records | self._in_use(position, air)
        known = {name: key for image in world.images for name, key in image.needs.items()}
        needed = {name for reference in roots for name in world.image(reference).needs}
        needed |= world.holds if world.protocol.holds else set()
        return {name: key for name, key in known.items() if name in world.disk and name not in needed}

    def _claim(self, key: str) -> int:
        """Claim a key that no order is out for; 0 where somebody is at it."""
        world = self.world
        found = world.get(key)
        present, at = found if isinstance(found, tuple) else (None, 0)
        if isinstance(present, claim.Held):
            if order_of_claim(key, at) in world.orders:
                return 0
            world.taken_over += 1
        self.writes += 1
        value = claim.Collecting(by=self.name, nonce=f"{self.name}.{self.writes}")
        return world.put(Put(key, value, at, 10.0)) or 0
