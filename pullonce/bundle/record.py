"""What a bundle is made of, as its directory and the hold of its layers say it."""

import os
import stat
from pathlib import Path

import msgspec

from pullonce.bundle.errors import BundleRefused
from pullonce.bundle.rootfs import Rootfs
from pullonce.oci.mappings import Mappings
from pullonce.store.holds import Hold
from schemas.oci import ChainID, Digest

STATE, CONFIG = "pullonce.json", "config.json"
_LONGEST = 1 << 20


class Access(msgspec.Struct, frozen=True):
    """Who gets into a directory: its permissions, and the number of its group."""

    mode: int
    group: int


class Bundle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One bundle."""

    directory: str
    store: str
    """Directory of its store."""
    reference: str
    platform: str
    digest: Digest
    """What the reference named."""
    image_id: Digest
    chain_id: ChainID
    read_only: bool = False
    mappings: Mappings | None = None
    made: bool = False
    """The directory was not there before, and goes with the bundle."""
    before: Access | None = None
    """Who got into the directory that was there before, and gets into it again behind the bundle."""
    id: str = ""
    """Random; its hold goes by it. Empty for bundles of versions before, whose holds go by the directory."""


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Bundle).decode


def directory_of(text: str) -> Path:
    """The directory that is meant, by its one name.

    Raises:
        BundleRefused: somebody else decides where it lies, or its name cannot be written down.
    """
    try:
        found = os.lstat(text)
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
            raise BundleRefused(f"{text} is a link that user {found.st_uid} made; it may lead anywhere: name the directory")
    except (OSError, ValueError):
        pass  # it is not there yet, or whoever makes it says what is wrong with it
    if "\0" in text or not text:
        raise BundleRefused(f"{text!r} is no name of a directory")
    path = Path(os.path.realpath(text))
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise BundleRefused(f"{text!r} is no name in UTF-8, which config.json has to be; choose another") from None
    return path


def read(directory: Path, *, foreign: bool = False) -> Bundle | None:
    """The bundle in a directory, finished or not; None where there is none.

    Args:
        foreign: it may be another user's, to be looked at and no more: nothing may be done on such a file's word.

    Raises:
        BundleRefused: what it is made of cannot be read, or somebody else says it.
    """
    path = directory / STATE
    try:
        return decode(_content(path, foreign=foreign))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise BundleRefused(f"{path} cannot be read: {exc}; it says what the bundle is made of") from exc


def _content(path: Path, *, foreign: bool) -> bytes:
    """A file of our own in a directory of our own. Raises BundleRefused for others, OSError."""
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A pipe does not hold us up, and a link leads nowhere.
        found = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        with open(found, "rb") as file:
            for what, status in ((path.parent, os.fstat(above)), (path, os.fstat(found))):
                if status.st_uid != os.geteuid() and not foreign:
                    raise not_ours(what, status.st_uid)
            if not stat.S_ISREG(status.st_mode):
                raise BundleRefused(f"{path} is no ordinary file; expected one that says what the bundle is made of")
            return file.read(_LONGEST)
    finally:
        os.close(above)


def not_ours(path: Path, owner: int) -> BundleRefused:
    """The error of what another user could change."""
    return BundleRefused(f"{path} belongs to user {owner}, who could change the bundle; expected one of our own")


def held_as(hold: Hold) -> Bundle:
    """The bundle that a hold is for; raises BundleRefused where it does not say."""
    try:
        return decode(hold.note)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise BundleRefused(f"what the store keeps for the bundle {hold.name} cannot be read: {exc}") from exc


def bundle_at(directory: Path) -> Bundle:
    """The same, where there has to be one; raises BundleRefused."""
    found = read(directory)
    if found is None:
        raise no_bundle(directory)
    return found


def no_bundle(directory: Path) -> BundleRefused:
    """The error of a directory in which there is none."""
    return BundleRefused(f"{directory} is no bundle; `pullonce bundles` lists those of a store, --store says of which")


def state_of(bundle: Bundle) -> str:
    """How a bundle stands: `mounted`, `not mounted`, `not finished`, or `gone` from its directory."""
    place = Path(bundle.directory)
    try:
        found = read(place, foreign=True)
    except BundleRefused:
        return "unreadable"
    if found is None:
        return "not finished" if place.is_dir() else "gone"
    if found.id != bundle.id:
        return "gone"
    if not (place / CONFIG).exists():
        return "not finished"
    return "mounted" if Rootfs(place).is_mounted else "not mounted"
