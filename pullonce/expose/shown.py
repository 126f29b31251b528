"""Which images are shown, as the holds of the store say it: they are written first, and the view is made of them.

begun      somebody is about to show it; whoever finds it so afterwards knows that this one died, and lets it go
shown      it is listed in the view
replaced   its reference names a newer image by now; it stays without a name while something of podman's is built on it
leaving    it is being taken out of the view
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from pullonce.store.holds import PODMAN, Hold, Holds, HoldUnreadable
from pullonce.store.images import ImageRecord
from schemas.oci import Digest

State = Literal["begun", "shown", "replaced", "leaving"]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is held for the view."""

    image: ImageRecord
    state: State = "shown"

    @property
    def key(self) -> tuple[str, str]:
        """What it stands under."""
        return self.image.reference, self.image.platform

    @property
    def name(self) -> str:
        """What its hold is called."""
        return f"{self.image.reference} {self.image.platform} {self.image.manifest.digest}"

    @property
    def title(self) -> str:
        """It for people."""
        return f"{self.image.reference} ({self.image.platform})"

    def now(self, state: State) -> "Shown":
        """The same in another state."""
        return msgspec.structs.replace(self, state=state)


def twins(there: Iterable[Shown], listed: Callable[[ImageRecord], bool]) -> list[Shown]:
    """Of shown images that stand under the same reference and platform, those that another one has replaced.

    There are two when whoever showed the newer one died in between: the one that the store lists is the newer.
    """
    found: list[Shown] = []
    kept: dict[tuple[str, str], Shown] = {}
    for each in there:
        if each.state == "shown":
            other = kept.setdefault(each.key, each)
            if other is not each:
                newer, older = (each, other) if listed(each.image) else (other, each)
                kept[each.key] = newer
                found.append(older)
    return found


class ShownImages:
    """The images that a store holds for its view.

    Args:
        root: the store's directory.
    """

    def __init__(self, root: Path) -> None:
        self._holds = Holds(root)

    def all(self) -> list[Shown]:
        """Those that are held, sorted by reference and platform.

        Raises:
            HoldUnreadable: one cannot be read.
        """
        return sorted(self._read(), key=lambda each: (*each.key, each.state))

    def _read(self) -> Iterator[Shown]:
        for hold in self._holds.all(PODMAN):
            try:
                yield msgspec.json.decode(hold.note, type=Shown)
            except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
                raise HoldUnreadable(
                    f"what is held of {hold.reference} for podman cannot be read ({exc}); remove {self._holds.path(hold)}, and "
                    "expose the image again"
                ) from exc

    def put(self, shown: Shown) -> None:
        """Hold an image, or change the state of one. When this returns it is on the disk.

        Raises:
            Permanent: the disk refuses.
        """
        image = shown.image
        self._holds.put(
            Hold(
                holder=PODMAN, name=shown.name, chain_ids=image.chain_ids, blobs=needed_documents(image),
                reference=image.reference, platform=image.platform, note=msgspec.json.encode(shown).decode(),
            )
        )  # fmt: skip

    def drop(self, shown: Shown) -> None:
        """Let an image go; raises Permanent where the disk refuses."""
        self._holds.drop(PODMAN, shown.name)


def needed_documents(image: ImageRecord) -> tuple[Digest, ...]:
    """The documents that are shown of an image: its manifest, its config, the index that its reference named."""
    return tuple(dict.fromkeys((image.manifest.digest, image.image_id, image.digest)))
