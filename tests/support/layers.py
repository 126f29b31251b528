"""Make layers entry by entry, images of them, and unpack those by ourselves and by umoci."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from types import TracebackType

from pullonce.bus.memory.bus import MemoryBus
from pullonce.errors import Permanent, Retryable
from pullonce.oci.digest import chain_ids
from pullonce.store.content import ContentStore
from pullonce.store.mounting import mount, unmount
from pullonce.store.snapshots import Snapshots
from schemas.events import LayerFailed, LayerUnpacked
from schemas.oci import ChainID, Descriptor, DiffID, Digest
from schemas.orders import UnpackLayer
from services.unpacker.handlers import Unpacker
from services.unpacker.service import unpacking
from services.unpacker.work.messages import WorkLimits

GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
ROOTLESS = os.geteuid() != 0


class Info(tarfile.TarInfo):
    """A header that shows what it says."""

    def __repr__(self) -> str:
        return f"<{self.type.decode()} {self.name!r} -> {self.linkname!r} {self.mode:o} {self.uid}:{self.gid} {self.mtime}>"


def entry(name: str, kind: str = "file", content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """One entry. `kind`: file, dir, symlink, hardlink, fifo, char, block; other fields as of TarInfo, or `xattrs`."""
    info = Info(name)
    kinds = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "symlink": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE}
    kinds |= {"fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE}
    info.type = kinds[kind]
    info.mode = 0o755 if kind == "dir" else 0o644
    info.mtime = 1_600_000_000
    info.size = len(content)
    xattrs = fields.pop("xattrs", {})
    assert isinstance(xattrs, dict)
    info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in xattrs.items()}
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of entries, in order."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Image:
    """Layers as they are stored, and what an image's config says of them."""

    def __init__(self, tars: Sequence[bytes], blobs: Sequence[bytes] | None = None, media_type: str = GZIP) -> None:
        self.blobs = list(blobs) if blobs is not None else [gzip.compress(each, 1, mtime=0) for each in tars]
        self.media_type = media_type
        self.set_diff_ids([digest(each) for each in tars])

    def set_diff_ids(self, diff_ids: Sequence[str]) -> None:
        """Say what the layers unpack to, right or wrong."""
        self.diff_ids = [DiffID(each) for each in diff_ids]
        self.chain = chain_ids(self.diff_ids)

    @property
    def top(self) -> ChainID:
        return self.chain[-1]

    def descriptor(self, index: int) -> Descriptor:
        blob = self.blobs[index]
        return Descriptor(media_type=self.media_type, digest=Digest(digest(blob)), size=len(blob))

    def orders(self) -> list[UnpackLayer]:
        """The orders to unpack it, bottom first."""
        return [
            UnpackLayer(
                chain_id=chain_id,
                diff_id=self.diff_ids[index],
                blob=self.descriptor(index),
                parent=self.chain[index - 1] if index else ChainID(""),
                revision=index + 1,
            )
            for index, chain_id in enumerate(self.chain)
        ]

    def store(self, content: ContentStore, *indices: int) -> None:
        """Put blobs into a content store, all by default."""
        for index in indices or range(len(self.blobs)):
            content.blob_path(self.descriptor(index).digest).write_bytes(self.blobs[index])

    def write_layout(self, place: Path) -> None:
        """The image as an OCI layout with the one reference `test`."""
        blobs = place / "blobs" / "sha256"
        blobs.mkdir(parents=True)

        def put(content: bytes, media_type: str) -> dict[str, object]:
            (blobs / digest(content)[7:]).write_bytes(content)
            return {"mediaType": media_type, "digest": digest(content), "size": len(content)}

        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": self.diff_ids}, "config": {}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [put(blob, self.media_type) for blob in self.blobs],
        }
        described = put(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
        described["annotations"] = {"org.opencontainers.image.ref.name": "test"}
        (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
        (place / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def umoci_unpack(image: Image, place: Path) -> Path | None:
    """The image's tree as umoci makes it, layer upon layer; None where it refuses."""
    image.write_layout(place / "layout")
    rootless = ["--rootless"] if ROOTLESS else []
    command = ["umoci", "unpack", *rootless, "--image", f"{place / 'layout'}:test", str(place / "bundle")]
    done = subprocess.run(command, capture_output=True, check=False)
    return place / "bundle" / "rootfs" if done.returncode == 0 else None


@contextmanager
def mounted(root: Path, image: Image, target: Path) -> Iterator[Path]:
    """The image's snapshot, mounted on a directory that this makes."""
    target.mkdir()
    mount(Snapshots(root).overlay(image.top), target)
    try:
        yield target
    finally:
        unmount(target, lazily=True)


@asynccontextmanager
async def unpacker(
    root: Path, bus: MemoryBus | None = None, *, workers: int = 2, limits: WorkLimits | None = None
) -> AsyncIterator[Unpacker]:
    """A running unpacker of the store `default` in a directory."""
    signals = (bus or MemoryBus()).signals
    async with unpacking("default", root, signals, workers=workers, limits=limits or WorkLimits()) as running:
        yield running


class UnpackerService:
    """An unpacker for tests that are no coroutines and draw many examples: to start its workers takes longer than one of these.

    Attributes:
        root: its store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()

    def __enter__(self) -> UnpackerService:
        self._running = self._runner.run(self._enter())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    def unpack(self, image: Image, seed: int = 0) -> None:
        """Unpack all layers at once, ordered in an order that the seed decides."""
        image.store(self._running.content)
        orders = image.orders()
        random.Random(seed).shuffle(orders)
        self.carry_out(orders)

    def carry_out(self, orders: Sequence[UnpackLayer]) -> None:
        """Unpack layers whose blobs are in the store, at once."""
        self._runner.run(self._carry_out(orders))

    async def _enter(self) -> Unpacker:
        return await self._stack.enter_async_context(unpacker(self.root))

    async def _carry_out(self, orders: Sequence[UnpackLayer]) -> None:
        await unpack_all(self._running, orders)


async def unpack_all(running: Unpacker, orders: Sequence[UnpackLayer]) -> list[LayerUnpacked]:
    """Carry out orders at once; the facts, in the order of the orders."""
    facts = await asyncio.gather(*(running.unpack_layer(order) for order in orders))
    found = [fact for each in facts for fact in each]
    assert all(isinstance(fact, LayerUnpacked) for fact in found)
    return [fact for fact in found if isinstance(fact, LayerUnpacked)]


async def fails(running: Unpacker, image: Image, index: int = 0) -> LayerFailed:
    """Carry out an order that must fail; the fact."""
    order = image.orders()[index]
    try:
        await running.unpack_layer(order)
    except (Permanent, Retryable) as exc:
        fact = running.give_up(order, exc)
        assert isinstance(fact, LayerFailed)
        return fact
    raise AssertionError("the layer was unpacked")
