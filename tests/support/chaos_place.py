"""A crew whose store lies on a disk of a test's own, and what one asks of it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from pullonce.client import connect
from pullonce.errors import PullFailed
from schemas.events import PullCompleted
from tests.support.chaos import Crew
from tests.support.images import Image, image, layer, tar_of
from tests.support.registry import RegistryServer

LIMIT = 60
MB = 1_000_000


@dataclass
class Place:
    """Services, a registry, and the disk of the store."""

    crew: Crew
    registry: RegistryServer
    disk: Path

    async def pull(self, reference: str) -> PullCompleted:
        async with connect(self.crew.url, patience=LIMIT, supervised=True) as client:
            return await client.pull(reference, timeout=LIMIT)

    async def fails(self, reference: str) -> PullFailed:
        with pytest.raises(PullFailed) as failed:
            await self.pull(reference)
        return failed.value


def noise(name: str, *megabytes: float) -> Image:
    """An image of layers that cannot be compressed."""
    dice = random.Random(name)
    return image(layer(tar_of({f"{name}-{n}": dice.randbytes(int(size * MB))})) for n, size in enumerate(megabytes))
