"""Make tar-split of an unpacked layer by the process that does it, and read it as those do who push an image."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from fastcrc import crc64

from pullonce.store.snapshots import Snapshots
from pullonce.store.splits import SplitDone, SplitFailed, SplitJob, SplitProgress, SplitSaid
from schemas.oci import ChainID
from tests.support.layers import Image


class Splitter:
    """One process."""

    def __enter__(self) -> Splitter:
        command = [sys.executable, "-m", "services.unpacker.split_layers"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        assert self._process.wait(10) == 0
        self._process.stdout.close()

    def ask(self, job: SplitJob) -> SplitDone | SplitFailed:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            said: Any = msgspec.json.decode(line, type=SplitSaid)
            if not isinstance(said, SplitProgress):
                return said  # type: ignore[no-any-return]
        raise AssertionError("the process ended")


def job(root: Path, image: Image, index: int, target: Path) -> SplitJob:
    """What asks for that of one layer of an image that is unpacked in a store."""
    snapshots = Snapshots(root)
    return SplitJob(
        blob=str(snapshots.layout.blob(image.descriptor(index).digest)), media_type=image.media_type,
        diff_id=image.diff_ids[index], tree=str(snapshots.path(ChainID(image.chain[index]))), target=str(target),
    )  # fmt: skip


def lines(target: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in zlib.decompress(target.read_bytes(), 31).splitlines()]


def assembled(target: Path, tree: Path) -> bytes:
    """The tar, as vbatts/tar-split assembles it: no name twice, every file opened by its path and summed."""
    return b"".join(_pieces(lines(target), tree))


def _pieces(found: list[dict[str, Any]], tree: Path) -> Iterator[bytes]:
    seen = set()
    for number, line in enumerate(found):
        assert line["position"] == number
        payload = base64.b64decode(line["payload"])
        if line["type"] == 2:
            yield payload
            continue
        name = base64.b64decode(line["name_raw"]) if "name_raw" in line else line["name"].encode()
        assert os.path.normpath(name) not in seen, "a name comes twice, which its readers refuse"
        seen.add(os.path.normpath(name))
        content = (tree / os.fsdecode(name)).read_bytes()
        assert len(content) == line["size"] > 0
        assert crc64.go_iso(content).to_bytes(8, "big") == payload
        yield content
