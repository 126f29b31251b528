"""Somebody in the small world to whom layers are promised, as containerd is: holds them, hears what is there, lets go."""

from __future__ import annotations

from collections.abc import Iterator

from tests.property.collector import Collector
from tests.property.world import Coordinator, World


class Outsider:
    """Takes holds and lets them go, one step at a time, beside a collector; may stop for ever between any two."""

    def __init__(self, world: World, collector: Collector) -> None:
        self.world = world
        self.collector = collector
        self._works: list[Iterator[None]] = []

    def step(self, crew: list[Coordinator]) -> None:
        """Go on with something that is begun, or begin; or let the collector do so."""
        if self.world.random.random() < 0.5:
            self.collector.step(crew)
            return
        if len(self._works) < 3:
            self._works.append(self._use())
        work = self.world.random.choice(self._works)
        if next(work, self) is self:
            self._works.remove(work)

    def _use(self) -> Iterator[None]:
        world = self.world
        layers = sorted({image.chain(n) for image in world.images for n in range(len(image.layers))})
        name = world.random.choice(layers)
        if name in world.holds:
            return
        if world.protocol.hold_first:
            world.holds.add(name)
            yield
        there = name in world.disk
        if not world.protocol.hold_first:
            yield
            world.holds.add(name)
        if there:
            world.promised.add(name)  # from here on a container may be made of it
            if name not in world.disk:
                world.broken.append(name)  # it went between the look and the promise
            world.kept += 1
        for _ in range(world.random.randrange(40)):
            yield
        world.promised.discard(name)
        yield
        world.holds.discard(name)
