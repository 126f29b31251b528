"""Where an archive of images is read from: a tar, out of a file or a pipe, or a directory with an image layout."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from pullonce.exchange import archive
from pullonce.exchange.read import ArchiveInvalid

_CHUNK = 1 << 20


class ArchiveSource(Protocol):
    """The files of an archive, one after another."""

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes], str]]:
        """Name, bytes, content, and the name of another file where it is a link to that."""
        ...


class TarSource:
    """A tar, read once from its beginning, compressed or not.

    Args:
        stream: where it comes from; a pipe is as good as a file.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes], str]]:
        plain = _is_plain_file(self._stream)
        with tarfile.open(fileobj=self._stream, mode="r:" if plain else "r|*", bufsize=_CHUNK) as tar:
            for member in tar:
                name = _inside(member.name)
                if member.issym() or member.islnk():
                    base = "" if member.islnk() else name.rpartition("/")[0]
                    yield name, 0, self._stream, _inside(os.path.normpath(f"{base}/{member.linkname}"))
                elif member.isreg():
                    # The library would copy each piece of a plain file several times.
                    inner = plain and not member.issparse()
                    file = _Part(self._stream.fileno(), member.offset_data) if inner else tar.extractfile(member)
                    assert file is not None  # it is a regular file
                    yield name, member.size, cast(IO[bytes], file), ""


class _Part:
    """What lies in a file from some place on."""

    def __init__(self, descriptor: int, offset: int) -> None:
        self._descriptor = descriptor
        self._offset = offset

    def read(self, size: int) -> bytes:
        piece = os.pread(self._descriptor, size, self._offset)
        self._offset += len(piece)
        return piece


def _is_plain_file(stream: IO[bytes]) -> bool:
    """Whether it is a file, not a pipe, and a tar that is not compressed."""
    try:
        descriptor = stream.fileno()
        return stat.S_ISREG(os.fstat(descriptor).st_mode) and os.pread(descriptor, 5, 257) == b"ustar"
    except OSError:
        return False


class DirectorySource:
    """An image layout in a directory. Links are not followed.

    Args:
        root: where `index.json` lies.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def __iter__(self) -> Iterator[tuple[str, int, IO[bytes], str]]:
        names = [archive.INDEX, *(f"blobs/{each}" for each in self._blobs())]
        for name in names:
            try:
                descriptor = os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError as exc:
                raise ArchiveInvalid(
                    f"{self._root / name} cannot be read: {exc.strerror}; expected an OCI image layout"
                ) from exc
            with open(descriptor, "rb") as file:
                yield name, os.fstat(descriptor).st_size, file, ""

    def _blobs(self) -> Iterator[str]:
        for algorithm in sorted((self._root / "blobs").glob("sha*")):
            yield from sorted(f"{algorithm.name}/{each.name}" for each in algorithm.iterdir() if each.is_file())


def _inside(name: str) -> str:
    return os.path.normpath(name).lstrip("/")
