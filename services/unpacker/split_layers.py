"""`python -m services.unpacker.split_layers`: make tar-split of layers that were unpacked (`tar/split.py`).

Reads a `SplitJob` a line, in JSON, and answers each by `SplitProgress` lines and one that says how it ended. The layer is read
from its blob once more, by the code that unpacked it; nothing but the target is written.
"""

import hashlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from isal import isal_zlib

from pullonce.store.splits import SplitDone, SplitFailed, SplitJob, SplitProgress
from services.unpacker.tar.compression import chunks, compression_of
from services.unpacker.tar.invalid import LayerError
from services.unpacker.tar.split import TreeFile, split
from services.unpacker.tar.stream import BLOCK
from services.unpacker.tree.opened import Opened
from services.unpacker.work.ahead import Ahead

_WINDOW = 1 << 31
"""What was unpacked once may be read again, however the limits were set then."""
_OFTEN = 0.1
"""Seconds between two lines of progress."""
_ALONE = 1 << 20
"""Bytes of a blob up to which threads cost more than they bring."""
_GZIP = 31
"""Window bits by which zlib writes gzip."""

Tell = Callable[[SplitProgress], None]


class WrongDiffID(Exception):
    """The blob is not that of the layer."""


def make(job: SplitJob, tell: Tell) -> SplitDone:
    """Make the file of one layer.

    Raises:
        WrongDiffID, LayerError: the blob is damaged.
        OSError: a file cannot be read or written.
    """
    tree, digest = Path(job.tree), hashlib.new(job.diff_id.partition(":")[0])
    threads: list[Ahead] = []
    with open(job.blob, "rb") as blob, open(job.target, "xb") as target, Opened(shared=tree.parent) as opened:
        source = _Source(blob.read, tell)
        tar = chunks(source, job.media_type, window=_WINDOW)
        if os.fstat(blob.fileno()).st_size > _ALONE:
            threads.append(Ahead(tar))
            tar = iter(threads[0])
        counted = _Counted(tar, digest)
        if threads:
            threads.append(Ahead(iter(counted)))
        try:
            packer = isal_zlib.compressobj(level=1, wbits=_GZIP)
            files = _Files(tree, opened)
            owners = split(
                iter(threads[-1]) if threads else iter(counted), files.open, lambda line: target.write(packer.compress(line))
            )
            target.write(packer.flush())
        finally:
            for thread in threads:
                thread.stop()
            for thread in threads:
                thread.join()
        target.flush()
        os.fsync(target.fileno())
    if (found := f"{digest.name}:{digest.hexdigest()}") != job.diff_id:
        raise WrongDiffID(f"its blob unpacks to {found} instead of {job.diff_id}; `pullonce verify --repair` mends it")
    source.end()
    return SplitDone(
        size=counted.size, compression=compression_of(source.head), uids=sorted(owners.uids), gids=sorted(owners.gids)
    )


class _Source:
    """The blob, with its first bytes kept, and told of while it is read."""

    def __init__(self, read: Callable[[int], bytes], tell: Tell) -> None:
        self._read = read
        self._tell = tell
        self._untold = 0
        self._told = time.monotonic()
        self.head = b""

    def read(self, size: int, /) -> bytes:
        data = self._read(size)
        if len(self.head) < BLOCK:
            self.head += data
        self._untold += len(data)
        if time.monotonic() - self._told >= _OFTEN:
            self.end()
        return data

    def end(self) -> None:
        """Tell of what was not told yet."""
        self._tell(SplitProgress(read=self._untold))
        self._untold, self._told = 0, time.monotonic()


class _Counted:
    """A tar that is counted and hashed while it passes."""

    def __init__(self, tar: Iterator[bytes], digest: "hashlib._Hash") -> None:
        self._tar = tar
        self._digest = digest
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._tar:
            self._digest.update(chunk)
            self.size += len(chunk)
            yield chunk


class _Files:
    """Opens files of one tree, and nothing that a link leads to."""

    def __init__(self, tree: Path, opened: Opened) -> None:
        self._tree = tree
        self._opened = opened

    def open(self, name: bytes, size: int) -> TreeFile | None:
        with suppress(OSError):
            found = self._opened.status(self._tree, name)
            if stat.S_ISREG(found.st_mode) and found.st_size == size:
                return _File(self._opened.read(self._tree, name))
        return None


class _File:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def close(self) -> None:
        os.close(self._descriptor)


def main() -> None:
    """Answer for every job on standard input."""

    def say(what: SplitProgress | SplitDone | SplitFailed) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
        sys.stdout.buffer.flush()

    for line in sys.stdin.buffer:
        job = msgspec.json.decode(line, type=SplitJob)
        try:
            say(make(job, say))
        except (LayerError, WrongDiffID, OSError) as exc:
            Path(job.target).unlink(missing_ok=True)  # on a disk that is full it would take the room of others
            say(SplitFailed(why=str(exc)))


if __name__ == "__main__":
    main()
