"""The image of a bundle: found in the store, or pulled."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from pullonce.bundle.errors import BundleRefused, ConfigInvalid
from pullonce.bundle.record import Bundle
from pullonce.cli import pull
from pullonce.cli.store import ImageMissing
from pullonce.config import store_root
from pullonce.errors import Permanent
from pullonce.oci import reference
from pullonce.oci.platform import normalise, serves, spell
from pullonce.store.content import ContentStore, opened
from pullonce.store.images import ImageRecord, Images
from pullonce.store.layout import Layout

_LONGEST_CONFIG = 16 << 20


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image that is there, unpacked."""

    content: ContentStore
    record: ImageRecord
    config: bytes


def find(args: argparse.Namespace, name: str, *, again: bool) -> FoundImage:
    """The image that is meant, pulled where it is not there, or always where that is asked for.

    Args:
        again: it was there and is not whole any more.

    Raises:
        ReferenceInvalid, PlatformInvalid: it cannot be read.
        ImageMissing: it is not there, and may not be pulled; or was removed at once.
        BundleRefused: nothing of it runs on this machine.
        PullFailed, BusError, PullTimeout: it cannot be pulled.
    """
    wanted, parsed = _platform(args), str(reference.parse(name))
    root = store_root(Path(args.home), args.store)
    record = _listed(root, parsed, wanted)
    if args.policy == "always" or again or record is None or not record.chain_ids:
        if args.policy == "never":
            raise _missing(args, root, parsed, wanted)
        _pull(args, parsed, wanted if args.platform else "")
        record = _listed(root, parsed, wanted)
    if record is None:
        raise _missing(args, root, parsed, wanted)
    if not record.chain_ids:
        raise ImageMissing(f"{parsed} has no layers, so there is nothing to start")
    if record.platform.partition("/")[0] != "linux":
        raise BundleRefused(
            f"{parsed} is for {record.platform}; a bundle is for Linux: say --platform linux/… where it has that"
        )
    content = opened(root)
    try:
        return FoundImage(content, record, content.read(record.image_id, _LONGEST_CONFIG))
    except Permanent as exc:
        raise ConfigInvalid(f"the config of {parsed} cannot be read: {exc}; `pullonce verify --repair` mends it") from exc


def pull_again(args: argparse.Namespace, known: Bundle) -> None:
    """Bring back the layers of a bundle: of its very image, whatever its reference names by now."""
    store = Path(known.store)  # HOME/stores/NAME
    there = argparse.Namespace(**{**vars(args), "home": str(store.parents[1]), "store": store.name})
    _pull(there, f"{reference.parse(known.reference).name}@{known.digest}", known.platform)


def _platform(args: argparse.Namespace) -> str:
    return normalise(args.platform) if args.platform else spell("linux", os.uname().machine)


def _listed(root: Path, name: str, wanted: str) -> ImageRecord | None:
    return Images(root).find(name, wanted) if Layout(root).store.exists() else None


def _pull(args: argparse.Namespace, name: str, platform: str) -> None:
    fields = {
        **vars(args), "reference": name, "platform": platform, "unpack": True, "json": False,
        "policy": "always" if args.policy == "never" else args.policy,
    }  # fmt: skip
    pull.check(pull.obtain(argparse.Namespace(**fields), door="bundle"))


def _missing(args: argparse.Namespace, root: Path, name: str, wanted: str) -> ImageMissing:
    others = [each.platform for each in Images(root).named(name)] if Layout(root).store.exists() else []
    others = [each for each in others if not serves(each, wanted)]
    if others:
        there = ", ".join(others)
        return ImageMissing(
            f"{name} is in store {args.store} for {there} and not for {wanted}; say --platform {others[0]} to take that"
        )
    return ImageMissing(f"{name} is not in store {args.store} of {args.home}, or not unpacked; pull it first")
