"""What a store has promised to others: snapshots that containerd refers to, images that are shown to podman.

    holds/<holder>/<name>      a `Hold` in JSON, written and synced before anything is promised, removed when it is let go

Whoever promises something writes the hold first and looks whether the thing is there after that, under the store's lock.
Whoever removes something looks at the holds under that lock: so it sees the hold, or the other sees that the thing is gone. No
service needs to run for that: the disk alone says what is held.
"""

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pullonce.errors import PullonceError
from pullonce.store.disk import disk_errors, replace_file, replace_files
from pullonce.store.layout import Layout
from schemas.oci import ChainID, Digest

PODMAN = "podman"
"""Holder of the images that are shown to podman and others (`pullonce.expose`)."""

_encode = msgspec.json.Encoder().encode


class HoldUnreadable(PullonceError):
    """What a hold keeps cannot be told, so nothing may be removed that it might keep."""


class Hold(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One promise."""

    holder: str
    """Whose it is, as people call it: `containerd`."""
    name: str
    """What its holder calls it; one hold a name."""
    shown: str = ""
    """What people are told that keeps something, where the holder has several of them that they know: a bundle."""
    chain_ids: tuple[ChainID, ...] = ()
    """Snapshots that stay, with all below them."""
    blobs: tuple[Digest, ...] = ()
    """Blobs that stay."""
    reference: str = ""
    """The image it belongs to, where that is known."""
    platform: str = ""
    """Which of its platforms, where that is known."""
    note: str = ""
    """What its holder wants to find again."""
    alive: str = ""
    """It counts only while a process has the lock of this sign (`Holds.sign_of_life`); empty: until it is dropped."""


_decode = msgspec.json.Decoder(Hold).decode


class Holds:
    """The holds of one store.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._place = Layout(root).holds

    def put(self, hold: Hold, *, sync: bool = True) -> None:
        """Write a hold, in place of one of the same holder and name. When this returns it is on the disk.

        Args:
            sync: False for one that ends with its process, and so with the power.

        Raises:
            Permanent: the disk refuses.
        """
        path = self._path(hold.holder, hold.name)
        with disk_errors(path):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(path, _encode(hold), sync=sync)

    def put_all(self, holds: Sequence[Hold]) -> None:
        """Write several holds, with as few syncs as that takes. When this returns they are on the disk.

        Raises:
            Permanent: the disk refuses; some may be there, each of them whole.
        """
        with disk_errors(self._place):
            files = {self.path(hold): _encode(hold) for hold in holds}
            for directory in {path.parent for path in files}:
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_files(files)

    def has(self, holder: str, name: str) -> bool:
        """Whether there is such a hold; what it says is not looked at."""
        return self._path(holder, name).exists()

    def drop(self, holder: str, name: str) -> bool:
        """Let go; False where there was no such hold. It is not synced: one that a power cut brings back keeps too much.

        Raises:
            Permanent: the disk refuses.
        """
        path = self._path(holder, name)
        with disk_errors(path):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def all(self, holder: str = "*") -> Iterator[Hold]:
        """Every hold, or those of one holder. One whose process is gone is removed.

        Raises:
            HoldUnreadable: one cannot be read.
        """
        for path in sorted(self._place.glob(f"{holder}/*")):
            if not path.name.startswith(".") and (hold := _read(path)) is not None:  # else it is being written
                sign = self.sign_of_life(hold.holder, hold.alive) if hold.alive else None
                if sign is None or _locked(sign):
                    yield hold
                else:
                    path.unlink(missing_ok=True)
                    sign.unlink(missing_ok=True)

    def find(self, holder: str, name: str) -> Hold | None:
        """One hold; None where there is no such.

        Raises:
            HoldUnreadable: it cannot be read.
        """
        return _read(self._path(holder, name))

    def path(self, hold: Hold) -> Path:
        """Where a hold lies."""
        return self._path(hold.holder, hold.name)

    def sign_of_life(self, holder: str, name: str) -> Path:
        """The file whose exclusive lock says that a process lives; made and locked before the first hold that names it."""
        return self._place / holder / f".{name}.alive"

    def _path(self, holder: str, name: str) -> Path:
        return self._place / holder / hashlib.sha256(name.encode()).hexdigest()[:40]


def _locked(path: Path) -> bool:
    """Whether somebody has the lock of a file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read(path: Path) -> Hold | None:
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise HoldUnreadable(
            f"{path} cannot be read ({exc}), so nobody knows what {path.parent.name} was promised; "
            f"make it readable, or remove it if {path.parent.name} uses nothing of this store"
        ) from exc


def count(holds: Iterable[Hold]) -> dict[str, int]:
    """How many holds each holder has."""
    return dict(Counter(hold.holder for hold in holds))
