"""What a worker reports as failed → the typed failures of the bus."""

import errno
from pathlib import Path

from pullonce.errors import Permanent, Retryable
from pullonce.store.disk import disk_errors, no_inodes
from schemas.orders import UnpackLayer
from services.unpacker.work.messages import Failed

_TOO_LONG = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EMLINK)
"""What the file system says to names that no layer should have."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def is_of_the_disk(failed: Failed) -> bool:
    """Whether a job failed for a reason that no other bytes would change."""
    return failed.errno in _DISK


def failure(failed: Failed, order: UnpackLayer, place: Path) -> Permanent | Retryable:
    """The error that says whom a failed job concerns: the layer's source, or, where the disk is at fault, all who wait."""
    if failed.entries:
        return no_inodes(place, f"layer {order.blob.digest} has at least {failed.entries} entries")
    if failed.code:
        return Permanent(f"layer {order.blob.digest}: {failed.message}", code=failed.code)
    return disk(OSError(failed.errno, failed.message), order, place)


def disk(error: OSError, order: UnpackLayer, place: Path) -> Permanent | Retryable:
    """The same for what the operating system says."""
    what = f"layer {order.blob.digest}: {error.strerror}"
    if error.errno in _TOO_LONG:
        return Permanent(what, code="layer.invalid")
    if error.errno == errno.EFBIG:
        told = "the file system of the store holds no file of that size"
        return Permanent(f"{what}: {told}", code="layer.too-large")
    try:
        with disk_errors(place, order.blob.size):
            raise error
    except Permanent as exc:
        return exc
    except OSError:
        return Retryable(what, code="unpack.failed", concerns="key")


def nobody(message: str, code: str) -> Permanent:
    """An attempt that came to nothing through no fault of its own: the key is free again."""
    return Permanent(message, code=code, concerns="nobody")
