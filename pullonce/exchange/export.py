"""Write images of a store as one tar: `pullonce export`. Nothing is asked of any service."""

from __future__ import annotations

import errno
import os
import secrets
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pullonce.errors import Permanent, PullonceError
from pullonce.exchange import archive
from pullonce.exchange.archive import Exported
from pullonce.oci import go_json
from pullonce.store.content import ContentStore
from pullonce.store.images import ImageRecord
from pullonce.store.open_files import TOO_MANY_FILES
from schemas.oci import Descriptor, Manifest

_LONGEST_DOCUMENT = 16 << 20
_CHUNK = 1 << 20
_BLOCK = 512
_MODE = 0o600
"""Of an archive that is made, as `docker save` has it: the images may be private."""


class ExportFailed(PullonceError):
    """The store lacks what an image needs, or the archive cannot be written."""


def export(content: ContentStore, images: Sequence[ImageRecord], out: int, tell: Callable[[int, int], None]) -> int:
    """Write an archive of images to a descriptor.

    What the archive needs is opened first, under the lock of the store: what is collected meanwhile stays readable.

    Args:
        tell: called with the bytes of blobs written and all there are.

    Returns:
        Bytes written.

    Raises:
        ExportFailed: a blob is not there, or is damaged in its size.
        OSError: the archive cannot be written.
    """
    with ExitStack() as opened:
        with content.images.hold():
            exported = [_read(content, image) for image in images]
            needed = archive.blobs(exported)
            files = [_open(content, blob, opened) for blob in needed]
        written = 0
        for name, document in archive.documents(exported):
            written += _write_all(out, _header(name, len(document)) + document + _padding(len(document)))
        done, whole = 0, sum(blob.size for blob in needed)
        for blob, file in zip(needed, files, strict=True):
            written += _write_all(out, _header(archive.blob_name(blob.digest), blob.size))
            for count in _copy(file, out, blob.size):
                done += count
                tell(done, whole)
            written += blob.size + _write_all(out, _padding(blob.size))
        return written + _write_all(out, bytes(2 * _BLOCK))


def _read(content: ContentStore, image: ImageRecord) -> Exported:
    """An image with its manifest, in OCI's types where the registry's are docker's."""
    manifest = image.listed or image.manifest
    try:
        document = go_json.decode(content.read(manifest.digest, _LONGEST_DOCUMENT), Manifest)
    except (Permanent, go_json.NoDocument) as exc:
        raise ExportFailed(
            f"the manifest of {image.reference} cannot be read: {exc}; `pullonce verify --repair` mends it"
        ) from exc
    return Exported(image.reference, image.platform, manifest, document)


def _open(content: ContentStore, blob: Descriptor, opened: ExitStack) -> int:
    path = content.blob_path(blob.digest)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ExportFailed(f"{blob.digest} is not in the store; `pullonce verify --repair` fetches it") from None
    except OSError as exc:
        if exc.errno == errno.EMFILE:
            raise ExportFailed(
                f"{TOO_MANY_FILES} for the blobs of this archive: raise it, or export fewer images at once"
            ) from exc
        raise
    opened.callback(os.close, file)
    if (size := os.fstat(file).st_size) != blob.size:
        raise ExportFailed(f"{path} has {size} bytes instead of {blob.size}; `pullonce verify --repair` fetches it again")
    return file


def _header(name: str, size: int) -> bytes:
    """A tar header that is the same for the same content, whoever writes it and when."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _copy(file: int, out: int, size: int) -> Iterable[int]:
    """Copy a blob inside the kernel where that can be done; yields the bytes of each step."""
    offset, send = 0, True
    while offset < size:
        if send:
            try:
                count = os.sendfile(out, file, offset, min(_CHUNK * 8, size - offset))
            except OSError:  # a descriptor that takes no pages of another file, such as one opened to append
                send = False
                continue
        else:
            count = _write_all(out, os.pread(file, _CHUNK, offset))
        if not count:
            raise ExportFailed("a blob became shorter while it was read; `pullonce verify --repair` fetches it again")
        offset += count
        yield count


def _write_all(out: int, content: bytes) -> int:
    view = memoryview(content)
    while view:
        view = view[os.write(out, view) :]
    return len(content)


@contextmanager
def appearing(path: Path) -> Iterator[int]:
    """A descriptor to write a file that has its name only once the block has ended well; then it replaces what was there.

    Until then it has no name at all, so that nothing is left of a process that is killed. Where the file system makes no such
    files, its name begins with a dot and ends in `.unfinished`. What is no file, a terminal or a pipe say, is written as it is.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        return
    # Nobody else can have made a file of this name, nor made it a link that is followed.
    draft, ours = path.with_name(f".{path.name}.{secrets.token_hex(8)}.unfinished"), False
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, _MODE)
    except OSError as exc:
        if exc.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
        ours = True
    try:
        yield descriptor
        if not ours:
            # Python follows the link in /proc only where a directory is given as well, though this path needs none.
            os.link(f"/proc/self/fd/{descriptor}", draft, src_dir_fd=descriptor, follow_symlinks=True)
            ours = True
        draft.replace(path)
        ours = False
    finally:
        os.close(descriptor)
        if ours:
            draft.unlink(missing_ok=True)
