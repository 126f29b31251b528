"""containerd with our snapshots: pulls, containers, collections."""

from __future__ import annotations

import asyncio

from tests.integration.gateway.conftest import Door
from tests.support.cri import Cri


async def test_twenty_pulls_of_one_image_cost_one_and_containerd_fetches_no_layer(door: Door) -> None:
    reference, pushed = door.push(5)
    async with Cri(door.containerd.socket) as cri:
        names = await asyncio.gather(*(cri.pull(reference) for _ in range(20)))
    assert len(set(names)) == 1
    ours, theirs = door.layer_requests("pullonce"), door.layer_requests("containerd")
    assert {each: ours.get(each) for each in pushed.layers} == dict.fromkeys(pushed.layers, 1)
    assert not theirs.keys() & set(pushed.layers), "the runtime fetched a layer"
    verdict = await door.verdict()
    assert verdict.extra == 0 and verdict.failed == [], "every layer was unpacked once"
    assert all(kind == "Committed" for _, kind in door.containerd.snapshots("k8s.io").values())
