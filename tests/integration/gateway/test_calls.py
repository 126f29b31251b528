"""The snapshot service by its own calls, with a client that says what newer versions of containerd say, and more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from pullonce.store.content import opened
from services.gateway.protocols import snapshots_pb2 as pb
from services.gateway.snapshotter.arrivals import Resolved
from services.gateway.snapshotter.layers import Layers
from services.gateway.snapshotter.opening import Outside, snapshotting
from services.gateway.snapshotter.records import REF, Kind, Record, name_of
from tests.integration.gateway.conftest import picture
from tests.integration.gateway.test_containerd import chain_of
from tests.support.images import Image

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files of containers are root's")
_SERVICE = pb.DESCRIPTOR.services_by_name["Snapshots"]
MANIFEST = "sha256:" + "d" * 64


class Caller:
    """Calls the service as containerd does."""

    def __init__(self, socket: Path) -> None:
        self._channel = Channel(path=str(socket))

    async def call(self, name: str, /, *, lease: str = "", **fields: Any) -> Any:
        """One call; a list of answers where they are a stream."""
        asked, said = (getattr(pb, each.name, None) for each in _types(name))
        from google.protobuf.empty_pb2 import Empty

        path, metadata = f"/{_SERVICE.full_name}/{name}", {"containerd-lease": lease} if lease else {}
        method = UnaryStreamMethod if name == "List" else UnaryUnaryMethod
        return await method(self._channel, path, asked, said or Empty)(asked(**fields), metadata=metadata)  # type: ignore[arg-type]

    async def refused(self, name: str, /, **fields: Any) -> Status:
        """One call that fails; how."""
        with pytest.raises(GRPCError) as caught:
            await self.call(name, **fields)
        return caught.value.status

    async def names(self) -> set[str]:
        return {info.name for part in await self.call("List") for info in part.info}

    def close(self) -> None:
        self._channel.close()


def _types(name: str) -> tuple[Any, Any]:
    method = _SERVICE.methods_by_name[name]
    return method.input_type, method.output_type


class Bus:
    """The rest of pullonce, as a test wants it: says which layers an image has, and brings none."""

    def __init__(self) -> None:
        self.here = True
        self.asked: list[str] = []
        self.unlisted: list[str] = []
        self.resolved = Resolved()
        self.event: Any = None

    async def pull(self, reference: str, tell: Any) -> None:
        self.asked.append(reference)
        if self.event is not None:
            tell(self.event)
        await asyncio.Event().wait()

    async def unlist(self, reference: str) -> bool:
        self.unlisted.append(reference)
        return True

    def outside(self) -> Outside:
        return Outside(self.pull, self.unlist, lambda: self.here, str, self.resolved)


@asynccontextmanager
async def service(root: Path, bus: Bus) -> AsyncIterator[Caller]:
    async with snapshotting(root / "store", root / "place", root / "s.sock", bus.outside()):
        caller = Caller(root / "s.sock")
        try:
            yield caller
        finally:
            caller.close()


async def test_what_containerd_unpacks_itself_is_kept_across_a_restart(tmp_path: Path) -> None:
    bus = Bus()
    async with service(tmp_path, bus) as calls:
        (mount,) = (await calls.call("Prepare", key="1 extract", labels={"a": "b"})).mounts
        assert mount.type == "bind" and "rw" in mount.options
        (Path(mount.source) / "file").write_bytes(b"x" * 10_000)
        await calls.call("Commit", key="1 extract", name="1 layer", labels={"c": "d"})
        (mount,) = (await calls.call("Prepare", key="2 box", parent="1 layer")).mounts
        assert mount.type == "overlay" and f"lowerdir={tmp_path}/place/snapshots/1/fs" in mount.options
        (view,) = (await calls.call("View", key="3 view", parent="1 layer")).mounts
        assert view.type == "bind" and "ro" in view.options and view.source == f"{tmp_path}/place/snapshots/1/fs"
        await calls.call("Update", info={"name": "2 box", "labels": {"e": "f"}}, update_mask={"paths": ["labels.e"]})
    async with service(tmp_path, bus) as calls:
        assert await calls.names() == {"1 layer", "2 box", "3 view"}
        info = (await calls.call("Stat", key="1 layer")).info
        assert (info.kind, dict(info.labels)) == (
            pb.COMMITTED,
            {"a": "b", "c": "d"},
        ) and info.created_at.seconds > 1_700_000_000
        assert dict((await calls.call("Stat", key="2 box")).info.labels) == {"e": "f"}
        usage = await calls.call("Usage", key="1 layer")
        assert usage.size >= 10_000 and usage.inodes == 2
        assert list((await calls.call("Mounts", key="2 box")).mounts) == [mount]
        assert await calls.refused("Remove", key="1 layer") == Status.FAILED_PRECONDITION, "others stand upon it"
        assert await calls.refused("Commit", key="2 box", name="1 layer") == Status.ALREADY_EXISTS
        assert await calls.refused("Commit", key="1 layer", name="x") == Status.FAILED_PRECONDITION
        assert await calls.refused("Mounts", key="1 layer") == Status.FAILED_PRECONDITION
        assert await calls.refused("Prepare", key="2 box") == Status.ALREADY_EXISTS
        assert await calls.refused("Prepare", key="x", parent="2 box") == Status.INVALID_ARGUMENT
        assert await calls.refused("Prepare", key="x", parent="nobody") == Status.NOT_FOUND
        assert await calls.refused("Stat", key="pullonce/sha256:" + "a" * 64) == Status.NOT_FOUND
        assert await calls.refused("List", filters=["colour==red"]) == Status.INVALID_ARGUMENT
        assert await calls.refused("Update", info={"name": "2 box"}, update_mask={"paths": ["kind"]}) == Status.INVALID_ARGUMENT
        for key in ("2 box", "3 view", "1 layer"):
            await calls.call("Remove", key=key)
        await calls.call("Cleanup")
        assert await calls.names() == set() and list((tmp_path / "place" / "snapshots").iterdir()) == []
        assert list((tmp_path / "place" / "trash").iterdir()) == []


async def test_a_store_of_another_user_is_made_by_that_user(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    os.chown(tmp_path / "store", 1234, 1234)
    async with service(tmp_path, Bus()) as calls:
        assert list((tmp_path / "store").iterdir()) == [], "its fetcher could not write to what root made in it"
        await calls.call("Prepare", key="box")


async def test_directories_without_a_record_go_at_the_start_and_lost_ones_are_made_again(tmp_path: Path) -> None:
    bus = Bus()
    async with service(tmp_path, bus) as calls:
        (mount,) = (await calls.call("Prepare", key="box")).mounts
    place = tmp_path / "place" / "snapshots"
    (place / "7" / "fs" / "deep").mkdir(parents=True)
    (place / "1").rename(tmp_path / "gone")  # as a power cut may have it
    async with service(tmp_path, bus) as calls:
        await calls.call("Cleanup")
        assert [path.name for path in place.iterdir()] == []
        assert list((await calls.call("Mounts", key="box")).mounts) == [mount] and Path(mount.source).is_dir()


async def test_as_many_may_wait_as_there_are_and_others_are_answered(tmp_path: Path) -> None:
    """HTTP/2 libraries allow a connection 100 calls at a time; containerd has one connection for all it asks."""
    bus = Bus()
    pushed = picture(1, 2)
    bus.event = resolved(pushed)
    chain = chain_of(pushed)
    labels = {REF: chain[0], **named("127.0.0.1:1/a:1")}
    async with service(tmp_path, bus) as calls:
        assert await calls.refused("Prepare", key="1", labels=labels) == Status.ALREADY_EXISTS
        waits = [asyncio.create_task(calls.call("Stat", key=f"pullonce/{chain[0]}", lease="l")) for _ in range(300)]
        await asyncio.sleep(0.5)
        async with asyncio.timeout(20):
            await calls.call("Prepare", key="box")
        assert not any(each.done() for each in waits) and bus.asked == [f"127.0.0.1:1/a@{MANIFEST}"]
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def test_what_is_not_known_in_time_or_not_of_the_image_is_left_to_containerd(tmp_path: Path) -> None:
    bus, pushed = Bus(), picture(2, 2)
    chain, labels = chain_of(pushed), named("127.0.0.1:1/a:1")
    async with service(tmp_path, bus) as calls:
        await calls.call("Prepare", key="late", labels={REF: chain[0], **labels})
        bus.event = resolved(pushed)
        other = named("127.0.0.1:1/b:1")
        await calls.call("Prepare", key="strange", labels={REF: "sha256:" + "a" * 64, **other})
        await calls.call("Prepare", key="upon nothing", labels={REF: chain[1], **other})
        bus.here = False
        await calls.call("Prepare", key="away", labels={REF: chain[0], **named("127.0.0.1:1/c:1")})
        assert len(bus.asked) == 2 and "127.0.0.1:1/c" not in str(bus.asked), "nothing is asked of a bus that is away"
        assert list((tmp_path / "store" / "holds").glob("*/*")) == []


async def test_a_layer_that_the_log_knows_needs_no_labels(tmp_path: Path) -> None:
    bus, pushed = Bus(), picture(3, 2)
    bus.event = resolved(pushed)
    bus.resolved.take(bus.event)
    async with service(tmp_path, bus) as calls:
        assert await calls.refused("Prepare", key="1", labels={REF: chain_of(pushed)[0]}) == Status.ALREADY_EXISTS
        assert bus.asked == [f"127.0.0.1:1/a@{MANIFEST}"]
        listed = (await calls.call("List", filters=[f'labels."{REF}"=={chain_of(pushed)[0]},parent==""']))[0].info
        assert [(each.name, each.kind) for each in listed] == [(f"pullonce/{chain_of(pushed)[0]}", pb.COMMITTED)]
        await calls.call("Remove", key=f"pullonce/{chain_of(pushed)[0]}")
        for _ in range(100):
            if bus.unlisted:
                break
            await asyncio.sleep(0.05)
        assert bus.unlisted == [f"127.0.0.1:1/a@{MANIFEST}"]


async def test_the_layers_above_are_held_before_they_are_asked_for_and_let_go_if_they_never_are(tmp_path: Path) -> None:
    bus, pushed = Bus(), picture(4, 4)
    bus.event = resolved(pushed)
    chain, labels = chain_of(pushed), named("127.0.0.1:1/a:1")

    def held() -> set[str]:
        holds = (tmp_path / "store" / "holds" / "containerd").glob("[!.]*")
        return {msgspec.json.decode(path.read_bytes())["name"] for path in holds}

    async with service(tmp_path, bus) as calls:
        assert await calls.refused("Prepare", key="1", labels={REF: chain[0], **labels}) == Status.ALREADY_EXISTS
        assert f"pullonce/{chain[0]}" in held() and await calls.names() == {f"pullonce/{chain[0]}"}
        for _ in range(100):
            if len(held()) == 4:
                break
            await asyncio.sleep(0.05)
        assert held() == {f"pullonce/{each}" for each in chain}
        again = {"parent": f"pullonce/{chain[0]}", "labels": {REF: chain[1], "a": "b", **labels}}
        assert await calls.refused("Prepare", key="2", **again) == Status.ALREADY_EXISTS
        assert dict((await calls.call("List", filters=[f"name==pullonce/{chain[1]}"]))[0].info[0].labels)["a"] == "b"
        for path in (tmp_path / "store" / "holds" / "containerd").iterdir():
            path.unlink()  # as whoever wipes a store does
        third = {"parent": f"pullonce/{chain[1]}", "labels": {REF: chain[2], **labels}}
        assert await calls.refused("Prepare", key="3", **third) == Status.ALREADY_EXISTS
        assert f"pullonce/{chain[2]}" in held(), "it is written again where it is gone"
    async with service(tmp_path, bus) as calls:
        assert await calls.names() == {f"pullonce/{each}" for each in chain[:3]}
        assert held() == await calls.names(), "nobody asked for the fourth"


async def test_a_hold_written_ahead_that_a_crash_left_becomes_a_record(tmp_path: Path) -> None:
    content, chain = opened(tmp_path / "store"), chain_of(picture(5, 2))
    record = Record(name=name_of(chain[0]), kind=Kind.COMMITTED, created=1, updated=1, chain_id=chain[0], reference="a/b@c")
    Layers(content).hold_all([record])
    async with service(tmp_path, Bus()) as calls:
        assert await calls.names() == {record.name}, "containerd's collector finds it, and removes what it does not know"
        await calls.call("Remove", key=record.name)
        assert list((tmp_path / "store" / "holds" / "containerd").iterdir()) == []


def named(image: str) -> dict[str, str]:
    return {"containerd.io/snapshot/cri.image-ref": image, "containerd.io/snapshot/cri.manifest-digest": MANIFEST}


def resolved(pushed: Image) -> Any:
    from schemas.events import PullResolved, ResolvedLayer, Source
    from schemas.oci import Descriptor, Digest

    blob = Descriptor(media_type="m", digest=Digest(MANIFEST), size=1)
    return PullResolved(
        reference="127.0.0.1:1/a:1", flight="f" * 20, opened=1, platform="linux/amd64",
        source=Source(registry="127.0.0.1:1", repository="a"), digest=Digest(MANIFEST), manifest=blob, config=blob,
        layers=tuple(ResolvedLayer(blob=blob, chain_id=each) for each in chain_of(pushed)),
    )  # fmt: skip
